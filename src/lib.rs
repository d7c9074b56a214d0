//! A fixed thread-pool server for embedded Linux: it never grows, never starves, never spins, and stops well.
//!
//! A fixed number of workers serves a fixed number of connections from a fixed-capacity queue. Everything is
//! allocated at start. A silent client costs no worker, a client that does not read delays no other, and an idle
//! server makes no system call at all. On a request to stop it answers what has arrived, gives every client a notice and
//! a grace time to leave, and then closes the connections that are left.
//!
//! # The way of a connection
//!
//! ```text
//! listener ─► admission ─► ready queue ─► worker ─► service
//!                               ▲            │
//!                               └── parked ◄─┘          signals, requests, shutdown: at the side
//! ```
//!
//! The accept loop takes sockets while there is a free slot and room in the queue. A worker takes one, lets its
//! [`Service`] answer what has arrived, and lets go of it: the worker parks a connection that waits for its client,
//! puts one with more to do at the end of the queue, or closes it. One worker at a time, the leader, waits for all
//! parked connections in `epoll_wait(2)`; the others sleep.
//!
//! A connection of a service that [never blocks](Service::never_blocks) takes a shorter way: the accept loop opens it
//! and parks it, and wakes no worker for that. This saves 42 % of the CPU time per request at one client, and 24 % per
//! short connection.
//!
//! # A server
//!
//! ```
//! use lastorders::{Flow, Lines, Server};
//! use std::io::{BufRead, BufReader, Write};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shout = Lines::new(|line, reply| {
//!     reply.push(&line.to_ascii_uppercase());
//!     reply.push(b"\n");
//!     Ok(Flow::Continue)
//! });
//! let server = Server::builder(shout).listen("127.0.0.1:0")?.build()?;
//! let address = server.addresses().next().ok_or("no address")?;
//! let handle = server.handle();
//! let running = std::thread::spawn(move || server.run());
//!
//! let mut client = BufReader::new(std::net::TcpStream::connect(address)?);
//! client.get_mut().write_all(b"time, please\n")?;
//! let mut answer = String::new();
//! client.read_line(&mut answer)?;
//! assert_eq!(answer, "TIME, PLEASE\n");
//!
//! handle.shutdown();
//! answer.clear();
//! client.read_line(&mut answer)?;
//! assert_eq!(answer, "SHUTDOWN\n");
//! drop(client);
//! let report = running.join().map_err(|_| "panicked")??;
//! assert_eq!((report.notified, report.left, report.closed), (1, 1, 0));
//! # Ok(())
//! # }
//! ```
//!
//! # What to implement
//!
//! - [`Lines`]: a closure that is given a line and writes an answer.
//! - [`Service`]: requests of any form, with state per connection.
//! - [`Streams`]: a closure over a blocking `Read + Write + BufRead`; it holds its worker while it runs.
//! - [`Datagrams`]: a closure that is given a UDP packet and writes at most one reply; [`Datagram`] is the trait.
//!
//! [`builtin`] has the services that the daemon offers.
//!
//! # Features
//!
//! `log` (default) sends log lines to the [`log`](https://docs.rs/log) crate, `defmt` to `defmt`; not both.
//! `daemon` (default) adds the module `daemon` and builds the `lastorders` program from it; a library user switches it
//! off with `default-features = false, features = ["log"]`.

#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::undocumented_unsafe_blocks)]
#![warn(missing_debug_implementations, unreachable_pub)]

mod access;
pub mod builtin;
pub mod config;
mod connection;
mod control;
#[cfg(feature = "daemon")]
pub mod daemon;
mod datagram;
mod engine;
mod error;
#[cfg(all(any(test, fuzzing), not(loom)))]
#[doc(hidden)]
pub mod invariants;
mod log;
mod process;
mod server;
mod service;
mod shutdown;
mod stats;
mod sync;
mod sys;

pub use config::{Limits, WhenFull};
pub use connection::{CloseReason, Connection, Flow, Input, Output, Wait};
pub use datagram::{Answer, Datagram, Datagrams, Group, Interface};
#[cfg(lastorders_bench)]
#[doc(hidden)]
pub use engine::bench;
pub use error::Error;
pub use server::{Budget, Builder, Server, activation};
pub use service::{Lines, Reply, Service, Stream, Streams};
pub use shutdown::{ServerHandle, ShutdownReport, Trigger};
pub use stats::{Figure, Kind, Stats};

/// Compiles the programs of the guide.
#[cfg(doctest)]
#[doc = include_str!("../docs/from-python.md")]
struct FromPython;
