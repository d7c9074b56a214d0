//! Time: answers a JSON datagram with the local time.
//!
//! `{"type": "time"}` gets `{"time": "2026-11-21 01:38:47.123456"}`, other JSON `{"error": "unknown request"}`,
//! and everything else `{"error": "invalid JSON"}`: what is nested deeper than 32 levels too, and what is longer
//! than [`DATAGRAM`](crate::config::DATAGRAM) bytes.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::json::says;
use crate::datagram::{Answer, Datagram};
use crate::localtime;
use crate::service::Reply;

const UNKNOWN: &[u8] = b"{\"error\": \"unknown request\"}";
const INVALID: &[u8] = b"{\"error\": \"invalid JSON\"}";

/// Tells the local time, with microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Time(());

impl Time {
    /// Reads the time zone, which is all that allocates.
    pub fn new() -> Time {
        localtime::now();
        Time(())
    }
}

impl Default for Time {
    fn default() -> Time {
        Time::new()
    }
}

impl Datagram for Time {
    fn receive(&self, packet: &[u8], _: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        // An error is never answered with one: a forged sender would set two servers on each other for ever.
        if packet == UNKNOWN || packet == INVALID {
            return Ok(Answer::Silence);
        }
        match says(packet, "type", "time") {
            Ok(true) => write!(reply, "{{\"time\": \"{}\"}}", localtime::now())?,
            Ok(false) => reply.write_all(UNKNOWN)?,
            Err(_) => reply.write_all(INVALID)?,
        }
        Ok(Answer::Reply)
    }

    fn oversized(&self, _: &[u8], _: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        reply.write_all(INVALID)?;
        Ok(Answer::Reply)
    }

    fn is_prompt(&self) -> bool {
        true
    }
}
