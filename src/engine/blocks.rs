//! The memory of all buffers, lent to connections for as long as they have something in them.
//!
//! Each thread that drives connections keeps a spare pair, which it lends to the connection at hand and takes back
//! after its turn. Only a connection that keeps something in a buffer keeps the memory too; its thread then takes other
//! memory from the pool here. So a silent client costs no buffer, and a server of many clients touches about as many
//! pages as it has workers and unfinished requests.

use bytes::BytesMut;

use super::sync::{Mutex, lock};
use crate::connection::Connection;

/// The blocks that no thread and no connection has.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Never longer than it was made, so it never allocates.
    free: Mutex<Vec<BytesMut>>,
    size: usize,
}

/// The pair of one thread: a block for input and one for output, each empty while a connection has it.
#[derive(Debug, Default)]
pub(super) struct SparePair([BytesMut; 2]);

/// Pairs of blocks for so many connections, so that none is ever missing: each connection may keep one, and each worker
/// and the accept loop has one. A process that serves a single connection lends it the only one.
pub(crate) fn block_pairs(workers: usize, connections: usize) -> usize {
    if workers == 0 { connections } else { connections + workers + 1 }
}

impl Blocks {
    /// That many pairs of blocks of `size` bytes.
    pub(super) fn new(pairs: usize, size: usize) -> Blocks {
        // One zeroed allocation: the kernel backs a page of it when a worker first writes there.
        let mut all = BytesMut::zeroed(pairs * 2 * size);
        let free = (0..pairs * 2).map(|_| all.split_to(size)).collect();
        Blocks { free: Mutex::new(free), size }
    }

    /// Lends memory to the buffers that have none.
    pub(super) fn lend(&self, connection: &mut Connection, spare: &mut SparePair) {
        for (place, spare) in connection.blocks().into_iter().zip(&mut spare.0) {
            if place.is_empty() {
                std::mem::swap(place, spare);
            }
            if place.is_empty() {
                // The pool lacks a block only after a panic of the engine itself, which drops a connection with its own.
                *place = lock(&self.free).pop().unwrap_or_else(|| BytesMut::zeroed(self.size));
            }
        }
    }

    /// Takes back the memory of the buffers that are empty.
    pub(super) fn take_back(&self, connection: &mut Connection, spare: &mut SparePair) {
        for (block, spare) in connection.take_empty_blocks().into_iter().zip(&mut spare.0) {
            if spare.is_empty() {
                *spare = block;
            } else if !block.is_empty() {
                lock(&self.free).push(block);
            }
        }
    }
}
