//! What operators ask while the server runs, answered by the accept loop.
//!
//! [`socket`] has the control socket, its requests and the texts of `status`.

mod socket;

#[cfg(feature = "daemon")]
pub(crate) use socket::connect;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) use socket::receive_pieces;
pub(crate) use socket::{Answer, Ask, Control, status, text};
