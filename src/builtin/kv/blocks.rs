//! Chains of fixed blocks of bytes, in which the store keeps its keys and values.
//!
//! A text comes in and takes as many blocks as it needs, wherever they lie. So the store never has to compact its
//! memory, and writing or removing a text costs time by its length only. The caller keeps the number of the first block
//! and the text's length; the link of the last block has no meaning.

use std::io;

use crate::error::Error;

/// Bytes of text in a block. With its link that is 32, half a cache line on most machines.
const BLOCK: usize = 28;

#[derive(Debug)]
pub(super) struct Blocks {
    bytes: Box<[[u8; BLOCK]]>,
    /// For each block, the next one in its chain or in the list of released blocks.
    links: Box<[u32]>,
    /// The first block in the list of released ones.
    released: u32,
    /// The length of that list.
    free: usize,
    /// Invariant: no block from this one on was ever used.
    fresh: usize,
}

/// The number of blocks that hold `bytes` in up to `texts` texts, however the bytes are divided. A text of n bytes,
/// n > 0, takes (n - 1) / BLOCK + 1 blocks, and the first terms add up to no more than `bytes` / BLOCK.
pub(super) fn blocks_for(texts: usize, bytes: usize) -> usize {
    bytes / BLOCK + texts
}

/// Allocates a block of fixed size, and writes all of it. The kernel then assigns every page now, so a machine that
/// lacks the memory shows it at start, not during a request.
pub(super) fn zeroed<T: Clone>(count: usize, zero: T) -> Result<Box<[T]>, Error> {
    let mut memory = Vec::new();
    let reserved = memory.try_reserve_exact(count).map_err(|_| io::ErrorKind::OutOfMemory);
    reserved.map_err(Error::setup("allocate the kv store"))?;
    memory.resize(count, zero);
    Ok(memory.into_boxed_slice())
}

impl Blocks {
    /// Bytes that each block takes.
    pub(super) const SIZE: usize = BLOCK + size_of::<u32>();

    pub(super) fn new(count: usize) -> Result<Blocks, Error> {
        Ok(Blocks { bytes: zeroed(count, [0; BLOCK])?, links: zeroed(count, 0)?, released: 0, free: 0, fresh: 0 })
    }

    /// Writes a text made of two parts, and returns its first block. The caller guarantees that enough blocks are free
    /// and that the text is not empty.
    pub(super) fn write(&mut self, parts: [&[u8]; 2]) -> u32 {
        let first = self.take();
        let (mut block, mut used) = (first, 0);
        for mut part in parts {
            while !part.is_empty() {
                if used == BLOCK {
                    let next = self.take();
                    self.links[block as usize] = next;
                    (block, used) = (next, 0);
                }
                let (now, later) = part.split_at(part.len().min(BLOCK - used));
                self.bytes[block as usize][used..used + now.len()].copy_from_slice(now);
                used += now.len();
                part = later;
            }
        }
        first
    }

    /// The bytes `skip..length` of a text, in pieces.
    pub(super) fn read(&self, first: u32, skip: usize, length: usize) -> impl Iterator<Item = &[u8]> {
        let mut block = first;
        (0..length.div_ceil(BLOCK)).filter_map(move |index| {
            let start = index * BLOCK;
            let text = &self.bytes[block as usize][..BLOCK.min(length - start)];
            block = self.links[block as usize];
            text.get(skip.saturating_sub(start)..).filter(|piece| !piece.is_empty())
        })
    }

    /// Releases the blocks of a text.
    pub(super) fn release(&mut self, first: u32, length: usize) {
        let count = length.div_ceil(BLOCK);
        let last = (1..count).fold(first, |block, _| self.links[block as usize]);
        self.links[last as usize] = self.released;
        self.released = first;
        self.free += count;
    }

    /// How many blocks hold no text.
    #[cfg(test)]
    pub(super) fn unused(&self) -> usize {
        self.bytes.len() - self.fresh + self.free
    }

    fn take(&mut self) -> u32 {
        if self.free == 0 {
            debug_assert!(self.fresh < self.bytes.len(), "the caller guarantees a free block");
            self.fresh += 1;
            return (self.fresh - 1) as u32;
        }
        let block = self.released;
        self.released = self.links[block as usize];
        self.free -= 1;
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(blocks: &Blocks, first: u32, skip: usize, length: usize) -> Vec<u8> {
        blocks.read(first, skip, length).collect::<Vec<_>>().concat()
    }

    #[test]
    fn texts_of_every_length_are_read_from_anywhere() {
        // Miri takes minutes for more.
        let text: Vec<u8> = (0..if cfg!(miri) { 60 } else { 100 }).collect();
        for length in 1..text.len() {
            let mut blocks = Blocks::new(4).unwrap();
            let cut = length / 3;
            let first = blocks.write([&text[..cut], &text[cut..length]]);
            for skip in 0..=length {
                assert_eq!(read(&blocks, first, skip, length), &text[skip..length]);
            }
            assert_eq!(blocks.unused(), 4 - length.div_ceil(BLOCK));
            blocks.release(first, length);
            assert_eq!(blocks.unused(), 4);
        }
    }

    #[test]
    fn blocks_that_lie_apart_hold_a_long_text() {
        let mut blocks = Blocks::new(8).unwrap();
        let short: Vec<u32> = (0..8).map(|byte| blocks.write([&[byte], b""])).collect();
        [1, 6, 3].into_iter().for_each(|index| blocks.release(short[index], 1));
        let long = [7; 3 * BLOCK];
        let first = blocks.write([b"", &long]);
        assert_eq!((read(&blocks, first, 0, long.len()), blocks.unused()), (long.to_vec(), 0));
        for index in [0, 2, 4, 5, 7] {
            assert_eq!(read(&blocks, short[index], 0, 1), [index as u8]);
        }
    }
}
