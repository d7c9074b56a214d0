//! The store: a map from keys to values with a limit on entries and one on bytes, which all clients share.
//!
//! Keys and values come in as bytes, without any protocol. An open-addressing table finds an entry by its key's hash,
//! and [`Blocks`] has the bytes. A random seed keys the hash, because a client could otherwise choose keys that collide
//! and make every search slow. The store allocates everything in [`Store::new`], and must not allocate after.

use std::hash::{BuildHasher, RandomState};
use std::sync::{PoisonError, RwLock};

use super::blocks::{Blocks, blocks_for, zeroed};
use crate::config::{KV_BYTES, KV_ENTRIES, check_range};
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Store {
    seed: RandomState,
    /// The most entries, and the most bytes of all keys and values.
    entries: usize,
    bytes: usize,
    table: RwLock<Table>,
}

/// The value does not fit. The store has not changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A value in a store that is locked for reading.
pub(super) struct Value<'a> {
    blocks: &'a Blocks,
    cell: Cell,
}

#[derive(Debug)]
struct Table {
    /// Invariant: at most half of the cells are taken, and no free cell lies between a key's home (the cell that its
    /// hash selects) and the cell that has the key.
    cells: Box<[Cell]>,
    blocks: Blocks,
    entries: usize,
    /// Bytes of all keys and values.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    hash: u32,
    block: u32,
    /// Bytes of the key, which is the start of the text. 0 in a free cell.
    key: u32,
    /// Bytes of key and value.
    text: u32,
}

impl Store {
    /// # Errors
    /// [`Error::Limit`] for a capacity out of range, [`Error::Setup`] when there is not enough memory.
    pub(super) fn new(entries: usize, bytes: usize) -> Result<Store, Error> {
        check_range("kv-entries", entries, KV_ENTRIES)?;
        check_range("kv-bytes", bytes, KV_BYTES)?;
        let table = Table {
            cells: zeroed(cells_for(entries), Cell::default())?,
            blocks: Blocks::new(blocks_for(entries, bytes))?,
            entries: 0,
            bytes: 0,
        };
        Ok(Store { seed: RandomState::new(), entries, bytes, table: RwLock::new(table) })
    }

    /// Bytes that the store allocated.
    pub(super) fn memory(&self) -> usize {
        cells_for(self.entries) * size_of::<Cell>() + blocks_for(self.entries, self.bytes) * Blocks::SIZE
    }

    /// Calls `see` with the key's value. No thread can write to the store until `see` returns.
    pub(super) fn get<T>(&self, key: &[u8], see: impl FnOnce(Option<Value<'_>>) -> T) -> T {
        let hash = self.hash(key);
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        see(table.find(hash, key).ok().map(|at| Value { blocks: &table.blocks, cell: table.cells[at] }))
    }

    /// Stores a value, and removes the key's old one. The key must not be empty.
    pub(super) fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Full> {
        let hash = self.hash(key);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let found = table.find(hash, key);
        let old = found.map_or(0, |at| table.cells[at].text as usize);
        let new = key.len() + value.len();
        // `old` is part of `table.bytes`, which never exceeds `self.bytes`, so neither difference can underflow.
        if new > self.bytes - (table.bytes - old) || (found.is_err() && table.entries == self.entries) {
            return Err(Full);
        }
        match found {
            Ok(at) => table.release(at),
            Err(_) => table.entries += 1,
        }
        let (Ok(at) | Err(at)) = found;
        table.bytes = table.bytes - old + new;
        let block = table.blocks.write([key, value]);
        // Both lengths are at most KV_BYTES, which is far below 2^32.
        table.cells[at] = Cell { hash, block, key: key.len() as u32, text: new as u32 };
        Ok(())
    }

    /// Removes a key and its value. False when the store has no such key.
    pub(super) fn delete(&self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.find(hash, key).map(|at| table.remove(at)).is_ok()
    }

    fn hash(&self, key: &[u8]) -> u32 {
        self.seed.hash_one(key) as u32
    }
}

impl Value<'_> {
    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        (self.cell.text - self.cell.key) as usize
    }

    /// Its bytes, in pieces.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.read(self.cell.block, self.cell.key as usize, self.cell.text as usize)
    }
}

impl Table {
    /// The cell that has the key, or `Err` with the free cell where the key belongs.
    fn find(&self, hash: u32, key: &[u8]) -> Result<usize, usize> {
        let mut at = self.home(hash);
        while self.cells[at].key != 0 {
            if self.cells[at].hash == hash && self.has_key(self.cells[at], key) {
                return Ok(at);
            }
            at = self.next(at);
        }
        Err(at)
    }

    fn has_key(&self, cell: Cell, key: &[u8]) -> bool {
        let mut rest = key;
        let mut pieces = self.blocks.read(cell.block, 0, cell.key as usize);
        pieces.all(|piece| rest.strip_prefix(piece).map(|tail| rest = tail).is_some()) && rest.is_empty()
    }

    fn remove(&mut self, at: usize) {
        self.release(at);
        self.entries -= 1;
        self.bytes -= self.cells[at].text as usize;
        // A search ends at a free cell. So each later entry whose search passes this cell moves up into it.
        let (mut hole, mut at) = (at, self.next(at));
        while self.cells[at].key != 0 {
            let home = self.home(self.cells[at].hash);
            if self.distance(home, at) >= self.distance(hole, at) {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.cells[hole] = Cell::default();
    }

    /// Releases the blocks of a cell's text.
    fn release(&mut self, at: usize) {
        let Cell { block, text, .. } = self.cells[at];
        self.blocks.release(block, text as usize);
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.cells.len() - 1)
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }

    /// The number of steps of [`next`](Table::next) from one cell to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.cells.len() - 1)
    }
}

/// The table's size, a power of two: the low bits of a hash then select a cell, without a division.
fn cells_for(entries: usize) -> usize {
    (entries * 2).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn value(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
        store.get(key, |value| {
            let bytes = value.map(|value| (value.len(), value.pieces().collect::<Vec<_>>().concat()));
            bytes.map(|(length, bytes)| {
                assert_eq!(length, bytes.len());
                bytes
            })
        })
    }

    /// Every invariant that is written on [`Table`].
    fn check(store: &Store) {
        let table = store.table.read().unwrap();
        let taken: Vec<usize> = (0..table.cells.len()).filter(|at| table.cells[*at].key != 0).collect();
        assert_eq!(taken.len(), table.entries);
        assert!(table.entries <= store.entries && table.bytes <= store.bytes);
        assert_eq!(taken.iter().map(|at| table.cells[*at].text as usize).sum::<usize>(), table.bytes);
        let blocks: usize = taken.iter().map(|at| blocks_for(1, table.cells[*at].text as usize - 1)).sum();
        assert_eq!(table.blocks.unused(), blocks_for(store.entries, store.bytes) - blocks);
        for at in taken {
            let mut between = table.home(table.cells[at].hash);
            while between != at {
                assert_ne!(table.cells[between].key, 0, "a search would end too early");
                between = table.next(between);
            }
        }
    }

    /// A small linear congruential generator (Knuth's MMIX constants).
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % end
        }
    }

    #[test]
    fn it_does_what_a_map_with_two_limits_does() {
        for (seed, entries, bytes, keys) in
            [(1, 8, 4_096, 12), (2, 64, 512, 80), (3, 100, 2_000, 100), (4, 1, 64, 3), (5, 37, 1_500, 60)]
        {
            let store = Store::new(entries, bytes).unwrap();
            let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
            let mut random = Random(seed);
            let mut full = 0;
            for step in 0..20_000 {
                let number = random.below(keys);
                let key = format!("{number}-{}", "k".repeat(number % 40)).into_bytes();
                match random.below(8) {
                    0..4 => {
                        let longest = [4, 40, 400][random.below(3)];
                        let text = vec![step as u8; random.below(longest)];
                        let used: usize = model.iter().map(|(key, value)| key.len() + value.len()).sum();
                        let old = model.get(&key).map(|value| key.len() + value.len());
                        let fits = used - old.unwrap_or(0) + key.len() + text.len() <= bytes
                            && (old.is_some() || model.len() < entries);
                        assert_eq!(store.set(&key, &text).is_ok(), fits);
                        full += usize::from(!fits);
                        if fits {
                            model.insert(key, text);
                        }
                    }
                    4..6 => assert_eq!(store.delete(&key), model.remove(&key).is_some()),
                    _ => assert_eq!(value(&store, &key), model.get(&key).cloned()),
                }
                if step % 16 == 0 {
                    check(&store);
                }
            }
            assert!(full > 100, "the limits were met: {full}");
            model.iter().for_each(|(key, text)| assert_eq!(value(&store, key).as_ref(), Some(text)));
        }
    }

    #[test]
    fn all_of_both_capacities_can_be_used_in_any_shape() {
        for length in 1..150 {
            let store = Store::new(64, 64 * 150).unwrap();
            let keys: Vec<[u8; 1]> = (0..64).map(|key| [key]).collect();
            for round in 0..3 {
                keys.iter().for_each(|key| store.set(key, &vec![round; length - 1]).unwrap());
            }
            assert_eq!(store.set(b"another", b""), Err(Full));
            // One value takes all bytes that are left. The store then refuses one more byte.
            let rest = 64 * 150 - 64 * length;
            store.set(&keys[0], &vec![9; length - 1 + rest]).unwrap();
            assert_eq!(store.set(&keys[1], &vec![8; length]), Err(Full));
            assert_eq!(value(&store, &keys[1]), Some(vec![2; length - 1]), "the old value is kept");
            check(&store);
            assert!(keys.iter().all(|key| store.delete(key)));
            store.set(b"k", &vec![7; 64 * 150 - 1]).unwrap();
            check(&store);
        }
    }

    #[test]
    fn keys_whose_hashes_collide_are_told_apart() {
        let store = Store::new(8, 1_024).unwrap();
        let key = [b'k'; 60];
        store.set(&key, b"value").unwrap();
        let table = store.table.read().unwrap();
        let hash = store.hash(&key);
        assert!(table.find(hash, &key).is_ok());
        for other in [&key[..59], &key[..28], &[b'k'; 61], &[b'x'; 60], b"k", b""] {
            assert!(table.find(hash, other).is_err());
        }
    }

    #[test]
    fn a_capacity_out_of_range_is_named_with_its_range() {
        for (entries, bytes, text) in [
            (0, 64, "kv-entries 0 is out of range; choose 1 to 1048576"),
            (1_048_577, 64, "kv-entries 1048577 is out of range; choose 1 to 1048576"),
            (1, 67_108_865, "kv-bytes 67108865 is out of range; choose 64 to 67108864"),
            (1, 63, "kv-bytes 63 is out of range; choose 64 to 67108864"),
        ] {
            assert_eq!(Store::new(entries, bytes).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn its_memory_is_what_it_says() {
        let store = Store::new(1_000, 65_536).unwrap();
        let table = store.table.read().unwrap();
        let blocks = table.blocks.unused() * 32;
        assert_eq!(store.memory(), size_of_val(&*table.cells) + blocks);
    }
}
