//! The line adapter: a closure gets one line and writes one answer.
//!
//! Bytes come in as they arrive; whole lines go to the closure, in order, and their answers into the output. The
//! adapter must not call the closure twice for one line, nor with a line that is longer than the limit.

use std::{fmt, io};

use super::Service;
use crate::config::TURN;
use crate::connection::{Connection, Flow, Output};

/// The buffer for an answer; its room is what is left of the output buffer.
///
/// It implements [`std::io::Write`], so `write!` works on it. Bytes that do not fit are an error of the kind
/// [`WriteZero`](io::ErrorKind::WriteZero) that names the size of the buffer. If the closure returns that error, the
/// server closes the connection.
pub type Reply = Output;

/// A line service made of a closure. The adapter does the framing, the length limit, pipelining and the notice.
///
/// A line ends in `\n` or `\r\n`. If the client closes its sending side after a line without an end, that line is
/// served too. A line longer than the limit is answered `ERROR: line too long\n`, and the connection is closed. At
/// shutdown the client gets `SHUTDOWN\n`.
///
/// A worker calls the closure. While the closure blocks, that worker serves no other client.
///
/// ```
/// use lastorders::{Flow, Lines};
/// use std::io::Write;
///
/// let shout = Lines::new(|line, reply| {
///     reply.push(&line.to_ascii_uppercase());
///     writeln!(reply)?;
///     Ok(Flow::Continue)
/// });
/// # let _ = shout;
/// ```
pub struct Lines<F> {
    answer: F,
    longest: usize,
    largest_reply: usize,
}

impl<F> Lines<F>
where
    F: Fn(&[u8], &mut Reply) -> io::Result<Flow> + Send + Sync + 'static,
{
    /// A line service that calls `answer` with each line, without its end, and with the buffer for the answer. An
    /// error of `answer` closes the connection with [`CloseReason::Error`](crate::CloseReason::Error).
    pub fn new(answer: F) -> Lines<F> {
        Lines { answer, longest: usize::MAX, largest_reply: usize::MAX }
    }

    /// Limits a line to `bytes`, its end not counted. A line that does not fit into the input buffer together with
    /// its end ([`Limits::buffer`](crate::Limits::buffer)) is too long in any case.
    #[must_use]
    pub fn longest_line(mut self, bytes: usize) -> Lines<F> {
        self.longest = bytes;
        self
    }

    /// Promises that no answer is longer than `bytes`.
    ///
    /// The adapter then answers pipelined lines together, as long as one more answer of this size has room. Without
    /// the promise it sends each answer before it reads the next line.
    #[must_use]
    pub fn largest_reply(mut self, bytes: usize) -> Lines<F> {
        self.largest_reply = bytes;
        self
    }
}

impl<F> fmt::Debug for Lines<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lines { longest, largest_reply, .. } = self;
        write!(f, "Lines {{ longest: {longest}, largest_reply: {largest_reply}, .. }}")
    }
}

impl<F> Service for Lines<F>
where
    F: Fn(&[u8], &mut Reply) -> io::Result<Flow> + Send + Sync + 'static,
{
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        for _ in 0..TURN {
            if !output.is_empty() && output.room() < self.largest_reply {
                break;
            }
            let Some((taken, line)) = input.line() else { break };
            if line.len() > self.longest {
                return refuse_long_line(output);
            }
            let flow = (self.answer)(line, output)?;
            input.consume(taken);
            if flow == Flow::Close {
                return Ok(Flow::Close);
            }
        }
        let unfinished = input.line().is_none();
        if unfinished && (input.is_full() || input.bytes().len() > self.longest.saturating_add(1)) {
            return refuse_long_line(output);
        }
        Ok(Flow::Continue)
    }

    fn notice(&self) -> &'static [u8] {
        b"SHUTDOWN\n"
    }
}

/// Answers a line that is longer than the buffer or than a limit, and closes. If answers before it leave no room, the
/// line stays in the input: the engine sends those answers first, and calls the service again.
pub(crate) fn refuse_long_line(output: &mut Output) -> io::Result<Flow> {
    const TEXT: &[u8] = b"ERROR: line too long\n";
    if output.room() < TEXT.len() {
        return Ok(Flow::Continue);
    }
    output.push(TEXT);
    output.refuse_request();
    Ok(Flow::Close)
}
