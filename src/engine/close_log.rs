//! The log lines at a connection's end: why, if it ended badly, and that it is closed.
//!
//! A client that went away in the middle of things is an event, not a fault, and clients can cause thousands a
//! second: each cause gets a few lines a second, and how many were left out.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::CLOSE_LINES;
use crate::connection::CloseReason;
use crate::log::{Text, info, warn};
use crate::sys::{RateLimit, SignalName};

#[derive(Debug)]
pub(super) struct CloseLog {
    timeouts: RateLimit,
    resets: RateLimit,
    pipes: RateLimit,
    errors: RateLimit,
}

impl Default for CloseLog {
    fn default() -> CloseLog {
        let limit = || RateLimit::new(CLOSE_LINES, Duration::from_secs(1));
        CloseLog { timeouts: limit(), resets: limit(), pipes: limit(), errors: limit() }
    }
}

impl CloseLog {
    pub(super) fn log(&self, peer: SocketAddr, service: &str, reason: &CloseReason) {
        match reason {
            CloseReason::TimedOut(_) => self.log_cause(&self.timeouts, peer, "timed out"),
            CloseReason::Reset => self.log_cause(&self.resets, peer, "reset connection"),
            CloseReason::BrokenPipe => self.log_cause(&self.pipes, peer, "pipe broken"),
            CloseReason::Killed(number) => {
                if let Some(count) = self.errors.event() {
                    let (signal, left_out) = (SignalName(*number), LeftOut(count));
                    warn!("Client {}: its process was ended by {}{}", Text(&peer), Text(&signal), Text(&left_out));
                }
            }
            CloseReason::Error(error) => {
                if let Some(count) = self.errors.event() {
                    warn!("Client {}: {}{}", Text(&peer), Text(error), Text(&LeftOut(count)));
                }
            }
            _ => {}
        }
        match reason {
            CloseReason::Left | CloseReason::Finished | CloseReason::Shutdown => {
                info!("Closing connection from {} ({})", Text(&peer), service);
            }
            reason => info!("Closing connection from {} ({}): {}", Text(&peer), service, Text(reason)),
        }
    }

    fn log_cause(&self, cause: &RateLimit, peer: SocketAddr, line: &'static str) {
        if let Some(count) = cause.event() {
            warn!("Client {} {}{}", Text(&peer), line, Text(&LeftOut(count)));
        }
    }
}

/// How many lines of the same cause were left out since the last one.
struct LeftOut(u64);

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} before it not logged)"),
        }
    }
}
