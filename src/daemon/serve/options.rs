//! The command line of `serve`, and its help.
//!
//! In come the words and the environment, out go the [`Settings`]. The table of options says how to read both, and the
//! command line wins. Reading has no effect on the process, so that a fuzzer can do it.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::services::Services;
use super::settings::{Protocol, Settings, Socket};
use super::table::{OPTIONS, Opt};
use crate::daemon::values::{shown, text, unexpected};

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
         empty value is as if unset, and options without a value take 1, yes, true, on or 0, no, false, off. An option is a\n\
         usage error where it has no effect, and a variable a warning.\n\
         SIGUSR1 logs the counters, SIGUSR2 opens the log file again. A second signal to stop ends the grace time, a third exits at once.\n\
         Sockets passed by systemd (LISTEN_FDS) are served by the service that they are named after; NOTIFY_SOCKET and WATCHDOG_USEC are honoured.\n\
         Exit codes: 0 stopped as asked, 1 could not start or run, 2 usage.\n",
        services.names(Protocol::Tcp),
        services.names(Protocol::Udp)
    );
    text
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
