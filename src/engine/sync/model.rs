//! What a model has in place of the system's events.

use super::{Arc, Condvar, Mutex, lock};

/// An event, as far as a model needs one: a thread raises it, and another waits for it or takes it.
#[derive(Debug)]
pub(in crate::engine) struct Event {
    raised: Mutex<bool>,
    seen: Condvar,
}

impl Event {
    #[cfg(test)]
    pub(in crate::engine) fn new() -> nix::Result<Event> {
        Ok(Event { raised: Mutex::new(false), seen: Condvar::new() })
    }

    pub(in crate::engine) fn raise(&self) {
        *lock(&self.raised) = true;
        self.seen.notify_all();
    }

    #[cfg(test)]
    pub(in crate::engine) fn take(&self) -> u64 {
        std::mem::take(&mut *lock(&self.raised)).into()
    }

    /// Waits until the event is raised, and takes it.
    #[cfg(test)]
    pub(in crate::engine) fn wait(&self) {
        let mut raised = lock(&self.raised);
        while !std::mem::take(&mut *raised) {
            raised = self.seen.wait(raised).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

/// An event of the engine for one of its parts. A model makes its parts by itself, so an engine is only compiled.
pub(in crate::engine) fn share(_: &std::sync::Arc<crate::sys::Event>) -> Arc<Event> {
    unreachable!("no model makes an engine")
}
