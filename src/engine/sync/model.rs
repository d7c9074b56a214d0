//! What a model has in place of the system's events.

use super::{Arc, Mutex, lock};

/// An event, as far as a model needs one: a thread raises it, and another takes it.
#[derive(Debug)]
pub(in crate::engine) struct Event {
    raised: Mutex<bool>,
}

impl Event {
    #[cfg(test)]
    pub(in crate::engine) fn new() -> nix::Result<Event> {
        Ok(Event { raised: Mutex::new(false) })
    }

    pub(in crate::engine) fn raise(&self) {
        *lock(&self.raised) = true;
    }

    #[cfg(test)]
    pub(in crate::engine) fn take(&self) -> u64 {
        std::mem::take(&mut *lock(&self.raised)).into()
    }
}

/// An event of the engine for one of its parts. A model makes its parts by itself, so an engine is only compiled.
pub(in crate::engine) fn share(_: &std::sync::Arc<crate::sys::Event>) -> Arc<Event> {
    unreachable!("no model makes an engine")
}
