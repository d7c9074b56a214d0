//! The locks, atomics and events of the model-checked protocols: the crate's, or loom's under `--cfg loom`.

#[cfg(loom)]
mod model;

#[cfg(not(loom))]
pub(super) use crate::sync::{Condvar, Mutex, MutexGuard, atomic, lock};
#[cfg(loom)]
pub(super) use loom::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(super) use std::sync::Arc;

#[cfg(not(loom))]
pub(super) use crate::sys::Event;
use atomic::Ordering::SeqCst;
#[cfg(loom)]
pub(super) use model::{Event, share};

/// An event of the engine for one of its parts.
#[cfg(not(loom))]
pub(super) fn share(event: &Arc<Event>) -> Arc<Event> {
    event.clone()
}

/// As the crate's.
#[cfg(loom)]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Reads what is the last value in the order of all SeqCst operations.
pub(super) fn latest(atomic: &atomic::AtomicU32) -> u32 {
    // Loom takes a SeqCst load for an Acquire one, which may read an older value. A read-modify-write may not.
    if cfg!(loom) { atomic.fetch_or(0, SeqCst) } else { atomic.load(SeqCst) }
}

/// Writes a value that takes its place in the order of all SeqCst operations.
pub(super) fn publish(atomic: &atomic::AtomicU32, value: u32) {
    // As above, for a store.
    if cfg!(loom) { _ = atomic.swap(value, SeqCst) } else { atomic.store(value, SeqCst) }
}
