//! Key-value: clients set, get and delete the entries of one store, a line each.
//!
//! Lines come in, and an answer for each goes out, in order. The store must not grow after start, and must not
//! execute a request twice. Read [`kv`] first (the service), then `request` (a line becomes a request), `store`
//! (the table of entries), `blocks` (the bytes of keys and values, and the allocation of both).

mod blocks;
mod kv;
mod request;
mod store;

pub use kv::Kv;
