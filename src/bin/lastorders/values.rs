//! The values of options: from text to what it means, or to what would be right.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lastorders::WhenFull;
use lexopt::Arg;
use log::LevelFilter;

use crate::options::TCP_SERVICES;

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

pub fn listen(text: &str) -> Result<(String, SocketAddr), String> {
    let form = "expected SERVICE=ADDRESS, as in echo=127.0.0.1:9999 or echo=[::1]:9999";
    let (service, address) = text.split_once('=').ok_or(form)?;
    if !TCP_SERVICES.split(", ").any(|known| known == service) {
        return Err(format!("unknown service {service:?}; choose {TCP_SERVICES}"));
    }
    let address = address.parse().map_err(|_| format!("{address:?} is not an address with a port; {form}"))?;
    Ok((service.into(), address))
}

pub fn some_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".into()) } else { Ok(text.into()) }
}

pub fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number".into())
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "expected a number of seconds, 0 to 86400".into())
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
