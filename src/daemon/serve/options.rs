//! The options of `serve`: one table for the command line, the environment and the help.
//!
//! In come the words and the environment, out go the [`Settings`]. A row of the table has the option's name, what the help
//! calls its value, its help text, and how to write the setting; a flag has no value, and `{default}` in a help text
//! stands for the default socket. The command line wins. Reading has no effect on the process, so that a fuzzer can do
//! it.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::privileges::account;
use super::services::Services;
use super::settings::{Protocol, Settings, Socket};
use crate::config::{BUFFER, CHILDREN, CONNECTIONS, KV_BYTES, KV_ENTRIES, QUEUE, WORKERS};
use crate::daemon::logging;
use crate::daemon::values::{
    self, bytes, descriptor, group, interface, number, parsed, path, shown, text, time, unexpected, when_full,
};

/// Writes a setting from the option's text, or says what would be a right value.
type Set = fn(&mut Settings, &str, &Services) -> Result<(), String>;

/// An option of `serve`.
struct Opt {
    name: &'static str,
    value: &'static str,
    help: &'static str,
    set: Set,
}

const fn opt(name: &'static str, value: &'static str, help: &'static str, set: Set) -> Opt {
    Opt { name, value, help, set }
}

#[rustfmt::skip] // A row is easier to read than five lines.
const OPTIONS: &[Opt] = &[
    opt("tcp", "SERVICE=ADDR", "offer a service on an address; may be repeated [{default}]",
        |it, text, services| add_sockets(it, text, |one| services.socket(Protocol::Tcp, one))),
    opt("udp", "SERVICE=ADDR", "answer datagrams on an address; may be repeated",
        |it, text, services| add_sockets(it, text, |one| services.socket(Protocol::Udp, one))),
    opt("multicast", "GROUP:PORT", "log what is sent to a multicast group; may be repeated",
        |it, text, _| add_sockets(it, text, |one| group(one).map(Socket::Multicast))),
    opt("interface", "IF", "join the groups on it, a name or an address [the route's]",
        |it, text, _| put(&mut it.interface, interface(text).map(Some))),
    opt("bind-retry", "SECONDS", "try again for so long to bind what is taken or not there yet [0]",
        |it, text, _| put(&mut it.bind_retry, time(text))),
    opt("freebind", "", "bind to addresses that the machine gets later (IP_FREEBIND)",
        |it, text, _| flag(&mut it.freebind, text)),
    opt("workers", "N", "worker threads, 1 to 64 [4]", |it, text, _| put(&mut it.limits.workers, number(text, WORKERS))),
    opt("connections", "N", "open connections, 1 to 16384 [128]",
        |it, text, _| put(&mut it.limits.connections, number(text, CONNECTIONS))),
    opt("queue", "N", "accepted connections that may wait for a worker, 1 to 1024 [64]",
        |it, text, _| put(&mut it.limits.queue, number(text, QUEUE))),
    opt("buffer", "BYTES", "each connection's input and output buffer, 64 to 1048576 [4096]",
        |it, text, _| put(&mut it.limits.buffer, bytes(text, BUFFER))),
    opt("grace", "SECONDS", "time clients have to leave after the shutdown notice, 0 to 86400 [5]",
        |it, text, _| put(&mut it.limits.grace, time(text))),
    opt("idle-timeout", "SECONDS", "silence allowed between requests, up to 86400, 0 for no limit [30]",
        |it, text, _| put(&mut it.limits.idle_timeout, time(text))),
    opt("request-timeout", "SECONDS", "time from a request's first byte to its last, 0 for no limit [10]",
        |it, text, _| put(&mut it.limits.request_timeout, time(text))),
    opt("write-timeout", "SECONDS", "time a client may leave a reply unread, 0 for no limit [10]",
        |it, text, _| put(&mut it.limits.write_timeout, time(text))),
    opt("when-full", "POLICY", "a new client when all connections are taken: wait, shed or reject [wait]",
        |it, text, _| put(&mut it.limits.when_full, when_full(text))),
    opt("per-client", "N", "open connections of one address (IPv6: /64), 1 to 16384, 0 for no limit [0]",
        |it, text, _| put(&mut it.limits.per_client,
            number(text, 0..=*CONNECTIONS.end()).map(|count| (count > 0).then_some(count)))),
    opt("kv-entries", "N", "entries that the kv store holds, 1 to 1048576 [1024]",
        |it, text, _| put(&mut it.kv_entries, number(text, KV_ENTRIES))),
    opt("kv-bytes", "BYTES", "keys and values that the kv store holds, 64 to 67108864 [65536]",
        |it, text, _| put(&mut it.kv_bytes, bytes(text, KV_BYTES))),
    opt("control", "PATH", "answer `lastorders control` on a Unix socket",
        |it, text, _| put(&mut it.control, path(text).map(Some))),
    opt("fork", "", "serve each connection in a process of its own, in place of workers",
        |it, text, _| flag(&mut it.fork, text)),
    opt("max-children", "N", "processes that --fork may have at once, 1 to 1024 [50]",
        |it, text, _| put(&mut it.max_children, number(text, CHILDREN))),
    opt("log-level", "LEVEL", "off, error, warn, info, debug or trace [info]",
        |it, text, _| put(&mut it.logging.level, parsed(text, "choose off, error, warn, info, debug or trace"))),
    opt("log-file", "PATH", "log to this file too; SIGUSR2 opens it again",
        |it, text, _| put(&mut it.logging.file, path(text).map(Some))),
    opt("log-size", "SIZE", "what the log file may grow to before it becomes PATH.1, 16K to 4G [1M]",
        |it, text, _| put(&mut it.logging.size, logging::size(text))),
    opt("syslog", "", "log to syslog(3) too", |it, text, _| flag(&mut it.logging.syslog, text)),
    opt("notify-fd", "N", "write a line to that inherited descriptor when ready (s6, OpenRC)",
        |it, text, _| put(&mut it.notify_fd, descriptor(text).map(Some))),
    opt("console", "", "stop when Enter is pressed, or standard input ends", |it, text, _| flag(&mut it.console, text)),
    opt("daemon", "", "go on in the background; exit with 0 once every socket is bound",
        |it, text, _| flag(&mut it.daemon, text)),
    opt("pid-file", "PATH", "keep the process id in this file while the server runs",
        |it, text, _| put(&mut it.pid_file, path(text).map(Some))),
    opt("user", "NAME", "run as this user, or as UID:GID, once every socket is bound",
        |it, text, _| put(&mut it.user, account(text).map(Some))),
    opt("check", "", "do what a start does and undo it, print what the server would use at most, and exit", |it, text, _| flag(&mut it.check, text)),
];

/// Reads the words after `serve`, and each option that they leave out from its environment variable, which
/// `variable` looks up. Returns `None` when the words ask for the help.
///
/// # Errors
/// With the option or the variable, its text, and what would be right.
pub(crate) fn read(
    mut parser: Parser,
    services: &Services,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<Settings>, lexopt::Error> {
    let mut given: Vec<(&Opt, String)> = Vec::new();
    while let Some(argument) = parser.next()? {
        let option = match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(name) => OPTIONS.iter().find(|option| option.name == name),
            other => return Err(unexpected(&other)),
        };
        let option = option.ok_or_else(|| format!("unknown option {}", shown(&argument)))?;
        given.push((option, if option.value.is_empty() { String::new() } else { text(parser.value()?)? }));
    }
    let mut settings = Settings::default();
    let mut set = |option: &Opt, source: String, text: &str| {
        (option.set)(&mut settings, text, services).map_err(|error| format!("{source} {text:?}: {error}"))?;
        settings.sources.push(source);
        Ok::<(), String>(())
    };
    for (option, text) in &given {
        set(option, format!("--{}", option.name), text)?;
    }
    for option in OPTIONS.iter().filter(|option| given.iter().all(|(other, _)| other.name != option.name)) {
        let name = variable_of(option.name);
        // An empty value is as if unset.
        if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
            let text = value.to_str().ok_or_else(|| format!("{name} {value:?} is not valid UTF-8"))?;
            set(option, name, text)?;
        }
    }
    Ok(Some(settings))
}

/// The variable that gives an option.
fn variable_of(option: &str) -> String {
    format!("LASTORDERS_{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// A warning for each of these variables that looks like an option's and is none. LASTORDERS_ARGS is for the scripts that
/// start the daemon.
pub(crate) fn unknown_variables(names: impl Iterator<Item = String>) -> impl Iterator<Item = String> {
    let mut known: Vec<String> = OPTIONS.iter().map(|option| variable_of(option.name)).collect();
    known.push("LASTORDERS_ARGS".into());
    names.filter(|name| name.starts_with("LASTORDERS_")).filter_map(move |name| {
        let nearest = known.iter().min_by_key(|known| distance(&name, known))?;
        (*nearest != name).then(|| format!("{name} has no effect, there is no such option; the nearest is {nearest}"))
    })
}

/// How many letters to insert, delete or replace (Levenshtein) to make `one` into `other`.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], index + 1);
        for (column, against) in other.bytes().enumerate() {
            let replaced = corner + usize::from(letter != against);
            corner = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

/// Refuses an option that has no effect for lack of another one, and warns of it where a variable gives it: the same
/// variables may be set for many boards.
///
/// # Errors
/// With the option, and what it lacks.
pub(crate) fn check_effects(
    settings: &Settings,
    services: &Services,
    inherited: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    let with = |wanted: fn(&Socket) -> bool| settings.sockets.iter().any(wanted);
    let group = with(|socket| matches!(socket, Socket::Multicast(_)));
    // A program without a service kv may have kv's store under another name.
    let kv = inherited("kv")
        || services.find(Protocol::Tcp, "kv").is_none()
        || with(|socket| matches!(socket, Socket::Service { name: "kv", .. }));
    let mut warnings = vec![];
    for (option, has_effect, lacking) in [
        ("interface", group, "--multicast"),
        ("kv-entries", kv, "a service kv"),
        ("kv-bytes", kv, "a service kv"),
        ("max-children", settings.fork, "--fork"),
        ("log-size", settings.logging.file.is_some(), "--log-file"),
    ] {
        let (option, variable) = (format!("--{option}"), variable_of(option));
        match settings.sources.iter().find(|source| !has_effect && (**source == option || **source == variable)) {
            Some(source) if *source == option => {
                return Err(format!("{option} has no effect without {lacking}; add that, or leave {option} out"));
            }
            Some(source) => warnings.push(format!("{source} has no effect without {lacking}")),
            None => {}
        }
    }
    Ok(warnings)
}

/// What `lastorders serve --help` prints.
pub(crate) fn help(services: &Services) -> String {
    let mut text =
        String::from("Usage: lastorders serve [OPTION]...\n\nServes until SIGHUP, SIGINT, SIGTERM or SIGQUIT.\n\n");
    let default = services.example(Protocol::Tcp);
    for option in OPTIONS {
        let left = format!("--{} {}", option.name, option.value);
        text += &format!("  {left:<27} {}\n", option.help.replace("{default}", &default));
    }
    text += &format!(
        "\nTCP services: {}. UDP services: {}.\n\
         Times are in seconds, or have a unit: 500ms, 5s, 2m, 1h. Sizes are in bytes, or have one: 64k, 1M.\n\
         Each option is also read from the environment, as LASTORDERS_WORKERS and so on; lists are split at commas, an\n\
         empty value is as if unset, and options without a value take 1, yes, true, on or 0, no, false, off. An option that\n\
         has no effect is a usage error, and a variable that has none a warning.\n\
         SIGUSR1 logs the counters, SIGUSR2 opens the log file again. A second signal to stop ends the grace time, a third exits at once.\n\
         Sockets passed by systemd (LISTEN_FDS) are served by the service that they are named after; NOTIFY_SOCKET and WATCHDOG_USEC are honoured.\n\
         Exit codes: 0 stopped as asked, 1 could not start or run, 2 usage.\n",
        services.names(Protocol::Tcp),
        services.names(Protocol::Udp)
    );
    text
}

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

/// On the command line a flag has an empty text. A variable can also switch the flag off.
fn flag(field: &mut bool, text: &str) -> Result<(), String> {
    put(field, if text.is_empty() { Ok(true) } else { values::flag(text) })
}

/// Adds the sockets of a list, which `read` reads one by one.
fn add_sockets(
    settings: &mut Settings,
    list: &str,
    read: impl Fn(&str) -> Result<Socket, String>,
) -> Result<(), String> {
    list.split(',').try_for_each(|one| read(one).map(|socket| settings.sockets.push(socket)))
}

/// The options that take no value, as a command line has them.
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) fn flags() -> impl Iterator<Item = String> {
    OPTIONS.iter().filter(|option| option.value.is_empty()).map(|option| format!("--{}", option.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram::Interface;
    use std::time::Duration;

    fn serve(words: &[&str]) -> Result<Settings, String> {
        let settings =
            read(Parser::from_args(words), &Services::sample(), |_| None).map_err(|error| error.to_string())?;
        settings.ok_or_else(|| "the help".into())
    }

    fn socket(protocol: Protocol, text: &str) -> Socket {
        Services::sample().socket(protocol, text).unwrap()
    }

    #[test]
    fn both_forms_of_an_option_are_read() {
        let settings = serve(&["--workers=2", "--grace", "0.5", "--tcp=echo=[::1]:7,echo=127.0.0.1:0"]).unwrap();
        assert_eq!((settings.limits.workers, settings.limits.grace), (2, Duration::from_millis(500)));
        let address = ["echo=[::1]:7", "echo=127.0.0.1:0"];
        assert_eq!(settings.sockets, address.map(|text| socket(Protocol::Tcp, text)));
    }

    #[test]
    fn sockets_keep_the_order_of_the_command_line() {
        let words = ["--multicast=[ff05::1]:7", "--udp", "time=[::1]:7", "--interface", "lo", "--tcp=echo=[::1]:7"];
        let settings = serve(&words).unwrap();
        let group = Socket::Multicast("[ff05::1]:7".parse().unwrap());
        let (time, echo) = (socket(Protocol::Udp, "time=[::1]:7"), socket(Protocol::Tcp, "echo=[::1]:7"));
        assert_eq!(settings.sockets, [group, time, echo]);
        assert_eq!(settings.interface, Some(Interface::Name("lo".into())));
    }

    #[test]
    fn errors_name_the_option_the_value_and_what_would_be_right() {
        for (words, parts) in [
            (&["--workers", "many"][..], &["--workers \"many\"", "1 to 64"][..]),
            (&["--wrokers", "2"], &["unknown option --wrokers"]),
            (&["--tcp", "ehco=127.0.0.1:1"], &["ehco", "choose echo, upper-lines"]),
            (&["--tcp", "echo=example.org:1"], &["example.org", "127.0.0.1:9999"]),
            (&["--tcp", "echo"], &["SERVICE=ADDRESS"]),
            (&["--udp", "echo=127.0.0.1:1"], &["echo is a service of --tcp", "choose time"]),
            (&["--tcp", "time=127.0.0.1:1"], &["time is a service of --udp", "choose echo, upper-lines"]),
            (&["--multicast", "239.1.1.1:0"], &["239.1.1.1:0", "port 0", "239.1.1.1:5007"]),
            (&["--per-client", "16385"], &["--per-client \"16385\"", "0 to 16384"]),
            (&["--idle-timeout", "25h"], &["--idle-timeout \"25h\"", "0 to 86400 seconds"]),
            (&["--multicast", "10.0.0.1:1"], &["10.0.0.1", "not a multicast address", "239.1.1.1:5007"]),
            (&["--interface", "a b"], &["--interface \"a b\"", "eth0"]),
            (&["--grace", "-1"], &["--grace \"-1\"", "seconds"]),
            (&["--grace", "nan"], &["--grace", "seconds"]),
            (&["--when-full", "panic"], &["panic", "wait, shed or reject"]),
            (&["--log-size", "1T"], &["--log-size \"1T\"", "16K to 4G"]),
            (&["extra"], &["extra"]),
            (&["--workers"], &["--workers"]),
        ] {
            let error = serve(words).err().unwrap();
            for part in parts {
                assert!(error.contains(part), "{words:?}: {error}");
            }
        }
    }

    #[test]
    fn the_help_lists_every_option_and_service() {
        let help = help(&Services::sample());
        assert!(OPTIONS.iter().all(|option| help.contains(&format!("--{} ", option.name))));
        assert!(
            help.contains("[echo=127.0.0.1:9999]\n")
                && help.contains("TCP services: echo, upper-lines. UDP services: time.")
        );
    }

    #[test]
    fn the_nearest_variable_takes_the_fewest_changes() {
        for (one, other, changes) in [("", "abc", 3), ("abc", "", 3), ("wrokers", "workers", 2), ("grace", "trace", 1)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (changes, changes), "{one} {other}");
        }
        let names = ["LASTORDERS_WROKERS", "LASTORDERS_LOGFILE", "LASTORDERS_GRACE", "LASTORDERS_ARGS", "HOME"];
        let found: Vec<String> = unknown_variables(names.map(String::from).into_iter()).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("LASTORDERS_WROKERS") && found[0].ends_with("LASTORDERS_WORKERS"));
        assert!(found[1].ends_with("LASTORDERS_LOG_FILE"));
    }
}
