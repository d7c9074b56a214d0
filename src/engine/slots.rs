//! The table of connections: every slot, and its place in the free list, made at start.

use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::BytesMut;
use nix::sys::socket::{Shutdown, shutdown};

use super::blocks::Blocks;
use super::deadlines::AtomicDeadline;
use super::queue::Token;
use super::state::State;
use super::sync::{Mutex, MutexGuard, lock};
use super::turn::Place;
use crate::connection::Connection;
use crate::connection::Context;
use crate::stats::Tally;

/// A place for one connection.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: State,
    /// When the accept loop must look at the connection, if it is still parked then.
    pub(super) deadline: AtomicDeadline,
    /// The poller has seen the client's end of input, or urgent data: receive until nothing is left.
    pub(super) hangup: AtomicBool,
    /// What the parked connection waits for is its next request.
    pub(super) idle: AtomicBool,
    /// Invariant: locked only by the owner of the slot, so never contended.
    connection: Mutex<Connection>,
    /// The open socket, for a thread that does not own the slot. Held while it is closed, so that the number cannot
    /// come to mean another file under a reader's hands.
    live: Mutex<Option<RawFd>>,
}

impl Slot {
    /// Only the owner of the slot may call this.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        lock(&self.connection)
    }

    /// What a turn knows of it; `tally` counts its requests.
    pub(super) fn place<'a>(&'a self, token: Token, tally: &'a Tally) -> Place<'a> {
        Place { session: token.into(), hangup: &self.hangup, tally }
    }

    pub(super) fn start(&self, socket: TcpStream, peer: SocketAddr, service: usize) {
        *lock(&self.live) = Some(socket.as_raw_fd());
        self.hangup.store(false, Ordering::Relaxed);
        self.connection().start(socket, peer, service);
        self.state.occupy();
    }

    pub(super) fn close_socket(&self, connection: &mut Connection) {
        let mut live = lock(&self.live);
        *live = None;
        drop(connection.end());
    }

    /// Ends all traffic of a connection that another thread owns.
    pub(super) fn cut(&self) {
        let live = lock(&self.live);
        if let Some(fd) = *live {
            let _ = shutdown(fd, Shutdown::Both);
        }
    }
}

/// An owned connection, with blocks for what it receives and sends. Those that are empty in the end go back.
pub(super) struct Hold<'a> {
    connection: MutexGuard<'a, Connection>,
    blocks: &'a Blocks,
}

impl Deref for Hold<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Hold<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.blocks.take_back(self.connection.spare_blocks());
    }
}

/// All slots, and which of them are free.
#[derive(Debug)]
pub(super) struct Slots {
    table: Box<[Slot]>,
    blocks: Blocks,
    free: Mutex<Free>,
    open: AtomicUsize,
}

#[derive(Debug)]
struct Free {
    /// Never longer than the table, so it never allocates.
    list: Vec<Token>,
    /// True when the accept loop waits for a free slot.
    wanted: bool,
}

impl Slots {
    pub(super) fn new(context: &Arc<Context>) -> Slots {
        let (count, size) = (context.limits.connections, context.limits.buffer);
        let table = (0..count)
            .map(|_| Slot {
                state: State::free(),
                deadline: AtomicDeadline::none(),
                hangup: AtomicBool::new(false),
                idle: AtomicBool::new(false),
                connection: Mutex::new(Connection::new(context.clone(), BytesMut::new(), BytesMut::new())),
                live: Mutex::new(None),
            })
            .collect();
        // The lowest slots are handed out first, so that few clients touch few pages.
        let list = (0..count as Token).rev().collect();
        Slots {
            table,
            blocks: Blocks::new(count, size),
            free: Mutex::new(Free { list, wanted: false }),
            open: AtomicUsize::new(0),
        }
    }

    pub(super) fn get(&self, token: Token) -> &Slot {
        &self.table[usize::from(token)]
    }

    /// Only the owner of the slot may call this.
    pub(super) fn hold(&self, token: Token) -> Hold<'_> {
        let mut connection = self.get(token).connection();
        self.blocks.lend(connection.blocks());
        Hold { connection, blocks: &self.blocks }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &Slot)> {
        self.table.iter().enumerate().map(|(index, slot)| (index as Token, slot))
    }

    /// True when a slot is free. If not, `want` asks to be told when one is.
    pub(super) fn has_free(&self, want: bool) -> bool {
        let mut free = lock(&self.free);
        free.wanted = want && free.list.is_empty();
        !free.list.is_empty()
    }

    /// Takes a free slot. Only the accept loop does.
    pub(super) fn take(&self) -> Option<Token> {
        let token = lock(&self.free).list.pop()?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(token)
    }

    /// Gives back a slot whose connection is closed. True when the accept loop waits for one.
    pub(super) fn give_back(&self, token: Token) -> bool {
        self.get(token).deadline.set(None);
        self.get(token).state.vacate();
        // Before the list: the accept loop must not see more open connections than there are slots.
        self.open.fetch_sub(1, Ordering::Release);
        let mut free = lock(&self.free);
        free.list.push(token);
        std::mem::take(&mut free.wanted)
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}
