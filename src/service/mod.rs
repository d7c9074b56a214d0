//! What a user implements for TCP: a [`Service`], or a closure in one of the adapters.
//!
//! The engine calls a service when bytes of a client are waiting. The service takes requests from the input, puts
//! answers into the output, and returns. It must not wait for the client: it leaves an incomplete request in the
//! input, and the engine calls it again when more bytes have arrived.
//! Read `service` first (the trait), then `lines` and `streams` (the adapters) and `erased` (what the engine sees).

mod erased;
mod lines;
mod service;
mod streams;

pub(crate) use erased::{ErasedService, WithSessions, name_of};
pub(crate) use lines::refuse_long_line;
pub use lines::{Lines, Reply};
pub use service::Service;
pub use streams::{Stream, Streams};
