//! The options of `serve`: what was asked for, read from arguments and the environment by the table of options.

mod table;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lastorders::activation::Inherited;
use lastorders::{Interface, Limits};
use lexopt::Arg;

use crate::activation;
use crate::failure::Failure;
use crate::logging::Logging;
use crate::privileges::Account;
use crate::supervisor::Supervisor;
use crate::values::{Parsed, TCP_SERVICES, UDP_SERVICES, shown, value};

use self::table::{OPTIONS, Opt};

/// What `lastorders serve` was asked for.
pub struct Serve {
    /// In the order in which they were asked for.
    pub sockets: Vec<Socket>,
    /// Passed by the one who has started the daemon; these come first.
    pub inherited: Vec<Inherited>,
    pub supervisor: Supervisor,
    /// Where the multicast groups are joined.
    pub interface: Option<Interface>,
    pub limits: Limits,
    pub kv_entries: usize,
    pub kv_bytes: usize,
    pub control: Option<PathBuf>,
    pub fork: bool,
    pub max_children: usize,
    pub logging: Logging,
    pub console: bool,
    pub daemon: bool,
    pub pid_file: Option<PathBuf>,
    pub user: Option<Account>,
    pub bind_retry: Duration,
    pub freebind: bool,
    pub check: bool,
}

/// A socket to be served, by its service's name.
#[derive(Debug, PartialEq, Eq)]
pub enum Socket {
    Tcp(String, SocketAddr),
    Udp(String, SocketAddr),
    Multicast(SocketAddr),
}

/// Reads the options of `serve` and their environment.
pub fn parse_serve(
    mut parser: lexopt::Parser,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Parsed<Serve>, Failure> {
    let usage = |text: String| Failure::Usage(format!("{text}; see `lastorders serve --help`"));
    let mut given: Vec<(&Opt, String)> = Vec::new();
    while let Some(arg) = parser.next().map_err(|error| usage(error.to_string()))? {
        if matches!(arg, Arg::Long("help") | Arg::Short('h')) {
            return Ok(Parsed::Help(serve_help()));
        }
        let named = |name: &str| OPTIONS.iter().find(|option| option.name == name);
        let option = match arg {
            Arg::Long(name) => named(name).ok_or_else(|| usage(format!("unknown option --{name}")))?,
            other => return Err(usage(format!("unexpected argument {}", shown(&other)))),
        };
        let text = if option.value.is_empty() { String::new() } else { value(&mut parser).map_err(usage)? };
        given.push((option, text));
    }
    let mut serve = Serve {
        sockets: vec![],
        inherited: vec![],
        supervisor: Supervisor::default(),
        interface: None,
        limits: Limits::default(),
        kv_entries: 1_024,
        kv_bytes: 65_536,
        logging: Logging::default(),
        console: false,
        daemon: false,
        pid_file: None,
        user: None,
        bind_retry: Duration::ZERO,
        freebind: false,
        control: None,
        fork: false,
        max_children: 50,
        check: false,
    };
    let mut set = |option: &Opt, source: &str, text: &str| {
        if option.value.is_empty() && matches!(text, "0" | "no" | "false") {
            return Ok(());
        }
        (option.set)(&mut serve, text).map_err(|error| usage(format!("{source} {text:?}: {error}")))
    };
    for (option, text) in &given {
        set(option, &format!("--{}", option.name), text)?;
    }
    // The command line wins over the environment.
    for option in OPTIONS.iter().filter(|option| given.iter().all(|(other, _)| other.name != option.name)) {
        let name = format!("LASTORDERS_{}", option.name.to_ascii_uppercase().replace('-', "_"));
        if let Some(text) = variable(&name) {
            set(option, &name, &text.to_string_lossy())?;
        }
    }
    // Read before anything forks: both are for the process of this number.
    serve.inherited = activation::take()?;
    serve.supervisor.read().map_err(Failure::Usage)?;
    if serve.sockets.is_empty() && serve.inherited.is_empty() {
        serve.sockets.push(Socket::Tcp("echo".into(), SocketAddr::from(([127, 0, 0, 1], 9999))));
    }
    Ok(Parsed::Options(serve))
}

fn serve_help() -> String {
    let mut text =
        String::from("Usage: lastorders serve [OPTION]...\n\nServes until SIGHUP, SIGINT, SIGTERM or SIGQUIT.\n\n");
    for option in OPTIONS {
        let left = format!("--{} {}", option.name, option.value);
        text += &format!("  {left:<27} {}\n", option.help);
    }
    text += &format!(
        "\nTCP services: {TCP_SERVICES}. UDP services: {UDP_SERVICES}.\n\
         Each option is also read from the environment, as LASTORDERS_WORKERS and so on; lists are split at commas.\n\
         SIGUSR1 logs the counters, SIGUSR2 opens the log file again. A second signal to stop ends the grace time, a third exits at once.\n\
         Sockets passed by systemd (LISTEN_FDS) are served by the service that they are named after; NOTIFY_SOCKET and WATCHDOG_USEC are honoured.\n\
         Exit codes: 0 stopped as asked, 1 could not start or run, 2 usage.\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(args: &[&str]) -> Result<Serve, String> {
        let parser = lexopt::Parser::from_args(args.iter().map(OsString::from));
        match parse_serve(parser, |name| std::env::var_os(name)) {
            Ok(Parsed::Options(serve)) => Ok(serve),
            Err(Failure::Usage(text)) => Err(text),
            _ => Err("not a serve command".into()),
        }
    }

    #[test]
    fn both_forms_of_an_option_are_read() {
        let serve = serve(&["--workers=2", "--grace", "0.5", "--tcp=echo=[::1]:7,echo=127.0.0.1:0"]).unwrap();
        assert_eq!((serve.limits.workers, serve.limits.grace), (2, Duration::from_millis(500)));
        assert_eq!(serve.sockets[0], Socket::Tcp("echo".into(), "[::1]:7".parse().unwrap()));
        assert_eq!(serve.sockets.len(), 2);
    }

    #[test]
    fn echo_is_served_when_nothing_is_named() {
        let echo = Socket::Tcp("echo".into(), "127.0.0.1:9999".parse().unwrap());
        assert_eq!(serve(&[]).unwrap().sockets, [echo]);
    }

    #[test]
    fn sockets_keep_the_order_of_the_command_line() {
        let args = ["--multicast=[ff05::1]:7", "--udp", "time=[::1]:7", "--interface", "lo", "--tcp=echo=[::1]:7"];
        let serve = serve(&args).unwrap();
        let address = "[::1]:7".parse().unwrap();
        let group = Socket::Multicast("[ff05::1]:7".parse().unwrap());
        assert_eq!(serve.sockets, [group, Socket::Udp("time".into(), address), Socket::Tcp("echo".into(), address)]);
        assert_eq!(serve.interface, Some(Interface::Name("lo".into())));
    }

    #[test]
    fn errors_name_the_option_the_value_and_what_would_be_right() {
        for (args, parts) in [
            (&["--workers", "many"][..], &["--workers \"many\"", "whole number"][..]),
            (&["--wrokers", "2"], &["--wrokers", "--help"]),
            (&["--tcp", "ehco=127.0.0.1:1"], &["ehco", "choose echo"]),
            (&["--tcp", "echo=localhost"], &["localhost", "127.0.0.1:9999"]),
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
            let error = serve(args).err().unwrap();
            for part in parts {
                assert!(error.contains(part), "{args:?}: {error}");
            }
        }
    }

    #[test]
    fn the_help_lists_every_option() {
        let help = serve_help();
        assert!(OPTIONS.iter().all(|option| help.contains(&format!("--{} ", option.name))));
    }
}
