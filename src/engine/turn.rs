//! One turn of one connection: what is done with it from the moment somebody owns it until it is let go.
//!
//! Output goes first, and until all of it is sent nothing more is received; then input is received and given to
//! the service, a bounded number of times. What comes out is an [`Outcome`]; a connection that ended is closed
//! here.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use super::Engine;
use super::queue::Token;
use super::slots::Slot;
use super::worker::message;
use crate::config::{LINGER, NOTICE_GAP, TURN};
use crate::connection::{Connection, Fill, Interest, Stage};
use crate::fmt::{Text, error, info, warn};
use crate::service::{CloseReason, Flow, Host, Wait};
use crate::stats::Tally;

/// What becomes of a slot after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits for its client.
    Park,
    /// It has more to do, after the others.
    Yield,
    /// Its connection is closed.
    Closed,
}

enum Step {
    Again,
    Park,
}

impl Engine {
    /// Serves what waits on an owned connection; `tally` counts the requests.
    pub(super) fn turn(&self, token: Token, slot: &Slot, connection: &mut Connection, tally: &Tally) -> Outcome {
        connection.readable = true;
        self.steps(token, slot, connection, tally)
    }

    /// Does a bounded number of steps.
    pub(super) fn steps(&self, token: Token, slot: &Slot, connection: &mut Connection, tally: &Tally) -> Outcome {
        for _ in 0..TURN {
            match self.step(token, slot, connection, tally) {
                Ok(Step::Again) => {}
                Ok(Step::Park) => return self.park(token, slot, connection),
                Err(reason) => {
                    self.close(token, slot, connection, reason);
                    return Outcome::Closed;
                }
            }
        }
        Outcome::Yield
    }

    fn step(&self, token: Token, slot: &Slot, connection: &mut Connection, tally: &Tally) -> Result<Step, CloseReason> {
        if !connection.flush()? {
            return Ok(Step::Park);
        }
        match connection.stage {
            Stage::New => self.open(token, connection),
            Stage::Serving => self.serve(token, slot, connection, tally),
            Stage::Closing(_) if connection.has_ended() => Err(connection.planned_end()),
            Stage::Closing(_) => {
                connection.finish_sending()?;
                let until = self.context.clock.now().after(LINGER);
                connection.stage = Stage::Lingering(connection.planned_end(), until);
                Ok(Step::Again)
            }
            Stage::Lingering(..) if !connection.readable => Ok(Step::Park),
            Stage::Lingering(..) => match connection.discard() {
                Ok(Fill::Bytes) => Ok(Step::Again),
                Ok(Fill::Nothing) => Ok(Step::Park),
                // The client has closed too, or is gone: either way it ended as was planned.
                Ok(Fill::Ended) | Err(_) => Err(connection.planned_end()),
            },
        }
    }

    fn open(&self, token: Token, connection: &mut Connection) -> Result<Step, CloseReason> {
        connection.stage = Stage::Serving;
        self.call(connection, |host, connection| host.open(token.into(), connection))?;
        Ok(Step::Again)
    }

    fn serve(
        &self,
        token: Token,
        slot: &Slot,
        connection: &mut Connection,
        tally: &Tally,
    ) -> Result<Step, CloseReason> {
        if connection.settles.is_some_and(|tick| !tick.reached(self.context.clock.now())) {
            // What arrives in the quiet time before the notice is looked at when that time is over.
            return Ok(Step::Park);
        }
        if (connection.hungry || connection.input().is_empty()) && !self.receive(token, slot, connection)? {
            let waits = matches!(connection.stage, Stage::Serving) && connection.output().is_empty();
            return Ok(if waits { Step::Park } else { Step::Again });
        }
        let before = connection.input().bytes().len();
        let flow = self.call(connection, |host, connection| host.serve(token.into(), connection))?;
        let took = connection.input().bytes().len() < before;
        let progress = took || !connection.output().is_empty();
        // Counted before the reply goes out, so that whoever has the reply finds it counted.
        tally.add(u64::from(took));
        if flow == Flow::Close {
            connection.stage = Stage::Closing(self.reason(connection));
            return Ok(Step::Again);
        }
        connection.hungry = !progress;
        if progress {
            connection.request_answered();
        } else if connection.input().has_ended() {
            return Err(CloseReason::Left);
        } else if connection.input().is_full() {
            connection.stage = Stage::Closing(CloseReason::TooLong);
        }
        Ok(Step::Again)
    }

    fn reason(&self, connection: &Connection) -> CloseReason {
        if connection.notified { CloseReason::Shutdown } else { CloseReason::Finished }
    }

    /// Gets more input. False when there is none: the connection is to be parked, or has its notice now.
    fn receive(&self, token: Token, slot: &Slot, connection: &mut Connection) -> Result<bool, CloseReason> {
        if connection.input().has_ended() {
            // Everything before the end was served.
            return match connection.input().is_empty() {
                true => Err(if connection.notified { CloseReason::Shutdown } else { CloseReason::Left }),
                false => Ok(true),
            };
        }
        let filled = if connection.readable { connection.fill()? } else { Fill::Nothing };
        // A short count says that all was received, unless the end of input is behind it.
        connection.readable |= filled == Fill::Bytes && slot.hangup.load(Ordering::Relaxed);
        match filled {
            Fill::Bytes => Ok(true),
            Fill::Ended => self.receive(token, slot, connection),
            Fill::Nothing => {
                if self.context.is_draining() && !connection.notified {
                    self.notify_settled(token, connection)?;
                }
                Ok(false)
            }
        }
    }

    /// Gives the notice, unless a reply went out a moment ago: then a little later.
    pub(super) fn notify_settled(&self, token: Token, connection: &mut Connection) -> Result<(), CloseReason> {
        let now = self.context.clock.now();
        let settled = connection.last_sent().map(|sent| sent.after(NOTICE_GAP));
        match settled {
            Some(tick) if connection.settles.is_none() && !tick.reached(now) => {
                connection.settles = Some(tick);
                Ok(())
            }
            _ => self.notify(token, connection),
        }
    }

    /// Gives the notice; the service decides whether the client stays.
    pub(super) fn notify(&self, token: Token, connection: &mut Connection) -> Result<(), CloseReason> {
        connection.settles = None;
        connection.mark_notified();
        match self.call(connection, |host, connection| host.shutdown(token.into(), connection))? {
            Flow::Continue => {}
            Flow::Close => connection.stage = Stage::Closing(CloseReason::Shutdown),
        }
        Ok(())
    }

    /// Calls the service, and turns its panic into the end of this connection.
    fn call<T>(
        &self,
        connection: &mut Connection,
        call: impl FnOnce(&dyn Host, &mut Connection) -> io::Result<T>,
    ) -> Result<T, CloseReason> {
        let host = &*self.hosts[connection.service()];
        match catch_unwind(AssertUnwindSafe(|| call(host, connection))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(CloseReason::TimedOut(connection.wait())),
            Ok(Err(error)) => Err(error.into()),
            Err(payload) => {
                self.report_panic(&*payload, connection);
                Err(CloseReason::Panicked)
            }
        }
    }

    fn report_panic(&self, payload: &(dyn std::any::Any + Send), connection: &Connection) {
        let Some(left_out) = self.panic_lines.event() else { return };
        let text = message(payload);
        error!(
            "The service panicked for {}: {} ({} panics before this one not logged)",
            Text(&connection.peer()),
            Text(&text.escape_debug()),
            left_out
        );
    }

    /// Watches the socket and sets the deadline. The slot stays owned: an edge from here on is kept.
    fn park(&self, token: Token, slot: &Slot, connection: &mut Connection) -> Outcome {
        let wanted = if connection.output().is_empty() { Interest::Input } else { Interest::Output };
        if let Err(error) = self.parked.watch(&*connection, token, wanted, connection.registered) {
            // Out of kernel memory, or beyond fs.epoll.max_user_watches.
            self.close(token, slot, connection, CloseReason::Error(error.into()));
            return Outcome::Closed;
        }
        connection.registered = Some(wanted);
        let idle = matches!(connection.stage, Stage::Serving) && connection.wait() == Wait::Idle;
        slot.idle.store(idle, Ordering::Relaxed);
        if self.schedule.set(&slot.deadline, connection.deadline()) {
            self.wake_accept_loop();
        }
        Outcome::Park
    }

    /// Ends an owned connection and gives its slot back.
    pub(super) fn close(&self, token: Token, slot: &Slot, connection: &mut Connection, reason: CloseReason) {
        let reason = if self.context.is_cut() { CloseReason::Forced } else { reason };
        self.log_close(connection, &reason);
        if !connection.output().is_empty() {
            connection.abort();
        }
        let host = &self.hosts[connection.service()];
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| host.close(token.into(), &reason))) {
            self.report_panic(&*payload, connection);
        }
        slot.close_socket(connection);
        self.context.counters.closed(&reason);
        if self.slots.give_back(token) {
            self.wake_accept_loop();
        }
        if self.context.is_draining() {
            // It may have been the last one.
            self.wake_accept_loop();
        }
    }

    fn log_close(&self, connection: &Connection, reason: &CloseReason) {
        let peer = connection.peer();
        let line = match reason {
            CloseReason::TimedOut(_) => "timed out",
            CloseReason::Reset => "reset connection",
            CloseReason::BrokenPipe => "pipe broken",
            _ => "",
        };
        if let CloseReason::Error(error) = reason {
            warn!("Client {}: {}", Text(&peer), Text(error));
        } else if !line.is_empty() {
            info!("Client {} {}", Text(&peer), line);
        }
        info!("Closing connection from {}", Text(&peer));
    }
}
