//! Key-value: clients set, get and delete the entries of one store, a line each.
//!
//! Lines come in, an answer for each goes out, in order; pipelined ones are answered in batches. A request is
//! executed only once its answer has room, for it must not be executed twice: without room it stays in the
//! input. [`request`] reads lines, [`store`] holds the entries in [`blocks`].

mod blocks;
mod request;
mod store;

use std::io;
use std::sync::Arc;

use crate::config::TURN;
use crate::connection::{Connection, Flow, Output};
use crate::error::Error;
use crate::service::{Service, refuse_long_line};
use request::Request;
use store::{Store, Value};

/// The longest answer that is not a value.
const LONGEST: &str = "ERROR: unknown command\n";

/// A key-value store of fixed capacity, and the protocol to use it.
///
/// Clones share the store, within a server or between several. Between servers with different buffers, getting
/// a value that exceeds the smaller one is an error that closes the connection.
///
/// It greets with `READY\n`. Lines end in `\n`; white space around them is ignored, words are separated by runs
/// of it, and ASCII case makes no difference in the first one. White space is Unicode's, as
/// [`str::split_whitespace`] has it. A last line without an end is answered when the client closes its sending
/// side.
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
/// A value is the rest of its line, inner white space kept. When the store is full, nothing that it holds is
/// lost: a value that does not fit leaves the one that the key had. A line that does not fit into the buffer
/// together with its newline is answered `ERROR: line too long\n`, and the connection is closed; so every value
/// fits into a reply.
///
/// Nothing is allocated after [`new`](Kv::new), readers do not block each other, and no request costs more time
/// than its own length, however full the store is.
#[derive(Clone, Debug)]
pub struct Kv {
    store: Arc<Store>,
}

enum Done {
    Answered,
    /// Answered; it was the last.
    Last,
    /// Not executed: its answer has no room.
    NoRoom,
}

impl Kv {
    /// A store for that many entries, in [`KV_ENTRIES`](crate::config::KV_ENTRIES), whose keys and values
    /// together have at most that many bytes, in [`KV_BYTES`](crate::config::KV_BYTES). All of both can be used,
    /// however long each entry is.
    ///
    /// # Errors
    /// [`Error::Limit`] for a capacity out of range, [`Error::Setup`] when there is not enough memory.
    pub fn new(entries: usize, bytes: usize) -> Result<Kv, Error> {
        Ok(Kv { store: Arc::new(Store::new(entries, bytes)?) })
    }

    /// Bytes of memory that the store takes, its tables included.
    pub fn memory(&self) -> usize {
        self.store.memory()
    }

    fn execute(&self, request: Request<'_>, output: &mut Output) -> Done {
        if output.room() < LONGEST.len() {
            return Done::NoRoom;
        }
        let text = match request {
            Request::Get(key) => return self.store.get(key.as_bytes(), |value| show(value, output)),
            Request::Set(key, value) => match self.store.set(key.as_bytes(), value.as_bytes()) {
                Ok(()) => "OK\n",
                Err(store::Full) => "ERROR: store full\n",
            },
            Request::Delete(key) if self.store.delete(key.as_bytes()) => "DELETED\n",
            Request::Delete(_) => "NOT_FOUND\n",
            Request::Quit => "BYE\n",
            Request::Wrong(text) => text,
        };
        output.push(text.as_bytes());
        if request == Request::Quit { Done::Last } else { Done::Answered }
    }
}

/// Answers with a value if it has room. This runs while the store is locked for reading: it copies, no more.
fn show(value: Option<Value<'_>>, output: &mut Output) -> Done {
    let Some(value) = value else {
        output.push(b"NOT_FOUND\n");
        return Done::Answered;
    };
    if output.room() <= value.len() {
        return Done::NoRoom;
    }
    for piece in value.pieces() {
        output.push(piece);
    }
    output.push(b"\n");
    Done::Answered
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
                Done::Answered => input.consume(taken),
                Done::Last => {
                    input.consume(taken);
                    return Ok(Flow::Close);
                }
                Done::NoRoom if output.is_empty() => return Err(io::Error::other("the value exceeds the buffer")),
                Done::NoRoom => break, // What is there is sent first.
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
        true // The store is locked for no longer than a line is copied.
    }
}
