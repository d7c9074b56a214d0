//! Time: answers a JSON datagram with the local time.
//!
//! `{"type": "time"}` gets `{"time": "2026-11-21 01:38:47.123456"}`, other JSON `{"error": "unknown request"}`,
//! and everything else `{"error": "invalid JSON"}`: what is nested deeper than 32 levels too, and what is longer
//! than [`DATAGRAM`](crate::config::DATAGRAM) bytes.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::json::says;
use crate::burst::Burst;
use crate::datagram::{Answer, Datagram};
use crate::localtime;
use crate::service::Reply;

const UNKNOWN: &[u8] = b"{\"error\": \"unknown request\"}";
const INVALID: &[u8] = b"{\"error\": \"invalid JSON\"}";

/// A reply of more than so many times its request's bytes may serve to flood somebody whose address the request
/// bears. This is what QUIC allows towards an address that nobody has vouched for (RFC 9000, section 8.1).
const AMPLIFIED: usize = 3;
/// Such replies per second. They are errors of at most 28 bytes, so that is less than one client with a modem can
/// send by itself, and far more than anybody mistypes.
const AMPLIFIED_RATE: u32 = 1_000;

/// Tells the local time, with microseconds.
///
/// A request of fewer than 10 bytes is an error, and its reply may be more than three times as long: a thousand of these
/// are given in a second, by all clones together, and none to what comes beyond. Every other reply is at most three
/// times as long as its request.
#[derive(Clone, Debug)]
pub struct Time {
    amplified: Arc<Burst>,
}

impl Time {
    /// Reads the time zone, which is all that allocates.
    pub fn new() -> Time {
        localtime::now();
        Time { amplified: Arc::new(Burst::of_lines(AMPLIFIED_RATE, Duration::from_secs(1))) }
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
        let amplified = reply.bytes().len() > AMPLIFIED * packet.len();
        Ok(if amplified && self.amplified.event().is_none() { Answer::Silence } else { Answer::Reply })
    }

    fn oversized(&self, _: &[u8], _: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        reply.write_all(INVALID)?;
        Ok(Answer::Reply)
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn answered(time: &Time, packet: &[u8]) -> usize {
        let mut reply = Reply::new(BytesMut::zeroed(128));
        match time.receive(packet, SocketAddr::from(([192, 0, 2, 1], 9)), &mut reply).unwrap() {
            Answer::Reply => reply.bytes().len(),
            Answer::Silence => 0,
        }
    }

    /// Nobody is flooded by way of this server: what is sent for a small request is bounded per second, and beyond
    /// that no more than three bytes are sent for one.
    #[test]
    fn replies_amplify_little() {
        let time = Time::new();
        assert_eq!(answered(&time, br#"{"type":"time"}"#), 38, "the shortest request for the time, at 2.5 times");
        let packets: Vec<Vec<u8>> = (0..64).flat_map(|length| [vec![b'7'; length], vec![b'x'; length]]).collect();
        assert!(packets.iter().all(|packet| answered(&time, packet) > 0), "everybody is answered");
        let start = std::time::Instant::now();
        let given = (0..100_000).filter(|_| answered(&time, b"7") > 0).count() as u128;
        assert!(given <= u128::from(AMPLIFIED_RATE) * (start.elapsed().as_millis() / 1_000 + 2), "{given}");
        for packet in packets.iter().filter(|packet| packet.len() >= 10) {
            assert!((1..=AMPLIFIED * packet.len()).contains(&answered(&time, packet)), "not touched by the storm");
        }
    }
}
