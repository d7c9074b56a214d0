//! What the rest of the crate takes from the operating system, and all of its `unsafe`.
//!
//! [`signals`] has the self-pipe, [`fork`] makes processes, [`inherited`] takes descriptors that the program was
//! started with, [`clock`] has monotonic time and [`localtime`] the time of day, [`event`] wakes a poller, [`socket`]
//! has what std and nix lack for polled sockets, [`seconds`] reads and shows durations, and [`rate_limit`] bounds what
//! may happen so often a second. Every safe function here is safe whatever its caller does. Nothing here knows the
//! server, its limits or its log.

#![allow(unsafe_code)]

mod clock;
mod event;
mod fork;
mod inherited;
pub(crate) mod localtime;
mod rate_limit;
mod seconds;
mod signals;
mod socket;

pub(crate) use clock::{Clock, Tick};
pub(crate) use event::Event;
#[cfg(feature = "daemon")]
pub(crate) use fork::fork;
pub(crate) use fork::{ChildEnd, reap_child, threads};
pub(crate) use inherited::take_inherited;
pub(crate) use rate_limit::RateLimit;
pub(crate) use seconds::{Seconds, Span};
pub(crate) use signals::{STOPPING, SignalName, Signals};
pub(crate) use socket::{pending_bytes, poll_timeout};
