//! `lastorders client`: sends a message at intervals until the server says that it closes.
//!
//! The client logs what the server sends. The command succeeds when the server's notice arrives, or when the
//! client has sent its last message, and fails when the connection ends before that.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser};

use super::action::{Action, Failure, printing};
use super::logging::{self, Logging};
use super::values::{time, unexpected, value};
use crate::config;
use crate::log::info;

/// What ends a wait for the server.
enum Received {
    Notice,
    End,
    /// The time to send the next message has come.
    Timeout,
}

const USAGE: &str = "\
Usage: lastorders client ADDR [--message TEXT] [--newline] [--every SECONDS] [--count N]

Sends a message every second and logs what comes back, until the server says SHUTDOWN.

  --message TEXT       what to send [hello world]
  --newline            send a newline behind it, as services of lines expect
  --every SECONDS      time between messages [1]
  --count N            stop after that many messages [never]

Exit codes: 0 told SHUTDOWN, or all messages sent; 1 connection failed or lost; 2 usage.
";

/// Reads the words after `client`.
pub(crate) fn parse(mut parser: Parser) -> Result<Action, lexopt::Error> {
    let (mut address, mut message) = (String::new(), String::from("hello world"));
    let (mut every, mut count) = (Duration::from_secs(1), u64::MAX);
    let mut newline = "";
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(printing(USAGE)),
            Arg::Long("message") => message = value(&mut parser, "--message", read_message)?,
            Arg::Long("newline") => newline = "\n",
            Arg::Long("every") => every = value(&mut parser, "--every", time)?,
            Arg::Long("count") => count = value(&mut parser, "--count", read_count)?,
            Arg::Value(word) if address.is_empty() => address = word.to_string_lossy().into_owned(),
            other => return Err(unexpected(&other)),
        }
    }
    if address.is_empty() {
        return Err("no address; give one like 127.0.0.1:9999".into());
    }
    message += newline;
    Ok(Box::new(move || run(&address, &message, every, count)))
}

fn read_message(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text".into()) } else { Ok(text.into()) }
}

fn read_count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or("expected a number of messages, 1 or more".into())
}

fn run(address: &str, message: &str, every: Duration, count: u64) -> Result<(), Failure> {
    logging::start(&Logging::default(), logging::console())?;
    let failed = |step: &str, error: io::Error| format!("cannot {step} {address}: {error}");
    let mut stream = TcpStream::connect(address).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => Failure::Usage(format!("{address:?}: expected ADDRESS:PORT, as in 127.0.0.1:9999")),
        _ => failed("connect to", error).into(),
    })?;
    for _ in 0..count {
        stream.write_all(message.as_bytes()).map_err(|error| failed("send to", error))?;
        let next = Instant::now() + every;
        match receive(&mut stream, next).map_err(|error| failed("receive from", error))? {
            Received::Notice => {
                info!("Closing connection...");
                break;
            }
            Received::End => return Err(format!("{address} closed the connection").into()),
            Received::Timeout => {}
        }
    }
    Ok(())
}

/// Logs what the server sends, until the server's notice, the end of the connection, or the time `until`.
fn receive(stream: &mut TcpStream, until: Instant) -> io::Result<Received> {
    let mut bytes = [0; 4096];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Received::Timeout);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(Received::End),
            Ok(count) if &bytes[..count] == config::NOTICE.as_bytes() => return Ok(Received::Notice),
            Ok(count) => info!("Received {:?}", String::from_utf8_lossy(&bytes[..count])),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Received::Timeout),
                ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}
