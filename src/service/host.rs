//! The engine's view of a service: no type parameters, one session per slot.
//!
//! Erasing the type here keeps the engine compiled once however many services a server hosts, and lets several
//! services with different sessions share one set of slots without an allocation per connection.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{CloseReason, Flow, Service};
use crate::connection::Connection;

/// A service together with the sessions of its connections, indexed by slot.
pub(crate) trait Host: Send + Sync {
    fn open(&self, slot: usize, connection: &mut Connection) -> io::Result<()>;
    fn serve(&self, slot: usize, connection: &mut Connection) -> io::Result<Flow>;
    fn shutdown(&self, slot: usize, connection: &mut Connection) -> io::Result<Flow>;
    fn close(&self, slot: usize, reason: &CloseReason);
    fn notice(&self) -> &'static [u8];
    fn never_blocks(&self) -> bool;
    fn shares_state(&self) -> bool;
    /// Bytes that one more slot costs here.
    fn session_size(&self) -> usize;
    /// Makes room for the sessions of that many slots.
    fn reserve(&mut self, slots: usize);
}

pub(crate) struct Hosted<S: Service> {
    service: S,
    /// Invariant: locked only by the owner of the slot, so never contended.
    sessions: Box<[Mutex<Option<S::Session>>]>,
}

impl<S: Service> Hosted<S> {
    pub(crate) fn new(service: S) -> Hosted<S> {
        Hosted { service, sessions: Box::default() }
    }

    /// A panic of the service poisons its session's lock; the session is dropped with the connection, so the
    /// next one finds a clean place.
    fn session(&self, slot: usize) -> MutexGuard<'_, Option<S::Session>> {
        self.sessions[slot].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Service> Host for Hosted<S> {
    fn open(&self, slot: usize, connection: &mut Connection) -> io::Result<()> {
        let session = self.service.open(connection)?;
        *self.session(slot) = Some(session);
        Ok(())
    }

    fn serve(&self, slot: usize, connection: &mut Connection) -> io::Result<Flow> {
        match self.session(slot).as_mut() {
            Some(session) => self.service.serve(connection, session),
            None => Ok(Flow::Close),
        }
    }

    fn shutdown(&self, slot: usize, connection: &mut Connection) -> io::Result<Flow> {
        match self.session(slot).as_mut() {
            Some(session) => self.service.shutdown(connection, session),
            // Admitted after the shutdown began: told, and closed, without a session.
            None => {
                connection.output().push(self.service.notice());
                Ok(Flow::Close)
            }
        }
    }

    fn close(&self, slot: usize, reason: &CloseReason) {
        let session = self.session(slot).take();
        if let Some(session) = session {
            self.service.close(session, reason);
        }
    }

    fn notice(&self) -> &'static [u8] {
        self.service.notice()
    }

    fn never_blocks(&self) -> bool {
        self.service.never_blocks()
    }

    fn shares_state(&self) -> bool {
        self.service.shares_state()
    }

    fn session_size(&self) -> usize {
        size_of::<Mutex<Option<S::Session>>>()
    }

    fn reserve(&mut self, slots: usize) {
        self.sessions = (0..slots).map(|_| Mutex::new(None)).collect();
    }
}
