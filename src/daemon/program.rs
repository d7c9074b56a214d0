//! The program: the services that it offers, and the list of its commands.
//!
//! In come the arguments, and out goes the exit code. The first word chooses the command, and the command reads the
//! other words. When a command line is wrong, this module reports the error, and names the command's help.

use std::ffi::OsString;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use super::action::{Action, Failure, print_error, printing};
use super::serve::{Protocol, Services, Settings};
use super::values::shown;
use super::{client, control, send, serve};
use crate::datagram::Datagram;
use crate::error::Error;
use crate::server::Builder;
use crate::service::Service;

const CHOICE: &str = "choose serve, client, control or send";

const USAGE: &str = "\
Usage: lastorders serve [OPTION]...
       lastorders client ADDR [--message TEXT] [--newline] [--every SECONDS] [--count N]
       lastorders control [--socket PATH] status [--json | --metrics]
       lastorders control [--socket PATH] stop [--grace SECONDS]
       lastorders send GROUP:PORT MESSAGE [--ttl N] [--interface IF]
       lastorders --help | --version

A fixed thread-pool server that tells its clients when it closes.
`lastorders serve --help` lists the server's options.
";

const VERSION: &str = concat!("lastorders ", env!("CARGO_PKG_VERSION"), "\n");

/// The whole daemon around the services that are added to it.
///
/// The order in which services are added is the order in which help and errors list them. The first TCP service is
/// the one that `serve` offers, on 127.0.0.1:9999, when no socket is named.
#[derive(Debug, Default)]
pub struct Daemon {
    services: Services,
}

impl Daemon {
    /// A daemon without services.
    pub fn new() -> Daemon {
        Daemon::default()
    }

    /// Adds a TCP service, as `--tcp NAME=ADDR` names it. The daemon calls `make` when it adds a socket of that name to
    /// the server; sockets of one name in a row share the service that `make` returns.
    pub fn tcp<S: Service>(self, name: &'static str, make: impl Fn() -> S + 'static) -> Daemon {
        self.tcp_with(name, move |_, builder| Ok(builder.service(make())))
    }

    /// Adds a TCP service that `add` adds to the server's [`Builder`], with the settings of the command line at
    /// hand. Besides [`Builder::service`], `add` may call [`Builder::memory`]. The daemon calls `add` when it would
    /// call `make` of [`tcp`](Daemon::tcp).
    pub fn tcp_with(
        mut self,
        name: &'static str,
        add: impl FnMut(&Settings, Builder) -> Result<Builder, Error> + 'static,
    ) -> Daemon {
        self.services.add(Protocol::Tcp, name, Box::new(add));
        self
    }

    /// Adds a UDP service, as `--udp NAME=ADDR` names it. The daemon calls `make` for each socket.
    pub fn udp<D: Datagram>(mut self, name: &'static str, make: impl Fn() -> D + 'static) -> Daemon {
        self.services.add(Protocol::Udp, name, Box::new(move |_, builder| Ok(builder.datagram(make()))));
        self
    }

    /// Does what the command line asks for. Call this from `main`, before the process has a second thread. The call
    /// returns when the command has ended, which for `serve` is the end of the shutdown.
    ///
    /// The exit code is 0 when the command succeeded, 1 when the command could not start or run, and 2 when the
    /// command line is wrong. With 1 and 2 the reason is on standard error.
    pub fn main(self) -> ExitCode {
        let action = parse(self.services, std::env::args_os(), |name| std::env::var_os(name));
        let (text, code) = match action.and_then(|action| action()) {
            Ok(()) => return ExitCode::SUCCESS,
            Err(Failure::Usage(text)) => (text, 2),
            Err(Failure::Run(text)) => (text, 1),
        };
        print_error(&text);
        ExitCode::from(code)
    }
}

/// Reads a command line, and for `serve` the environment: `variable` looks a variable up.
///
/// # Errors
/// [`Failure::Usage`] with what is wrong, what would be right, and the command that prints the help.
pub(crate) fn parse(
    services: Services,
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Action, Failure> {
    let mut parser = Parser::from_iter(arguments);
    let (action, command) = match parser.next() {
        Ok(Some(Arg::Value(word))) if word == "serve" => (serve::parse(parser, services, variable), " serve"),
        Ok(Some(Arg::Value(word))) if word == "client" => (client::parse(parser), " client"),
        Ok(Some(Arg::Value(word))) if word == "control" => (control::parse(parser), " control"),
        Ok(Some(Arg::Value(word))) if word == "send" => (send::parse(parser), " send"),
        Ok(Some(Arg::Long("help") | Arg::Short('h'))) => (Ok(printing(USAGE)), ""),
        Ok(Some(Arg::Long("version") | Arg::Short('V'))) => (Ok(printing(VERSION)), ""),
        Ok(Some(word @ Arg::Value(_))) => (Err(format!("unknown command {}; {CHOICE}", shown(&word)).into()), ""),
        Ok(Some(option)) => (Err(format!("unknown option {}", shown(&option)).into()), ""),
        Ok(None) => (Err(format!("no command; {CHOICE}").into()), ""),
        Err(error) => (Err(error), ""),
    };
    action.map_err(|error| Failure::Usage(format!("{error}; see `lastorders{command} --help`")))
}
