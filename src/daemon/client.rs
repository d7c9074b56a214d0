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

struct Client {
    address: String,
    message: String,
    every: Duration,
    count: u64,
}

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
    let mut client = Client {
        address: String::new(),
        message: "hello world".into(),
        every: Duration::from_secs(1),
        count: u64::MAX,
    };
    let mut newline = "";
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(printing(USAGE)),
            Arg::Long("message") => client.message = value(&mut parser, "--message", message)?,
            Arg::Long("newline") => newline = "\n",
            Arg::Long("every") => client.every = value(&mut parser, "--every", time)?,
            Arg::Long("count") => client.count = value(&mut parser, "--count", count)?,
            Arg::Value(word) if client.address.is_empty() => client.address = word.to_string_lossy().into_owned(),
            other => return Err(unexpected(&other)),
        }
    }
    if client.address.is_empty() {
        return Err("no address; give one like 127.0.0.1:9999".into());
    }
    client.message += newline;
    Ok(Box::new(|| client.run()))
}

fn message(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text".into()) } else { Ok(text.into()) }
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or("expected a number of messages, 1 or more".into())
}

impl Client {
    fn run(self) -> Result<(), Failure> {
        logging::start(&Logging::default())?;
        let address = &self.address;
        let failed = |step: &str, error: io::Error| Failure::Run(format!("{step} {address}: {error}"));
        let mut stream = TcpStream::connect(address).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                Failure::Usage(format!("{address:?}: expected ADDRESS:PORT, as in 127.0.0.1:9999"))
            }
            _ => failed("cannot connect to", error),
        })?;
        for _ in 0..self.count {
            stream.write_all(self.message.as_bytes()).map_err(|error| failed("cannot send to", error))?;
            let next = Instant::now() + self.every;
            match receive(&mut stream, next).map_err(|error| failed("cannot receive from", error))? {
                Received::Notice => {
                    info!("Closing connection...");
                    return Ok(());
                }
                Received::End => return Err(Failure::Run(format!("{address} closed the connection"))),
                Received::Timeout => {}
            }
        }
        Ok(())
    }
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
