//! Locks, atomics and threads: the system's, or under `--cfg simulation` ones whose every step a seed chooses.
//!
//! Code that runs beside other threads takes them from here. What no other thread waits for and what orders no other
//! memory, as a counter, may stay with std.

#[cfg(simulation)]
pub(crate) use shuttle::{
    sync::{Barrier, Condvar, Mutex, MutexGuard, atomic},
    thread,
};
#[cfg(not(simulation))]
#[cfg_attr(loom, allow(unused_imports))] // The engine has loom's.
pub(crate) use std::{
    sync::{Barrier, Condvar, Mutex, MutexGuard, atomic},
    thread,
};

#[cfg(not(simulation))]
pub(crate) use ::threadpool;

/// Locks, also after a panic of another holder: every critical section of the crate leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// In place of the crate of that name, whose threads no seed can schedule.
#[cfg(simulation)]
pub(crate) mod threadpool {
    #[derive(Debug)]
    pub(crate) struct ThreadPool;

    #[derive(Debug)]
    pub(crate) struct Builder;

    impl Builder {
        pub(crate) fn new() -> Builder {
            Builder
        }

        pub(crate) fn num_threads(self, _: usize) -> Builder {
            self
        }

        pub(crate) fn thread_name(self, _: String) -> Builder {
            self
        }

        pub(crate) fn thread_stack_size(self, _: usize) -> Builder {
            self
        }

        pub(crate) fn build(self) -> ThreadPool {
            ThreadPool
        }
    }

    impl ThreadPool {
        pub(crate) fn execute(&self, job: impl FnOnce() + Send + 'static) {
            shuttle::thread::spawn(job);
        }
    }
}
