//! The services that the daemon offers, for any server.
//!
//! Over TCP: [`Echo`], [`Upper`], [`UpperLines`], [`Command`], [`Kv`]. Over UDP: [`Time`], [`MulticastLog`]. Read
//! `echo` first, the smallest of them; `kv` is the only one with a store.
//! No call of a TCP service or of `Time` blocks; `MulticastLog` blocks as long as the logger does.

mod command;
mod echo;
mod json;
mod kv;
mod multicast_log;
mod time;
mod upper;

pub use command::Command;
pub use echo::Echo;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use json::{DEPTH as JSON_DEPTH, member_is};
pub use kv::Kv;
pub use multicast_log::MulticastLog;
pub use time::Time;
pub use upper::{Upper, UpperLines};
