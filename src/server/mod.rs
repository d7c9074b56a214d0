//! The server: what is wanted, then bound, then run by the accept loop.
//!
//! Read [`builder`] first: it collects what is wanted. [`build`] checks it and has it bound by [`sockets`], [`retry`]
//! waits for addresses, [`budget`] works out what all of it costs, and `check` tries it out. [`server`] is the accept loop: one poll(2) over
//! signals, requests and listeners. [`accept`] admits new clients with what [`accepting`] holds, [`stopping`] keeps track
//! of the shutdown, and [`hooks`] and [`watchdog`] call the embedding program.

mod accept;
mod accepting;
pub mod activation;
mod budget;
mod build;
mod builder;
#[cfg(feature = "daemon")]
mod check;
mod hooks;
mod listener;
mod retry;
mod server;
mod sockets;
mod stopping;
mod watchdog;

pub use budget::Budget;
pub use builder::Builder;
pub use server::Server;
