//! The command line of `serve`, and its help.
//!
//! In come the words and the environment, out go the [`Settings`]. The table of options says how to read both, and the
//! command line wins. Reading has no effect on the process, so that a fuzzer can do it.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::services::Services;
use super::settings::{Protocol, Settings};
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
    let mut set = |option: &Opt, source: &str, text: &str| {
        (option.set)(&mut settings, text, services).map_err(|error| format!("{source} {text:?}: {error}"))
    };
    for (option, text) in &given {
        set(option, &format!("--{}", option.name), text)?;
    }
    for option in OPTIONS.iter().filter(|option| given.iter().all(|(other, _)| other.name != option.name)) {
        let name = format!("LASTORDERS_{}", option.name.to_ascii_uppercase().replace('-', "_"));
        // An empty value is as if unset.
        if let Some(value) = variable(&name).filter(|value| !value.is_empty()) {
            let text = value.to_str().ok_or_else(|| format!("{name} {value:?} is not valid UTF-8"))?;
            set(option, &name, text)?;
        }
    }
    Ok(Some(settings))
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
         empty value is as if unset, and options without a value take 1, yes, true, on or 0, no, false, off.\n\
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
    use super::super::settings::Socket;
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
            (&["--workers", "many"][..], &["--workers \"many\"", "whole number"][..]),
            (&["--wrokers", "2"], &["unknown option --wrokers"]),
            (&["--tcp", "ehco=127.0.0.1:1"], &["ehco", "choose echo, upper-lines"]),
            (&["--tcp", "echo=example.org:1"], &["example.org", "127.0.0.1:9999"]),
            (&["--tcp", "echo"], &["SERVICE=ADDRESS"]),
            (&["--udp", "echo=127.0.0.1:1"], &["echo", "choose time"]),
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
}
