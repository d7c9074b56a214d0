//! The shipped program: the daemon of the library, with the services of the library.
//!
//! This file lists the services by name, the default one first, and hands them to [`Daemon`], which does the rest:
//! commands, options, logging, privileges and the server itself.

#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use lastorders::builtin::{Command, Echo, Kv, Time, Upper, UpperLines};
use lastorders::daemon::{Daemon, Settings};
use lastorders::{Builder, Error};

fn main() -> ExitCode {
    Daemon::new()
        .tcp("echo", || Echo)
        .tcp("upper", || Upper)
        .tcp("upper-lines", || UpperLines)
        .tcp("command", Command::default)
        .tcp_with("kv", kv())
        .udp("time", Time::new)
        .main()
}

/// Adds kv to a server. All sockets named kv share one store, which is made for the first of them.
fn kv() -> impl FnMut(&Settings, Builder) -> Result<Builder, Error> {
    let mut shared: Option<Kv> = None;
    move |settings, builder| {
        if let Some(kv) = &shared {
            return Ok(builder.service(kv.clone()));
        }
        let kv = shared.insert(Kv::new(settings.kv_entries, settings.kv_bytes)?);
        Ok(builder.memory(kv.memory()).service(kv.clone()))
    }
}
