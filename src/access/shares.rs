//! How many connections each address has, so that none takes more than its share (`--per-client`).
//!
//! Each connection holds a [`Share`] of its address from its admission to its end. The table is made at start for as
//! many addresses as there can be connections. It is hashed with a random key: a sender that may choose among
//! addresses cannot choose ones that make the table slow.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::sys::Event;

/// The address that a connection counts against: one of IPv4, or the first 64 bits of one of IPv6, because a customer
/// or a host may use all addresses that begin so (RFC 6177; RFC 8981).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    V4(Ipv4Addr),
    V6(u64),
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        // An IPv4 client of a socket for both families is the same client (RFC 4291, 2.5.5.2).
        match address.to_canonical() {
            IpAddr::V4(address) => Origin::V4(address),
            IpAddr::V6(address) => Origin::V6((address.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::V4(address) => write!(f, "{address}"),
            Origin::V6(prefix) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*prefix) << 64)),
        }
    }
}

/// The shares of a running server.
#[derive(Debug)]
pub(crate) struct Shares {
    limit: usize,
    /// Wakes the accept loop.
    wake: Arc<Event>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    /// True when a client waits for a share to become free.
    is_awaited: bool,
}

/// One connection's part of what its address may have. Dropping it gives it back, and wakes the accept loop when a
/// client waits for a share.
#[must_use]
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    /// The entry of its address, which stays while the address has a share.
    entry: u16,
}

impl Shares {
    /// Bytes for each connection that there can be, rounded up.
    pub(crate) const SIZE: u64 = 32;

    pub(crate) fn new(limit: usize, connections: usize, wake: Arc<Event>) -> Shares {
        // One entry more: where an idle connection makes room for a new client, the client takes its share first.
        let state = State { table: Table::new(connections + 1), is_awaited: false };
        Shares { limit, wake, state: Mutex::new(state) }
    }

    /// Takes a share for one more connection. `None` when the address has all of its shares; the accept loop is woken
    /// when one is given back.
    pub(crate) fn take(self: &Arc<Shares>, address: IpAddr) -> Option<Share> {
        let origin = Origin::from(address);
        let mut state = self.state();
        let entry = state.table.add(origin, self.limit);
        state.is_awaited |= entry.is_none();
        Some(Share { shares: self.clone(), entry: entry? })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.shares.state();
        state.table.remove(self.entry);
        if std::mem::take(&mut state.is_awaited) {
            self.shares.wake.raise();
        }
    }
}

/// No entry.
const NONE: u16 = u16::MAX;

/// Counts by address: chains of entries, one chain per hash.
#[derive(Debug)]
struct Table {
    /// Invariant: a power of two of them, each the first entry of a chain, or NONE.
    heads: Box<[u16]>,
    /// Invariant: each is in one chain, its count being positive, or in that of the free ones.
    entries: Box<[Entry]>,
    free: u16,
    key: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    origin: Origin,
    count: u16,
    next: u16,
}

impl Table {
    fn new(addresses: usize) -> Table {
        debug_assert!(addresses < usize::from(NONE));
        let next = |index| if index + 1 == addresses { NONE } else { index as u16 + 1 };
        let entry = |index| Entry { origin: Origin::V6(0), count: 0, next: next(index) };
        Table {
            heads: vec![NONE; addresses.next_power_of_two()].into(),
            entries: (0..addresses).map(entry).collect(),
            free: 0,
            key: RandomState::new(),
        }
    }

    fn chain(&self, origin: Origin) -> usize {
        self.key.hash_one(origin) as usize & (self.heads.len() - 1)
    }

    fn entry(&mut self, index: u16) -> &mut Entry {
        &mut self.entries[usize::from(index)]
    }

    /// The entry of an address, if it has one, and the one before it in its chain.
    fn find(&self, chain: usize, origin: Origin) -> (u16, u16) {
        let (mut before, mut index) = (NONE, self.heads[chain]);
        while index != NONE && self.entries[usize::from(index)].origin != origin {
            (before, index) = (index, self.entries[usize::from(index)].next);
        }
        (before, index)
    }

    /// Adds one to an address that has less than `limit`. Returns its entry.
    fn add(&mut self, origin: Origin, limit: usize) -> Option<u16> {
        let chain = self.chain(origin);
        let (_, found) = self.find(chain, origin);
        if found != NONE {
            let entry = self.entry(found);
            let fits = usize::from(entry.count) < limit;
            entry.count += u16::from(fits);
            return fits.then_some(found);
        }
        let index = self.free;
        debug_assert_ne!(index, NONE, "more addresses than connections");
        if index == NONE {
            return None;
        }
        let first = std::mem::replace(&mut self.heads[chain], index);
        self.free = std::mem::replace(self.entry(index), Entry { origin, count: 1, next: first }).next;
        Some(index)
    }

    /// Takes one from the address with this entry.
    fn remove(&mut self, index: u16) {
        let entry = self.entry(index);
        entry.count -= 1;
        if entry.count == 0 {
            let origin = entry.origin;
            let chain = self.chain(origin);
            let (before, _) = self.find(chain, origin);
            let free = self.free;
            let next = std::mem::replace(&mut self.entry(index).next, free);
            self.free = index;
            match before {
                NONE => self.heads[chain] = next,
                before => self.entry(before).next = next,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::is_readable;
    use std::collections::HashMap;

    fn origin(text: &str) -> Origin {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
        assert_ne!(origin("::"), origin("0.0.0.0"));
        assert_eq!(origin("192.0.2.1").to_string(), "192.0.2.1");
        assert_eq!(origin("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn the_budget_covers_an_entry_and_its_share_of_heads() {
        assert!(size_of::<Entry>() + 2 * size_of::<u16>() <= Shares::SIZE as usize);
    }

    #[test]
    fn a_full_share_is_refused_until_one_is_given_back() {
        let wake = Arc::new(Event::new().unwrap());
        let shares = Arc::new(Shares::new(2, 4, wake.clone()));
        let take = |text: &str| shares.take(text.parse().unwrap());
        let (first, second, other) = (take("192.0.2.1").unwrap(), take("192.0.2.1").unwrap(), take("2001:db8::1"));
        drop(other);
        assert!(!is_readable(&*wake), "no client waits");
        assert!(take("192.0.2.1").is_none());
        drop(first);
        assert_eq!(wake.take(), 1, "the accept loop is woken once");
        let again = take("192.0.2.1");
        assert!(again.is_some());
        drop((second, again));
        assert!(!is_readable(&*wake));
    }

    /// Any sequence of arrivals and departures, of up to as many addresses as there is room for, has the outcomes
    /// that a map and plain counting give; chains of several entries included.
    #[test]
    fn the_table_counts_as_a_map_does() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        for addresses in [1, 2, 3, 8, 33] {
            let (mut table, mut model) = (Table::new(addresses), HashMap::<Origin, usize>::new());
            let mut entries = HashMap::new();
            for _ in 0..20_000 {
                let number = random(addresses as u64 * 2);
                let origin = if number % 2 == 0 { Origin::V6(number) } else { Origin::V4((number as u32).into()) };
                let count = model.get(&origin).copied().unwrap_or(0);
                if random(3) > 0 && (count > 0 || model.len() < addresses) {
                    let entry = table.add(origin, 3);
                    assert_eq!(entry.is_some(), count < 3);
                    entries.extend(entry.map(|entry| (origin, entry)));
                    model.insert(origin, (count + 1).min(3));
                } else if count > 0 {
                    table.remove(entries[&origin]);
                    model.insert(origin, count - 1);
                    model.retain(|_, count| *count > 0);
                }
            }
            for (origin, count) in model {
                (0..count).for_each(|_| table.remove(entries[&origin]));
            }
            // Everything is free again: as many new ones find room.
            assert!((0..addresses as u64).all(|number| table.add(Origin::V6(1_000 + number), 1).is_some()));
        }
    }
}
