//! The values of options: from text to what it means, or to what would be right.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lastorders::{Group, Interface, Seconds, WhenFull};
use lexopt::Arg;
use log::LevelFilter;

/// What a command line says: the options of a command, or that its help is to be printed.
pub enum Parsed<T> {
    Options(T),
    Help(String),
}

/// The TCP services, as `--tcp` names them.
pub const TCP_SERVICES: &str = "echo, upper, upper-lines, command, kv";
/// The UDP services, as `--udp` names them.
pub const UDP_SERVICES: &str = "time";

/// An argument as it was written.
pub fn shown(arg: &Arg<'_>) -> String {
    match arg {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(word) => format!("{word:?}"),
    }
}

pub fn value(parser: &mut lexopt::Parser) -> Result<String, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    value.into_string().map_err(|value| format!("{value:?} is not valid UTF-8"))
}

/// Sets a flag, which cannot go wrong.
pub fn on(flag: &mut bool) -> Result<(), String> {
    *flag = true;
    Ok(())
}

/// Reads each item of a list.
pub fn each(text: &str, read: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    text.split(',').try_for_each(read)
}

/// Reads `SERVICE=ADDR`.
pub fn offer(text: &str, services: &str, example: &str) -> Result<(String, SocketAddr), String> {
    let form = format!("expected SERVICE=ADDRESS, as in {example}");
    let (service, address) = text.split_once('=').ok_or_else(|| form.clone())?;
    if !is_listed(service, services) {
        return Err(format!("unknown service {service:?}; choose {services}"));
    }
    let address = address.parse().map_err(|_| format!("{address:?} is not an address with a port; {form}"))?;
    Ok((service.into(), address))
}

/// Whether a service is among those of a list.
pub fn is_listed(service: &str, services: &str) -> bool {
    services.split(", ").any(|known| known == service)
}

/// The number of a descriptor that the daemon may be started with.
pub fn descriptor(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|number| *number > 2).ok_or("expected the number of an open descriptor, 3 or more".into())
}

pub fn group(text: &str) -> Result<SocketAddr, String> {
    let form = "expected GROUP:PORT, as in 239.1.1.1:5007 or [ff05::1:3]:5007";
    let address = text.parse().map_err(|_| form)?;
    Group::new(address, None).map(|group| group.address()).map_err(|error| format!("{error}; {form}"))
}

pub fn interface(text: &str) -> Result<Interface, String> {
    text.parse().map_err(|error: std::io::Error| error.to_string())
}

pub fn some_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".into()) } else { Ok(text.into()) }
}

pub fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number".into())
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = Seconds::parse(text).ok_or("expected a number of seconds, 0 to 86400")?;
    Ok(seconds.0)
}

pub fn when_full(text: &str) -> Result<WhenFull, String> {
    match text {
        "wait" => Ok(WhenFull::Wait),
        "shed" => Ok(WhenFull::Shed),
        "reject" => Ok(WhenFull::Reject),
        _ => Err("choose wait, shed or reject".into()),
    }
}

pub fn level(text: &str) -> Result<LevelFilter, String> {
    text.parse().map_err(|_| "choose off, error, warn, info, debug or trace".into())
}
