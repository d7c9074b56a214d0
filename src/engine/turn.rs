//! One turn of one connection: what is done with it from the moment a thread owns it until that lets go of it.
//!
//! Output goes first, and until all of it is sent nothing more is received; then input is received and given to
//! the service, a bounded number of times. What comes out is a [`Progress`]; to park the connection, to bring it
//! back and to close it is its owner's, be that a worker or a process of its own.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::farewell::Farewells;
use crate::config::{LINGER, NOTICE_GAP, NOTICE_GAPS, TURN};
use crate::connection::Context;
use crate::connection::{CloseReason, Connection, Fill, Flow, Stage, Wait};
use crate::log::{Text, error};
use crate::service::ErasedService;
use crate::stats::Tally;
use crate::sys::RateLimit;

/// How a turn ended.
#[derive(Debug)]
pub(crate) enum Progress {
    /// It waits for its client, or for its deadline.
    Waiting,
    /// It has more to do, after the others.
    More,
    /// It is over; its owner must [`end`](Driver::end) it.
    Over(CloseReason),
}

enum Step {
    Again,
    Wait,
}

/// What a turn knows of the place that its connection has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Which session is its.
    pub(crate) session: usize,
    /// The poller has seen the client's end of input, or urgent data: receive until nothing is left.
    pub(crate) hangup: &'a AtomicBool,
    /// Counts its requests.
    pub(crate) tally: &'a Tally,
}

/// Drives connections from stage to stage, calling their services.
pub(crate) struct Driver {
    pub(crate) hosts: Box<[Box<dyn ErasedService>]>,
    context: Arc<Context>,
    panic_lines: RateLimit,
    farewells: Farewells,
}

impl Driver {
    pub(super) fn new(context: Arc<Context>, hosts: Box<[Box<dyn ErasedService>]>) -> Driver {
        Driver { hosts, context, panic_lines: RateLimit::new(Duration::from_secs(60)), farewells: Farewells::default() }
    }

    /// Serves what waits on an owned connection.
    pub(crate) fn turn(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        connection.readable = true;
        self.steps(place, connection)
    }

    /// Does a bounded number of steps.
    fn steps(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        for _ in 0..TURN {
            match self.step(place, connection) {
                Ok(Step::Again) => {}
                Ok(Step::Wait) => return Progress::Waiting,
                Err(reason) => return Progress::Over(reason),
            }
        }
        Progress::More
    }

    /// Begins a connection without looking for its first request, which the poller reports.
    pub(crate) fn greet(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        let greeted = self.open(place, connection).and_then(|_| Ok(connection.flush()?));
        greeted.map_or_else(Progress::Over, |_| Progress::Waiting)
    }

    /// Gives an owned client its notice, and begins to close.
    pub(crate) fn drain(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        match self.announce(place, connection) {
            Progress::More if connection.notified && matches!(connection.stage, Stage::Closing(_)) => {
                self.steps(place, connection)
            }
            progress => progress,
        }
    }

    /// Gives an owned client its notice, unless something of it is still to be answered: then its next turn does.
    /// The end of the connection costs more than the notice, and is left to the turn after this.
    pub(crate) fn announce(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        match connection.stage {
            _ if connection.notified => return Progress::More,
            Stage::New | Stage::Serving => {}
            Stage::Closing(_) | Stage::Lingering(..) => return Progress::More,
        }
        if !connection.hungry && !connection.input().is_empty() {
            return Progress::More;
        }
        let told = match connection.flush().and_then(|sent| if sent { connection.fill() } else { Ok(Fill::Nothing) }) {
            Ok(Fill::Bytes | Fill::Ended) => return Progress::More,
            // The notice comes behind the reply that it does not read.
            Ok(Fill::Nothing) if !connection.output().is_empty() => return Progress::More,
            Ok(Fill::Nothing) => {
                connection.stage = Stage::Serving;
                self.notify_settled(place, connection)
            }
            Err(error) => Err(error.into()),
        };
        match told.and_then(|()| Ok(connection.flush()?)) {
            // Its time has not come: a reply has just been sent.
            Ok(_) if !connection.notified => Progress::Waiting,
            Ok(_) => Progress::More,
            Err(reason) => Progress::Over(reason),
        }
    }

    /// Gives a client that came after the shutdown began its notice, and nothing else.
    pub(crate) fn tell(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        connection.stage = Stage::Serving;
        match self.notify(place, connection) {
            // The service keeps it: what it does next is its next turn's.
            Ok(()) if matches!(connection.stage, Stage::Serving) => Progress::More,
            Ok(()) => self.steps(place, connection),
            Err(reason) => Progress::Over(reason),
        }
    }

    /// Moves on a waiting connection whose deadline has come.
    pub(crate) fn expire(&self, place: Place<'_>, connection: &mut Connection) -> Progress {
        if connection.settles.take().is_some() {
            return self.drain(place, connection);
        }
        if matches!(connection.stage, Stage::Lingering(..)) {
            return Progress::Over(connection.planned_end());
        }
        self.look_once_more(connection).unwrap_or_else(|error| Progress::Over(error.into()))
    }

    /// Looks for what a client did in time, while the workers or the queue kept its connection waiting.
    fn look_once_more(&self, connection: &mut Connection) -> io::Result<Progress> {
        let wait = connection.wait();
        let in_time = match wait {
            Wait::Write => {
                let (left, finished) = (connection.output().bytes().len(), connection.flush()?);
                if !finished && connection.output().bytes().len() < left {
                    // There was room for a part, and the time starts anew.
                    return Ok(Progress::Waiting);
                }
                finished
            }
            Wait::Idle | Wait::Request => matches!(connection.fill()?, Fill::Bytes | Fill::Ended),
        };
        // The rest of a request is looked at once: a client that sends a byte now and then must not go on like that.
        connection.is_overdue |= in_time && wait == Wait::Request;
        Ok(if in_time { Progress::More } else { Progress::Over(CloseReason::TimedOut(wait)) })
    }

    fn step(&self, place: Place<'_>, connection: &mut Connection) -> Result<Step, CloseReason> {
        if !connection.flush()? {
            return Ok(Step::Wait);
        }
        match connection.stage {
            Stage::New => self.open(place, connection),
            Stage::Serving => self.serve(place, connection),
            Stage::Closing(_) if connection.has_ended() => Err(connection.planned_end()),
            Stage::Closing(_) => {
                connection.finish_sending()?;
                let until = self.context.clock.now().after(LINGER);
                connection.stage = Stage::Lingering(connection.planned_end(), until);
                Ok(Step::Again)
            }
            Stage::Lingering(..) if !connection.readable => Ok(Step::Wait),
            Stage::Lingering(..) => match connection.discard() {
                Ok(Fill::Bytes) => {
                    connection.readable |= place.hangup.load(Ordering::Relaxed);
                    Ok(Step::Again)
                }
                Ok(Fill::Nothing) => Ok(Step::Wait),
                // The client has closed too, or is gone: either way it ended as was planned.
                Ok(Fill::Ended) | Err(_) => Err(connection.planned_end()),
            },
        }
    }

    fn open(&self, place: Place<'_>, connection: &mut Connection) -> Result<Step, CloseReason> {
        connection.stage = Stage::Serving;
        self.call(connection, |host, connection| host.open(place.session, connection))?;
        Ok(Step::Again)
    }

    fn serve(&self, place: Place<'_>, connection: &mut Connection) -> Result<Step, CloseReason> {
        if connection.settles.is_some_and(|tick| !tick.reached(self.context.clock.now())) {
            // What arrives in the quiet time before the notice is looked at when that time is over.
            return Ok(Step::Wait);
        }
        connection.settles = None;
        if (connection.hungry || connection.input().is_empty()) && !self.receive(place, connection)? {
            let waits = matches!(connection.stage, Stage::Serving) && connection.output().is_empty();
            // Not in the quiet time before the notice, which the client is to get.
            if waits && connection.is_overdue && connection.settles.is_none() {
                return Err(CloseReason::TimedOut(Wait::Request));
            }
            return Ok(if waits { Step::Wait } else { Step::Again });
        }
        let before = connection.input().bytes().len();
        let flow = self.call(connection, |host, connection| host.serve(place.session, connection))?;
        let took = connection.input().bytes().len() < before;
        let progress = took || !connection.output().is_empty();
        // Counted before the reply goes out, so that a client that has the reply finds it counted.
        place.tally.add(u64::from(took));
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
    fn receive(&self, place: Place<'_>, connection: &mut Connection) -> Result<bool, CloseReason> {
        if connection.input().has_ended() {
            // Everything before the end was served.
            return match connection.input().is_empty() {
                true => Err(if connection.notified { CloseReason::Shutdown } else { CloseReason::Left }),
                false => Ok(true),
            };
        }
        let filled = if connection.readable { connection.fill()? } else { Fill::Nothing };
        // A short count says that all was received, unless the end of input, or urgent data, is behind it.
        connection.readable |= filled == Fill::Bytes && place.hangup.load(Ordering::Relaxed);
        match filled {
            Fill::Bytes => Ok(true),
            Fill::Ended => self.receive(place, connection),
            Fill::Nothing => {
                if self.context.is_draining() && !connection.notified {
                    self.notify_settled(place, connection)?;
                }
                Ok(false)
            }
        }
    }

    /// Gives the notice, unless a reply went out a moment ago: then a little later, and later again if that time
    /// brought a request, but not as long as a client likes that asks without pause.
    fn notify_settled(&self, place: Place<'_>, connection: &mut Connection) -> Result<(), CloseReason> {
        let now = self.context.clock.now();
        let settled = connection.last_sent().map(|sent| sent.after(NOTICE_GAP));
        match settled {
            Some(tick) if connection.gaps < NOTICE_GAPS && !tick.reached(now) => {
                connection.settles = Some(tick);
                connection.gaps += 1;
                Ok(())
            }
            _ => self.notify(place, connection),
        }
    }

    /// Gives the notice; the service decides whether the client stays.
    pub(super) fn notify(&self, place: Place<'_>, connection: &mut Connection) -> Result<(), CloseReason> {
        connection.settles = None;
        connection.mark_notified();
        match self.call(connection, |host, connection| host.shutdown(place.session, connection))? {
            Flow::Continue => {}
            Flow::Close => connection.stage = Stage::Closing(CloseReason::Shutdown),
        }
        Ok(())
    }

    /// Calls the service, and turns its panic into the end of this connection.
    fn call<T>(
        &self,
        connection: &mut Connection,
        call: impl FnOnce(&dyn ErasedService, &mut Connection) -> io::Result<T>,
    ) -> Result<T, CloseReason> {
        let host = &*self.hosts[connection.service()];
        match catch_unwind(AssertUnwindSafe(|| call(host, connection))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(CloseReason::TimedOut(connection.wait())),
            Ok(Err(error)) => Err(error.into()),
            Err(payload) => {
                self.report_panic(&*payload, connection.peer());
                Err(CloseReason::Panicked)
            }
        }
    }

    pub(super) fn report_panic(&self, payload: &(dyn Any + Send), peer: SocketAddr) {
        let Some(left_out) = self.panic_lines.event() else { return };
        let text = message(payload);
        error!(
            "The service panicked for {}: {} ({} panics before this one not logged)",
            Text(&peer),
            Text(&text.escape_debug()),
            left_out
        );
    }

    /// Ends an owned connection, all but its socket. Returns what ended it in truth.
    pub(crate) fn end(&self, session: usize, connection: &mut Connection, reason: CloseReason) -> CloseReason {
        let reason = if self.context.is_cut() { CloseReason::Forced } else { reason };
        if !connection.output().is_empty() {
            connection.abort();
        }
        let host = &self.hosts[connection.service()];
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| host.close(session, &reason))) {
            self.report_panic(&*payload, connection.peer());
        }
        reason
    }

    /// Logs and counts the end of a connection.
    pub(crate) fn record(&self, peer: SocketAddr, reason: &CloseReason) {
        self.context.counters.closed(reason);
        self.farewells.log(peer, reason);
    }
}

/// What a panic said.
pub(super) fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
