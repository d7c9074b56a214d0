//! Time: answers a JSON datagram with the local time.
//!
//! A datagram comes in, and a reply of at most 38 bytes goes out. The service must not help to flood a third
//! machine, whose address a sender can forge: `AMPLIFIED` and `AMPLIFIED_RATE` limit what it sends.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::json::member_is;
use crate::datagram::{Answer, Datagram};
use crate::service::Reply;
use crate::sys::RateLimit;
use crate::sys::localtime;

const UNKNOWN: &[u8] = b"{\"error\": \"unknown request\"}";
const INVALID: &[u8] = b"{\"error\": \"invalid JSON\"}";

/// A reply of more than this many times its request's bytes counts as amplified: an attacker can use it to flood the
/// owner of a forged address. QUIC allows the same factor towards an address that it has not validated (RFC 9000,
/// section 8.1).
const AMPLIFIED: usize = 3;
/// Amplified replies per second. They are errors of at most 28 bytes, so all of them are 28 kB/s, which is no useful
/// flood, and far more than honest clients cause by mistake.
const AMPLIFIED_RATE: u32 = 1_000;

/// Tells the local time, with microseconds. The usual UDP port is 5006.
///
/// | request                                                  | reply                                    |
/// | -------------------------------------------------------- | ---------------------------------------- |
/// | `{"type": "time"}`, with any other members               | `{"time": "2026-11-21 01:38:47.123456"}` |
/// | other JSON                                               | `{"error": "unknown request"}`           |
/// | not JSON, or more than 32 levels of arrays and objects   | `{"error": "invalid JSON"}`              |
/// | more than [`DATAGRAM`](crate::config::DATAGRAM) bytes    | `{"error": "invalid JSON"}`              |
/// | one of these two errors                                  | none                                     |
///
/// A sender can forge its address, so replies are limited. A reply to a request of 10 or more bytes is at most three
/// times as long as the request. A reply to a shorter request may be longer; all clones together send 1,000 of these
/// a second, and drop the rest.
#[derive(Clone, Debug)]
pub struct Time {
    amplified: Arc<RateLimit>,
}

impl Time {
    /// Reads the time zone from the file system, and allocates. No later call does either.
    pub fn new() -> Time {
        localtime::now();
        Time { amplified: Arc::new(RateLimit::new(AMPLIFIED_RATE, Duration::from_secs(1))) }
    }
}

impl Default for Time {
    fn default() -> Time {
        Time::new()
    }
}

impl Datagram for Time {
    fn receive(&self, packet: &[u8], _: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
        // Two servers would answer each other's errors for ever, after one datagram with a forged address.
        if packet == UNKNOWN || packet == INVALID {
            return Ok(Answer::Silence);
        }
        match member_is(packet, "type", "time") {
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

    /// Amplified replies are bounded per second, and every other reply has at most three bytes for one of its
    /// request.
    #[test]
    fn replies_amplify_little() {
        let time = Time::new();
        assert_eq!(answered(&time, br#"{"type":"time"}"#), 38, "the shortest request for the time, at 2.5 times");
        let packets: Vec<Vec<u8>> = (0..64).flat_map(|length| [vec![b'7'; length], vec![b'x'; length]]).collect();
        assert!(packets.iter().all(|packet| answered(&time, packet) > 0), "every client is answered");
        let start = std::time::Instant::now();
        let given = (0..100_000).filter(|_| answered(&time, b"7") > 0).count() as u128;
        assert!(given <= u128::from(AMPLIFIED_RATE) * (start.elapsed().as_millis() / 1_000 + 2), "{given}");
        for packet in packets.iter().filter(|packet| packet.len() >= 10) {
            assert!((1..=AMPLIFIED * packet.len()).contains(&answered(&time, packet)), "not touched by the storm");
        }
    }
}
