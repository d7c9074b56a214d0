//! The end of a server, decided without a clock or a socket.
//!
//! [`phases`] says what signals, requests, time and the last client move, [`handle`] is how another thread asks, and
//! [`report`] names what started a shutdown and how it went. The server's accept loop does what is decided here.

mod handle;
mod phases;
mod report;

pub(crate) use handle::Requests;
pub use handle::ServerHandle;
pub(crate) use phases::{Action, Phase, Shutdown};
pub use report::{ShutdownReport, Trigger};
