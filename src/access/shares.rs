//! How many connections each address has, so that none takes more than its share (`--per-client`).
//!
//! Each connection holds a [`Share`] of its address from its admission to its end. The table is made at start for as
//! many addresses as there can be connections. Its hash has a random key: a sender that may choose among addresses
//! cannot choose ones that make the table slow.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::sync::{Mutex, lock};
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
    /// The connections of each address that has some.
    ///
    /// Invariant: at most half of its capacity is used, so it never allocates: what removed entries leave behind is
    /// swept where it stands.
    counts: HashMap<Origin, u16>,
    /// True when a client waits for a share to become free.
    is_awaited: bool,
}

/// One connection's part of what its address may have. Dropping it gives it back, and wakes the accept loop when a
/// client waits for a share.
#[must_use]
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    origin: Origin,
}

impl Shares {
    /// Bytes for each connection that there can be, rounded up: the table may have over four places for it.
    pub(crate) const SIZE: u64 = 128;

    pub(crate) fn new(limit: usize, connections: usize, wake: Arc<Event>) -> Shares {
        // One entry more: where an idle connection makes room for a new client, the client takes its share first.
        let state = State { counts: HashMap::with_capacity(2 * (connections + 1)), is_awaited: false };
        Shares { limit, wake, state: Mutex::new(state) }
    }

    /// Takes a share for one more connection. `None` when the address has all of its shares; the accept loop is woken
    /// when one is given back.
    pub(crate) fn take(self: &Arc<Shares>, address: IpAddr) -> Option<Share> {
        let origin = Origin::from(address);
        let mut state = lock(&self.state);
        let count = state.counts.entry(origin).or_default();
        if usize::from(*count) < self.limit {
            *count += 1;
            return Some(Share { shares: self.clone(), origin });
        }
        state.is_awaited = true;
        None
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = lock(&self.shares.state);
        if let Entry::Occupied(mut entry) = state.counts.entry(self.origin) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        if std::mem::take(&mut state.is_awaited) {
            self.shares.wake.raise();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::is_readable;
    use std::collections::VecDeque;

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
    fn the_budget_covers_the_table() {
        for connections in [1, 100, 128, 447, 448, 16_384] {
            let shares = Shares::new(1, connections, Arc::new(Event::new().unwrap()));
            // A byte beside each place; at most 7 of 8 places are used.
            let places = lock(&shares.state).counts.capacity() * 8 / 7 + 8;
            assert!(places * (size_of::<(Origin, u16)>() + 1) <= (connections + 1) * Shares::SIZE as usize + 512);
        }
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

    /// However clients of ever new addresses come and go, the table stays as it was made.
    #[test]
    fn the_table_never_grows() {
        let shares = Arc::new(Shares::new(1, 100, Arc::new(Event::new().unwrap())));
        let capacity = lock(&shares.state).counts.capacity();
        let mut held = VecDeque::new();
        for number in 0..200_000_u32 {
            let address = IpAddr::from(number.wrapping_mul(0x9e37_79b9).to_be_bytes());
            held.push_back(shares.take(address).unwrap());
            assert!(shares.take(address).is_none());
            // Full most of the time, and half empty now and then.
            let kept = if number % 1_000 == 0 { 50 } else { 100 };
            held.drain(..held.len().saturating_sub(kept));
        }
        // What removed entries leave behind counts as used until it is swept.
        assert!(lock(&shares.state).counts.capacity() <= capacity);
        held.clear();
        assert!(lock(&shares.state).counts.is_empty());
    }
}
