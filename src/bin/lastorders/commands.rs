//! The commands of the daemon: which one the command line names, and what it was asked for.

use std::ffi::OsString;

use lexopt::Arg;

use crate::client::{self, Client};
use crate::control::{self, Control};
use crate::failure::Failure;
use crate::options::{Serve, parse_serve};
use crate::send::{self, Send};
use crate::usage::USAGE;
use crate::values::{Parsed, shown};

pub enum Command {
    Serve(Box<Serve>),
    Client(Client),
    Control(Control),
    Send(Send),
    Print(String),
}

const COMMANDS: &str = "serve, client, control or send";

/// Reads the whole command line, and the environment.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Failure> {
    parse_with(args, |name| std::env::var_os(name))
}

/// Reads the whole command line, and an environment.
pub fn parse_with(
    args: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Failure> {
    let mut parser = lexopt::Parser::from_iter(args);
    let usage = |text: String| Failure::Usage(format!("{text}; see `lastorders --help`"));
    match parser.next().map_err(|error| usage(error.to_string()))? {
        Some(Arg::Value(word)) if word == "serve" => {
            Ok(Command::of(parse_serve(parser, variable)?, |serve| Command::Serve(Box::new(serve))))
        }
        Some(Arg::Value(word)) if word == "client" => Ok(Command::of(client::parse(parser)?, Command::Client)),
        Some(Arg::Value(word)) if word == "control" => Ok(Command::of(control::parse(parser)?, Command::Control)),
        Some(Arg::Value(word)) if word == "send" => Ok(Command::of(send::parse(parser)?, Command::Send)),
        Some(Arg::Value(word)) => Err(usage(format!("unknown command {word:?}; choose {COMMANDS}"))),
        Some(Arg::Long("help") | Arg::Short('h')) => Ok(Command::Print(USAGE.into())),
        Some(Arg::Long("version") | Arg::Short('V')) => {
            Ok(Command::Print(concat!("lastorders ", env!("CARGO_PKG_VERSION"), "\n").into()))
        }
        Some(other) => Err(usage(format!("unknown option {}", shown(&other)))),
        None => Err(usage(format!("no command; choose {COMMANDS}"))),
    }
}

impl Command {
    /// A command with its options, or the help that was asked for.
    fn of<T>(parsed: Parsed<T>, command: impl FnOnce(T) -> Command) -> Command {
        match parsed {
            Parsed::Options(options) => command(options),
            Parsed::Help(text) => Command::Print(text),
        }
    }
}
