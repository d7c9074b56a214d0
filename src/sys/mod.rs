//! What the rest of the crate takes from the operating system, and all of its `unsafe`.
//!
//! [`signals`] has the self-pipe, [`fork`] makes processes, [`inherited`] takes descriptors that the program was
//! started with, [`lock`] locks files, [`clock`] has monotonic time and [`localtime`] the time of day, [`poll`] has what
//! poll(2) waits for and with, [`seconds`] reads and shows durations, and [`rate_limit`] bounds what may happen so often a
//! second. Every safe function here is safe whatever its caller does. Nothing here knows the server, its limits or its
//! log.

#![allow(unsafe_code)]

mod clock;
mod fork;
mod inherited;
pub(crate) mod localtime;
mod lock;
mod poll;
mod rate_limit;
mod seconds;
mod signals;

pub(crate) use clock::{Clock, Tick};
pub(crate) use fork::{ChildEnd, reap_child, threads};
#[cfg(feature = "daemon")]
pub(crate) use fork::{end_with, fork};
pub(crate) use inherited::take_inherited;
pub(crate) use lock::try_lock;
pub(crate) use poll::{Event, is_readable, pending_bytes, poll_timeout};
pub(crate) use rate_limit::RateLimit;
pub(crate) use seconds::{Seconds, Span};
pub(crate) use signals::{STOPPING, SignalName, Signals};
