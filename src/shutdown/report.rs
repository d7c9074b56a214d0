//! What a shutdown was started by, and how it went.

use std::fmt;
use std::time::Duration;

use crate::sys::{Seconds, SignalName};

/// What started a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// A signal, by its number; shown by its name.
    Signal(i32),
    /// [`ServerHandle::shutdown`](crate::ServerHandle::shutdown).
    Handle,
    /// `stop` on the control socket.
    Control,
    /// A listener broke.
    Failure,
}

impl Trigger {
    /// What the log says has happened.
    pub(crate) fn event(self) -> &'static str {
        match self {
            Trigger::Signal(_) => "received",
            Trigger::Handle | Trigger::Control => "made",
            Trigger::Failure => "noticed",
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trigger::Signal(number) => SignalName(*number).fmt(f),
            Trigger::Handle => f.write_str("Shutdown request"),
            Trigger::Control => f.write_str("Control request"),
            Trigger::Failure => f.write_str("Listener failure"),
        }
    }
}

/// How a shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// What started it.
    pub trigger: Trigger,
    /// Clients that were given the notice.
    pub notified: u64,
    /// Connections that ended by themselves during the grace time.
    pub left: u64,
    /// Connections that the end of the grace time closed.
    pub closed: u64,
    /// Workers that were still busy when the server gave up waiting for them.
    pub abandoned: usize,
    /// From the trigger to the end.
    pub took: Duration,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ShutdownReport { trigger, notified, left, closed, abandoned, took } = self;
        write!(f, "{trigger}: {notified} notified, {left} left, {closed} closed, {abandoned} workers abandoned, ")?;
        write!(f, "{:.3} s", Seconds(*took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line() {
        let report = ShutdownReport {
            trigger: Trigger::Signal(15),
            notified: 3,
            left: 2,
            closed: 1,
            abandoned: 0,
            took: Duration::from_millis(5_001),
        };
        assert_eq!(report.to_string(), "SIGTERM: 3 notified, 2 left, 1 closed, 0 workers abandoned, 5.001 s");
    }
}
