//! What operators ask while the server runs, answered by the accept loop.
//!
//! [`socket`] has the control socket and its requests, [`status`](mod@status) the texts of `status`.

mod socket;
mod status;

#[cfg(feature = "daemon")]
pub(crate) use socket::connect;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use socket::receive_pieces;
pub(crate) use socket::{Ask, Control};
pub(crate) use status::{Report, status, text};
