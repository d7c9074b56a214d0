//! One connection: its buffers, its stage, what it waits for, and how it ends.
//!
//! Read [`connection`] first; [`buffer`] has the bytes that wait, [`close_reason`] says how a connection goes on or
//! ends, [`transport`] carries bytes to the client and back, [`context`] is what all connections of a server share,
//! [`streaming`] what the watchdog reads of stream handlers, and [`tuning`] the options that a listener's sockets have.
//! The engine decides what becomes of a connection.

mod buffer;
mod close_reason;
mod connection;
mod context;
mod streaming;
mod transport;
mod tuning;

pub use buffer::{Input, Output};
pub use close_reason::{CloseReason, Flow, Wait};
pub use connection::Connection;
pub(crate) use connection::{Client, Interest, Notice, Received, Stage};
pub(crate) use context::Context;
pub(crate) use transport::Link;
#[cfg(all(any(test, fuzzing, lastorders_bench), not(loom)))]
pub(crate) use transport::Transport;
pub(crate) use tuning::{Tuning, inet_socket};
