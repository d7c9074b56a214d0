//! What becomes of a slot after a turn: its connection is parked, brought back later, or closed.

use std::sync::atomic::Ordering;

use super::Engine;
use super::queue::Token;
use super::slots::Slot;
use super::turn::Progress;
use crate::connection::{CloseReason, Connection, Interest, Stage, Wait};
use crate::sys::Tick;

/// What its owner must still do with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits for its client, until that time: let go of it.
    Park(Option<Tick>),
    /// It has more to do, after the others.
    Yield,
    /// Its connection is closed.
    Closed,
}

impl Engine {
    /// Does what a turn has come to.
    pub(super) fn settle(&self, token: Token, slot: &Slot, connection: &mut Connection, progress: Progress) -> Outcome {
        match progress {
            Progress::Waiting => self.park(token, slot, connection),
            Progress::More => Outcome::Yield,
            Progress::Over(reason) => {
                self.close(token, slot, connection, reason);
                Outcome::Closed
            }
        }
    }

    /// Watches the socket. The slot stays owned: an edge from here on is kept.
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
        Outcome::Park(connection.deadline())
    }

    /// Ends an owned connection and gives its slot back.
    pub(super) fn close(&self, token: Token, slot: &Slot, connection: &mut Connection, reason: CloseReason) {
        let peer = connection.peer();
        let reason = self.driver.end(token.into(), connection, reason);
        self.driver.record(peer, &reason);
        // First: a client that sees the close may come again at once.
        let share_wanted = self.leave(peer);
        slot.close_socket(connection);
        if self.slots.give_back(token) || share_wanted {
            self.wake_accept_loop();
        }
        if self.context.is_draining() && self.slots.open() == 0 {
            // It was the last one.
            self.wake_accept_loop();
        }
    }
}
