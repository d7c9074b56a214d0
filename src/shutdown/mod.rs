//! The end of a server, decided without a clock or a socket.
//!
//! [`phases`] goes from one phase to the next on signals, requests, time and the end of the last client. A thread asks
//! through a [`handle`], and [`report`] says what started a shutdown and how it went. The accept loop does what is
//! decided here.

mod handle;
mod phases;
mod report;

pub(crate) use handle::Requests;
pub use handle::ServerHandle;
pub(crate) use phases::{Action, Phase, Shutdown};
pub use report::{ShutdownReport, Trigger};
