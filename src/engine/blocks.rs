//! The memory of all buffers, lent to connections for as long as they have something in them.
//!
//! A connection that is served has a block for its input and one for its output; when it is let go, empty ones
//! come back here, and the one that came back last is lent first. So a silent client costs no buffer, and a
//! server of many clients touches about as many pages as it has workers and unfinished requests. There are two
//! blocks for every slot: none is ever missing.

use bytes::BytesMut;

use super::sync::{Mutex, lock};

#[derive(Debug)]
pub(super) struct Blocks {
    /// Never longer than it was made, so it never allocates.
    free: Mutex<Vec<BytesMut>>,
}

impl Blocks {
    /// Two blocks of `size` bytes for each of `slots`.
    pub(super) fn new(slots: usize, size: usize) -> Blocks {
        // One zeroed allocation: the kernel backs a page of it when a worker first writes there.
        let mut all = BytesMut::zeroed(slots * 2 * size);
        let free = (0..slots * 2).map(|_| all.split_to(size)).collect();
        Blocks { free: Mutex::new(free) }
    }

    /// Fills the places that have no block.
    pub(super) fn lend(&self, places: [&mut BytesMut; 2]) {
        let mut free = lock(&self.free);
        for place in places {
            if place.is_empty() {
                *place = free.pop().unwrap_or_default();
                debug_assert!(!place.is_empty(), "a block is missing");
            }
        }
    }

    pub(super) fn take_back(&self, blocks: [Option<BytesMut>; 2]) {
        let mut free = lock(&self.free);
        free.extend(blocks.into_iter().flatten());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_block_that_came_back_last_is_lent_first() {
        let blocks = Blocks::new(1, 8);
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        blocks.lend([&mut input, &mut output]);
        assert_eq!((input.len(), output.len()), (8, 8));
        input[0] = b'x';
        blocks.take_back([Some(input), None]);
        let mut next = BytesMut::new();
        blocks.lend([&mut next, &mut output]);
        assert_eq!(next[0], b'x');
    }
}
