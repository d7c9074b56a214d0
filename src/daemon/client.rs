//! `lastorders client`: sends a message at intervals until the server ends the connection.
//!
//! The client logs what the server sends. The command fails when a message has no whole reply. With `--count` it is a
//! probe: the first message goes out at once, and each reply has a time limit.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser};

use super::action::{Action, Failure, printing};
use super::logging::{self, Logging};
use super::values::{time, unexpected, value};
use crate::config;
use crate::log::info;

/// How long a reply may take where the messages are counted.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// What ends a wait for the server.
enum Received {
    /// The whole reply.
    Reply,
    Notice,
    End,
    Timeout,
}

const USAGE: &str = "\
Usage: lastorders client ADDR [--message TEXT] [--newline] [--every SECONDS] [--count N]

Waits a second, sends a message and logs what comes back, again and again, until the server says SHUTDOWN or closes.
A reply is whole with as many bytes as the message, or at the end of a line where the message is one.

  --message TEXT       what to send [hello world]
  --newline            send a newline behind it, as services of lines expect
  --every SECONDS      time before each message [1]
  --count N            send that many, the first one at once, and wait 5 seconds at most for each reply

As a probe: lastorders client 127.0.0.1:9996 --newline --message \"GET a\" --count 1

Exit codes: 0 the server closed, or all N messages had their reply; 1 no connection, BUSY, or no whole reply; 2 usage.
";

/// Reads the words after `client`.
pub(crate) fn parse(mut parser: Parser) -> Result<Action, lexopt::Error> {
    let (mut address, mut message) = (String::new(), String::from("hello world"));
    let (mut every, mut count) = (Duration::from_secs(1), None);
    let mut newline = "";
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(printing(USAGE)),
            Arg::Long("message") => message = value(&mut parser, "--message", read_message)?,
            Arg::Long("newline") => newline = "\n",
            Arg::Long("every") => every = value(&mut parser, "--every", time)?,
            Arg::Long("count") => count = Some(value(&mut parser, "--count", read_count)?),
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

fn run(address: &str, message: &str, every: Duration, count: Option<u64>) -> Result<(), Failure> {
    logging::start(&Logging::default(), logging::console())?;
    let failed = |step: &str, error: io::Error| format!("cannot {step} {address}: {error}");
    let mut stream = TcpStream::connect(address).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => Failure::Usage(format!("{address:?}: expected ADDRESS:PORT, as in 127.0.0.1:9999")),
        _ => failed("connect to", error).into(),
    })?;
    let patience = if count.is_some() { REPLY_TIMEOUT } else { every };
    // Bytes that are missing of the reply.
    let mut owed = 0;
    for sent in 1..=count.unwrap_or(u64::MAX) {
        let pause = if count.is_some() && sent == 1 { Duration::ZERO } else { every };
        let mut late = |bytes: &[u8]| {
            owed = still_owed(owed, message, bytes);
            false
        };
        match receive(&mut stream, pause, &mut late).map_err(|error| failed("receive from", error))? {
            Received::Notice => break,
            Received::End if owed == 0 => break,
            Received::End => return Err(unanswered(address)),
            Received::Reply | Received::Timeout => {}
        }
        stream.write_all(message.as_bytes()).map_err(|error| failed("send to", error))?;
        owed += message.len();
        let is_last = count == Some(sent);
        if is_last {
            // A server that greets its clients has sent a line that is no reply. All replies are there when the server
            // has seen the end, and ends its stream as well. If it is gone already (ENOTCONN), what it sent is still there.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut reply = |bytes: &[u8]| {
            owed = still_owed(owed, message, bytes);
            owed == 0 && !is_last
        };
        match receive(&mut stream, patience, &mut reply).map_err(|error| failed("receive from", error))? {
            Received::Reply => {}
            // Without a number of messages, a late reply may come while the client waits to send the next one.
            Received::Timeout if owed == 0 || count.is_none() => {}
            Received::End if owed == 0 => break,
            Received::Notice if owed == 0 || count.is_none() => break,
            Received::Timeout => {
                let hint = "for a service of lines add --newline";
                return Err(format!("no whole reply from {address} in {} seconds; {hint}", patience.as_secs()).into());
            }
            Received::Notice | Received::End => return Err(unanswered(address)),
        }
    }
    Ok(())
}

/// What is missing of the reply once these bytes have come: the reply to a line is whole at the end of a line, and any
/// other one when it is as long as the message.
fn still_owed(owed: usize, message: &str, bytes: &[u8]) -> usize {
    match message.ends_with('\n') {
        true if bytes.ends_with(b"\n") => 0,
        true => owed,
        false => owed.saturating_sub(bytes.len()),
    }
}

fn unanswered(address: &str) -> Failure {
    format!("{address} closed the connection before its whole reply").into()
}

/// Logs what the server sends, until `is_enough` says so, the server's notice, the end of the connection, or until `wait`
/// is over. Looks at least once, whatever the wait.
///
/// # Errors
/// Also when the server answers that it is full.
fn receive(stream: &mut TcpStream, wait: Duration, is_enough: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<Received> {
    let until = Instant::now() + wait;
    let mut bytes = [0; 4096];
    loop {
        // A time-out of 0 would be none.
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        let received = match stream.read(&mut bytes) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => &bytes[..count],
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Received::Timeout),
                ErrorKind::Interrupted => continue,
                _ => return Err(error),
            },
        };
        if received.strip_suffix(b"\n").unwrap_or(received) == config::NOTICE.as_bytes() {
            info!("Closing connection...");
            return Ok(Received::Notice);
        }
        info!("Received {:?}", String::from_utf8_lossy(received));
        if received == config::BUSY {
            return Err(io::Error::other("the server is full"));
        }
        if is_enough(received) {
            return Ok(Received::Reply);
        }
        if Instant::now() >= until {
            return Ok(Received::Timeout);
        }
    }
}
