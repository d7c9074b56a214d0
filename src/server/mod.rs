//! The server: what is wanted, then bound, then run by the accept loop.
//!
//! Read [`builder`] first: it collects what is wanted, [`sockets`] binds it, [`retry`] waits for addresses, and
//! [`budget`] works out what it costs. [`server`] is the accept loop: one poll(2) over signals, requests and listeners.
//! [`accept`] admits new clients, [`deferred`] lets those wait whose address has its share, [`drain`] takes the steps of the
//! shutdown, and [`hooks`], [`actions`] and [`watchdog`] call the embedding program.

mod accept;
mod actions;
pub mod activation;
mod budget;
mod builder;
mod deferred;
mod drain;
mod environment;
mod forking;
mod hooks;
mod listener;
mod retry;
mod server;
mod sockets;
mod watchdog;

pub use budget::Budget;
pub use builder::Builder;
pub use server::Server;
