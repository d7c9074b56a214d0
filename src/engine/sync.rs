//! The locks, atomics and events of the model-checked protocols: the system's, or loom's under `--cfg loom`.

#[cfg(loom)]
pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};

#[cfg(not(loom))]
pub(super) use crate::sys::Event;

/// Locks, also after a panic of another holder: every critical section of the engine leaves its data whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An event of the engine for one of its parts.
#[cfg(not(loom))]
pub(super) fn share(event: &Arc<Event>) -> Arc<Event> {
    event.clone()
}

/// A model makes its parts by itself, so an engine is only compiled.
#[cfg(loom)]
pub(super) fn share(_: &std::sync::Arc<crate::sys::Event>) -> Arc<Event> {
    unreachable!("no model makes an engine")
}

/// An event, as far as a model needs one: a thread raises it, and another waits for it or takes it.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct Event {
    raised: Mutex<bool>,
    seen: Condvar,
}

#[cfg(loom)]
impl Event {
    pub(super) fn new() -> nix::Result<Event> {
        Ok(Event { raised: Mutex::new(false), seen: Condvar::new() })
    }

    pub(super) fn raise(&self) {
        *lock(&self.raised) = true;
        self.seen.notify_all();
    }

    #[cfg(test)]
    pub(super) fn take(&self) -> u64 {
        std::mem::take(&mut *lock(&self.raised)).into()
    }

    /// Waits until the event is raised, and takes it.
    #[cfg(test)]
    pub(super) fn wait(&self) {
        let mut raised = lock(&self.raised);
        while !std::mem::take(&mut *raised) {
            raised = self.seen.wait(raised).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }
}

/// Reads what is the last value in the order of all SeqCst operations.
#[cfg(not(loom))]
pub(super) fn latest(atomic: &atomic::AtomicU32) -> u32 {
    atomic.load(atomic::Ordering::SeqCst)
}

/// Writes a value that takes its place in the order of all SeqCst operations.
#[cfg(not(loom))]
pub(super) fn publish(atomic: &atomic::AtomicU32, value: u32) {
    atomic.store(value, atomic::Ordering::SeqCst);
}

/// Loom takes a SeqCst load for an Acquire one, which may read an older value. A read-modify-write may not.
#[cfg(loom)]
pub(super) fn latest(atomic: &atomic::AtomicU32) -> u32 {
    atomic.fetch_or(0, atomic::Ordering::SeqCst)
}

/// As above, for a store.
#[cfg(loom)]
pub(super) fn publish(atomic: &atomic::AtomicU32, value: u32) {
    atomic.swap(value, atomic::Ordering::SeqCst);
}
