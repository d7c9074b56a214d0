//! The allocation of the store's tables, at start.

use std::io;

use crate::error::Error;

/// Allocates a block of fixed size, and writes all of it. The kernel then assigns every page now, so a machine that
/// lacks the memory shows it at start, not during a request.
pub(super) fn zeroed<T: Clone>(count: usize, zero: T) -> Result<Box<[T]>, Error> {
    let mut memory = Vec::new();
    let reserved = memory.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory);
    reserved.map_err(Error::setup("allocate the kv store"))?;
    memory.resize(count, zero);
    Ok(memory.into_boxed_slice())
}
