//! The services of the simulated servers. A request says itself what is to become of it, so that the client that makes
//! it up knows the answer: `e12.3.abc` is request 3 of connection 12, and is answered `r3.abc`.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use lastorders::builtin::Echo;
use lastorders::{Answer, Builder, Connection, Datagrams, Flow, Lines, Service, Streams};

use crate::sim::with;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Echo,
    Lines,
    /// Greets each client.
    Own {
        stays: bool,
        never_blocks: bool,
    },
    Stream,
}

pub(crate) const GREETING: &[u8] = b"g\n";
/// The longest reply but for those that fill the buffer.
pub(crate) const REPLY: usize = 40;

impl Kind {
    pub(crate) fn notice(self) -> &'static [u8] {
        match self {
            Kind::Echo | Kind::Stream => b"SHUTDOWN",
            Kind::Lines | Kind::Own { .. } => b"SHUTDOWN\n",
        }
    }

    pub(crate) fn stays(self) -> bool {
        matches!(self, Kind::Own { stays: true, .. })
    }

    pub(crate) fn add_to(self, builder: Builder) -> Builder {
        match self {
            Kind::Echo => builder.service(Echo),
            Kind::Lines => builder.service(Lines::new(|line, reply| {
                let (answer, flow) = answer(line)?;
                reply.write_all(&answer)?;
                Ok(flow)
            })),
            Kind::Own { stays, never_blocks } => builder.service(Own { stays, never_blocks }),
            Kind::Stream => builder.service(Streams::new(|stream| {
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line)? > 0 && line.pop() == Some(b'\n') {
                    let (answer, flow) = answer(&line)?;
                    stream.write_all(&answer)?;
                    line.clear();
                    if flow == Flow::Close {
                        break;
                    }
                }
                Ok(())
            })),
        }
    }
}

struct Own {
    stays: bool,
    never_blocks: bool,
}

impl Service for Own {
    type Session = ();

    fn open(&self, connection: &mut Connection) -> io::Result<()> {
        connection.output().push(GREETING);
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        while let Some((taken, line)) = input.line() {
            if !output.is_empty() && output.room() < REPLY {
                break;
            }
            let (answer, flow) = answer(line)?;
            output.write_all(&answer)?;
            input.consume(taken);
            if flow == Flow::Close {
                return Ok(flow);
            }
        }
        Ok(Flow::Continue)
    }

    fn shutdown(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        connection.output().push(self.notice());
        Ok(if self.stays { Flow::Continue } else { Flow::Close })
    }

    fn never_blocks(&self) -> bool {
        self.never_blocks
    }

    fn notice(&self) -> &'static [u8] {
        b"SHUTDOWN\n"
    }
}

/// The answer to a request, which counts as executed from here on.
fn answer(line: &[u8]) -> io::Result<(Vec<u8>, Flow)> {
    let text = String::from_utf8_lossy(line);
    let mut parts = text[1..].splitn(3, '.');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (Some(connection), Some(sequence)) = (number(), number()) else {
        crate::sim::fail(&format!("the service got a line that no client sent: {text:?}"));
    };
    let rest = parts.next().unwrap_or_default();
    with(|sim| sim.executed(connection, sequence));
    match line[0] {
        // Without the panic hook, which shuttle takes for the end.
        b'p' => std::panic::resume_unwind(Box::new("on purpose")),
        b'f' => return Err(io::Error::other("on purpose")),
        b'w' => {
            with(|sim| sim.starts_waiting(connection));
            std::thread::sleep(Duration::from_millis(rest.parse().unwrap_or_default()));
            with(|sim| sim.ends_waiting(connection));
        }
        _ => {}
    }
    let flow = if line[0] == b'q' { Flow::Close } else { Flow::Continue };
    Ok((reply(sequence, rest), flow))
}

pub(crate) fn reply(sequence: usize, rest: &str) -> Vec<u8> {
    format!("r{sequence}.{rest}\n").into_bytes()
}

/// Answers each datagram in capitals, but for those that ask for something else.
pub(crate) fn datagrams(builder: Builder) -> Builder {
    builder.datagram(Datagrams::new(|packet, _from, reply| {
        match packet[0] {
            b'p' => std::panic::resume_unwind(Box::new("on purpose")),
            b'f' => return Err(io::Error::other("on purpose")),
            b's' => return Ok(Answer::Silence),
            _ => {}
        }
        reply.push(&packet.to_ascii_uppercase());
        Ok(Answer::Reply)
    }))
}
