//! The engine's view of a service: no type parameters, and one session per slot.
//!
//! The erased type lets the engine be compiled once, however many services a server offers. Services with different
//! sessions share one table of slots, and admitting a client allocates nothing.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Service;
use crate::connection::{CloseReason, Connection, Flow};

/// A [`Service`] together with the sessions of its connections. `slot` is the connection's place in the table.
pub(crate) trait ErasedService: Send + Sync {
    /// The name that log lines and errors show.
    fn name(&self) -> &str;
    fn rename(&mut self, name: &str);
    fn open(&self, slot: usize, connection: &mut Connection) -> io::Result<()>;
    fn serve(&self, slot: usize, connection: &mut Connection) -> io::Result<Flow>;
    fn shutdown(&self, slot: usize, connection: &mut Connection) -> io::Result<Flow>;
    fn close(&self, slot: usize, reason: &CloseReason);
    fn notice(&self) -> &'static [u8];
    fn never_blocks(&self) -> bool;
    fn shares_state(&self) -> bool;
    /// Bytes that one more slot costs here.
    fn session_size(&self) -> usize;
    /// Allocates the sessions of that many slots.
    fn reserve(&mut self, slots: usize);
}

pub(crate) struct WithSessions<S: Service> {
    name: String,
    service: S,
    /// Invariant: only the thread that owns a slot locks its session, so no thread ever waits for the lock.
    sessions: Box<[Mutex<Option<S::Session>>]>,
}

impl<S: Service> WithSessions<S> {
    pub(crate) fn new(service: S) -> WithSessions<S> {
        WithSessions { name: name_of(&service), service, sessions: Box::default() }
    }

    /// Takes a poisoned lock too. A panic of the service closes the connection, and `close` takes the session out,
    /// so the next connection in this slot finds none.
    fn session(&self, slot: usize) -> MutexGuard<'_, Option<S::Session>> {
        self.sessions[slot].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Service> ErasedService for WithSessions<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn rename(&mut self, name: &str) {
        self.name = name.to_string();
    }

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
            // The client was admitted after the shutdown began. It gets the notice, and the service never sees it.
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

/// What a service is called unless it is named: its type, without path and parameters.
pub(crate) fn name_of<S>(service: &S) -> String {
    let name = std::any::type_name_of_val(service);
    let name = name.split('<').next().and_then(|path| path.rsplit("::").next()).unwrap_or(name);
    name.to_ascii_lowercase()
}
