//! What the peers have in common: their command line, the blocking echo, and the answer to a time request.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::OnceLock;

use tz::{DateTime, TimeZone};

/// `SERVICE PORT WORKERS`.
pub struct Options {
    pub service: String,
    pub port: u16,
    pub workers: usize,
}

impl Options {
    /// # Errors
    /// `InvalidInput` when the three words are not there.
    pub fn from_args() -> io::Result<Options> {
        let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: SERVICE PORT WORKERS");
        let words: Vec<String> = std::env::args().skip(1).collect();
        let [service, port, workers] = &words[..] else { return Err(usage()) };
        let port = port.parse().map_err(|_| usage())?;
        Ok(Options { service: service.clone(), port, workers: workers.parse().map_err(|_| usage())? })
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// Echoes until the client closes.
pub fn echo(mut socket: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        if socket.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Answers a time request. The local time comes from the crate that lastorders takes it from, so that the servers are
/// compared and not their calendars.
pub fn time_reply(packet: &[u8]) -> String {
    match packet {
        br#"{"type": "time"}"# => format!("{{\"time\": \"{}\"}}", local_time()),
        _ => "{\"error\": \"unknown request\"}".into(),
    }
}

fn local_time() -> String {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let zone = ZONE.get_or_init(|| TimeZone::local().unwrap_or_else(|_| TimeZone::utc()));
    DateTime::now(zone.as_ref()).map_or_else(|error| error.to_string(), |time| time.to_string())
}
