//! The service [`Kv`]: takes lines from the input, executes their requests, and writes the answers.
//!
//! One call answers several pipelined requests. A request must be executed once, so its answer needs room first:
//! without room the line stays in the input, and the engine calls again after it has sent the output.

use std::io;
use std::sync::Arc;

use super::request::Request;
use super::store::{Full, Store, Value};
use crate::config::TURN;
use crate::connection::{Connection, Flow, Output};
use crate::error::Error;
use crate::service::{Service, refuse_long_line};

/// The longest answer other than a value.
const LONGEST: &str = "ERROR: unknown command\n";

/// A key-value store of fixed capacity, and the protocol to use it. The usual TCP port is 9996.
///
/// Clones share the store, within a server or between several. If those servers have buffers of different sizes,
/// getting a value that exceeds the smaller buffer closes the connection with an error.
///
/// The service greets a client with `READY\n`. Lines end in `\n`. White space separates words, and is ignored at both
/// ends of a line; it is Unicode's, as for [`str::split_whitespace`]. ASCII case makes no difference in the first word.
/// If the client closes its sending side after a line without an end, that line is answered too. At shutdown the client
/// gets `SHUTDOWN\n`.
///
/// | line                | answer                                    |
/// | ------------------- | ----------------------------------------- |
/// | `SET key value`     | `OK`, or `ERROR: store full`              |
/// | `GET key`           | the value, or `NOT_FOUND`                 |
/// | `DEL key`           | `DELETED`, or `NOT_FOUND`                 |
/// | `QUIT` and anything | `BYE`, and the connection is closed       |
/// | an empty line       | `ERROR: empty command`                    |
/// | not UTF-8           | `ERROR: invalid UTF-8`                    |
/// | anything else       | `ERROR: unknown command`                  |
///
/// A value is the rest of its line, with its inner white space. When the store is full, it keeps all that it has: if
/// a new value does not fit, the key keeps its old value. A line that does not fit into the input buffer together with
/// its newline is answered `ERROR: line too long\n`, and the connection is closed. So every value fits into a reply.
///
/// Nothing is allocated after [`new`](Kv::new). Readers do not block each other. The time that a request takes depends
/// on its own length, not on how full the store is.
#[derive(Clone, Debug)]
pub struct Kv {
    store: Arc<Store>,
}

impl Kv {
    /// A store for `entries` entries, in [`KV_ENTRIES`](crate::config::KV_ENTRIES), whose keys and values have at most
    /// `bytes` bytes together, in [`KV_BYTES`](crate::config::KV_BYTES). Both limits can be reached, however long each
    /// entry is.
    ///
    /// # Errors
    /// [`Error::Limit`] for a capacity out of range, [`Error::Setup`] when there is not enough memory.
    pub fn new(entries: usize, bytes: usize) -> Result<Kv, Error> {
        Ok(Kv { store: Arc::new(Store::new(entries, bytes)?) })
    }

    /// Bytes of memory that the store takes, with its tables.
    pub fn memory(&self) -> usize {
        self.store.memory()
    }

    /// Executes a request and answers it, or does neither and returns `None` when the answer has no room.
    fn execute(&self, request: Request<'_>, output: &mut Output) -> Option<Flow> {
        if output.room() < LONGEST.len() {
            return None;
        }
        let text = match request {
            Request::Get(key) => return self.store.get(key.as_bytes(), |value| push_value(value, output)),
            Request::Set(key, value) => match self.store.set(key.as_bytes(), value.as_bytes()) {
                Ok(()) => "OK\n",
                Err(Full) => "ERROR: store full\n",
            },
            Request::Delete(key) if self.store.delete(key.as_bytes()) => "DELETED\n",
            Request::Delete(_) => "NOT_FOUND\n",
            Request::Quit => "BYE\n",
            Request::Invalid(text) => text,
        };
        output.push(text.as_bytes());
        Some(if request == Request::Quit { Flow::Close } else { Flow::Continue })
    }
}

/// Answers with a value, or returns `None` when it has no room. The store is locked for reading meanwhile, so this only
/// copies.
fn push_value(value: Option<Value<'_>>, output: &mut Output) -> Option<Flow> {
    match value {
        Some(value) if output.room() <= value.len() => return None,
        Some(value) => {
            for piece in value.pieces() {
                output.push(piece);
            }
            output.push(b"\n");
        }
        None => _ = output.push(b"NOT_FOUND\n"),
    }
    Some(Flow::Continue)
}

impl Service for Kv {
    type Session = ();

    fn open(&self, connection: &mut Connection) -> io::Result<()> {
        connection.output().push(b"READY\n");
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        for _ in 0..TURN {
            let Some((taken, line)) = input.line() else {
                return if input.is_full() { refuse_long_line(output) } else { Ok(Flow::Continue) };
            };
            match self.execute(Request::parse(line), output) {
                Some(flow) => {
                    input.consume(taken);
                    if flow == Flow::Close {
                        return Ok(flow);
                    }
                }
                None if output.is_empty() => return Err(io::Error::other("the value exceeds the buffer")),
                None => break, // The engine sends the answers before this one, and calls again.
            }
        }
        Ok(Flow::Continue)
    }

    fn notice(&self) -> &'static [u8] {
        b"SHUTDOWN\n"
    }

    fn shares_state(&self) -> bool {
        true
    }

    fn never_blocks(&self) -> bool {
        true // A thread holds the store's lock no longer than it takes to copy one line.
    }
}
