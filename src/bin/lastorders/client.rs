//! `lastorders client`: sends a message every second until the server says that it closes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lexopt::Arg;
use log::info;

use crate::failure::Failure;
use crate::logging::{self, Logging};
use crate::usage::CLIENT_USAGE;
use crate::values::{Parsed, number, seconds, shown, value};

pub struct Client {
    address: String,
    message: String,
    every: Duration,
    count: u64,
}

/// What the server says when it closes.
const NOTICE: &[u8] = lastorders::config::NOTICE.as_bytes();

enum Heard {
    Text,
    Notice,
    End,
}

pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Client>, Failure> {
    let usage = |text: String| Failure::Usage(format!("{text}; see `lastorders client --help`"));
    let mut client = Client {
        address: String::new(),
        message: "hello world".into(),
        every: Duration::from_secs(1),
        count: u64::MAX,
    };
    while let Some(arg) = parser.next().map_err(|error| usage(error.to_string()))? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Parsed::Help(CLIENT_USAGE.into())),
            Arg::Long("message") => client.message = value(&mut parser).map_err(usage)?,
            Arg::Long("every") => {
                let text = value(&mut parser).map_err(usage)?;
                client.every = seconds(&text).map_err(|error| usage(format!("--every {text:?}: {error}")))?;
            }
            Arg::Long("count") => {
                let text = value(&mut parser).map_err(usage)?;
                client.count = number(&text).map_err(|error| usage(format!("--count {text:?}: {error}")))? as u64;
            }
            Arg::Value(word) if client.address.is_empty() => client.address = word.to_string_lossy().into_owned(),
            other => return Err(usage(format!("unexpected argument {}", shown(&other)))),
        }
    }
    match client.address.is_empty() {
        true => Err(usage("no address; give one like 127.0.0.1:9999".into())),
        false => Ok(Parsed::Options(client)),
    }
}

pub fn run(client: Client) -> Result<(), Failure> {
    logging::start(Logging::default())?;
    let address = &client.address;
    let lost = |step: &str, error: io::Error| Failure::Run(format!("{step} {address}: {error}"));
    let mut stream = TcpStream::connect(address).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => {
            Failure::Usage(format!("{address:?}: expected ADDRESS:PORT, as in 127.0.0.1:9999"))
        }
        _ => lost("cannot connect to", error),
    })?;
    for _ in 0..client.count {
        stream.write_all(client.message.as_bytes()).map_err(|error| lost("cannot send to", error))?;
        let next = Instant::now() + client.every;
        loop {
            match hear(&mut stream, next).map_err(|error| lost("cannot receive from", error))? {
                Some(Heard::Text) => {}
                Some(Heard::Notice) => {
                    info!("Closing connection...");
                    return Ok(());
                }
                Some(Heard::End) => return Err(Failure::Run(format!("{address} closed the connection"))),
                None => break,
            }
        }
    }
    Ok(())
}

/// Receives once, and logs what it was. `None` when it is time to send again.
fn hear(stream: &mut TcpStream, until: Instant) -> io::Result<Option<Heard>> {
    let mut bytes = [0; 4096];
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(None);
    }
    stream.set_read_timeout(Some(left))?;
    match stream.read(&mut bytes) {
        Ok(0) => Ok(Some(Heard::End)),
        Ok(count) if &bytes[..count] == NOTICE => Ok(Some(Heard::Notice)),
        Ok(count) => {
            info!("Received {:?}", String::from_utf8_lossy(&bytes[..count]));
            Ok(Some(Heard::Text))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(Heard::Text)),
        Err(error) => Err(error),
    }
}
