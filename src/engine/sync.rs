//! The locks and atomics of the model-checked protocols: `std`'s, or loom's under `--cfg loom`.

#[cfg(loom)]
pub(super) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(super) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

/// Reads the value that is last in the order of all SeqCst operations.
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

/// Locks, also after a panic of another holder: every critical section of the engine leaves its data whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
