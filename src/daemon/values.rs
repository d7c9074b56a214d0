//! The words of a command line: from text to a value, or to an error that says what would be right.
//!
//! Nothing here knows an option or a command. A reader's error says only what would be right; [`value`] puts the option
//! and the text before that error.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};
use log::LevelFilter;

use crate::config::WhenFull;
use crate::datagram::{Group, Interface};
use crate::sys::Seconds;

/// An argument as it was written.
pub(crate) fn shown(argument: &Arg<'_>) -> String {
    match argument {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(word) => format!("{word:?}"),
    }
}

/// The error for an argument that a command does not know.
pub(crate) fn unexpected(argument: &Arg<'_>) -> lexopt::Error {
    format!("unexpected argument {}", shown(argument)).into()
}

/// Takes the value of the option that the parser has just returned.
pub(crate) fn text(parser: &mut Parser) -> Result<String, lexopt::Error> {
    let value = parser.value()?;
    value.into_string().map_err(|value| format!("{value:?} is not valid UTF-8").into())
}

/// Takes the value of `option`, which the parser has just returned, and reads it.
pub(crate) fn value<T>(
    parser: &mut Parser,
    option: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, lexopt::Error> {
    let text = text(parser)?;
    read(&text).map_err(|error| format!("{option} {text:?}: {error}").into())
}

/// The number of a descriptor that the daemon may have been started with.
pub(crate) fn descriptor(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|number| *number > 2).ok_or("expected the number of an open descriptor, 3 or more".into())
}

pub(crate) fn group(text: &str) -> Result<SocketAddr, String> {
    let form = "expected GROUP:PORT, as in 239.1.1.1:5007 or [ff05::1:3]:5007";
    let address = text.parse().map_err(|_| form)?;
    Group::new(address, None).map(|group| group.address()).map_err(|error| format!("{error}; {form}"))
}

pub(crate) fn interface(text: &str) -> Result<Interface, String> {
    text.parse().map_err(|error: std::io::Error| error.to_string())
}

pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".into()) } else { Ok(text.into()) }
}

pub(crate) fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number".into())
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = Seconds::parse(text).ok_or("expected a number of seconds, 0 to 86400")?;
    Ok(seconds.0)
}

pub(crate) fn when_full(text: &str) -> Result<WhenFull, String> {
    match text {
        "wait" => Ok(WhenFull::Wait),
        "shed" => Ok(WhenFull::Shed),
        "reject" => Ok(WhenFull::Reject),
        _ => Err("choose wait, shed or reject".into()),
    }
}

pub(crate) fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "choose off, error, warn, info, debug or trace".into())
}
