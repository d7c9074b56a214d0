//! `lastorders client`: sends a message every second until the server says that it closes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use log::info;

use crate::Failure;
use crate::logging::{self, Logging};

pub struct Client {
    pub address: String,
    pub message: String,
    pub every: Duration,
    pub count: u64,
}

/// What the server says when it closes.
const NOTICE: &[u8] = lastorders::config::NOTICE.as_bytes();

enum Heard {
    Text,
    Notice,
    End,
}

pub fn run(client: Client) -> Result<(), Failure> {
    logging::start(Logging::default())?;
    let address = &client.address;
    let lost = |step: &str, error: io::Error| Failure::Run(format!("{step} {address}: {error}"));
    let mut stream = TcpStream::connect(address).map_err(|error| lost("cannot connect to", error))?;
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
