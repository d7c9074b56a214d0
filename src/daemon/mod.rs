//! The whole daemon around a program's services: commands, options, logging, privileges, supervision.
//!
//! In comes a [`Daemon`] with the services that the program offers; out goes the exit code. Read [`Daemon`] first,
//! which is the list of the commands, then `serve`, then `client`, `control` and `send`. Every command reads its own
//! options. What the commands share lies below them: `values` reads words and values, `action` says how a command
//! succeeds or fails, and `logging` has the sinks of the log.

mod action;
mod client;
mod control;
mod logging;
mod output;
mod program;
mod send;
mod serve;
mod values;

pub use self::program::Daemon;
pub use self::serve::Settings;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use self::{
    action::Failure,
    program::parse,
    serve::{Services, flags, read},
};
