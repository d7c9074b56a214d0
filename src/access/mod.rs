//! Which clients may come: decided from facts alone, without a socket.
//!
//! [`admission`] says what becomes of a new client and of an accept that failed; [`shares`] counts the connections of
//! each address. The server asks; nothing here accepts, closes or logs.

mod admission;
mod shares;

pub(crate) use admission::{Admission, Backoff, Failure, Load, ReadyQueue, classify};
pub(crate) use shares::{Origin, Share, Shares};
