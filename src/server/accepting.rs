//! What the accept loop accepts with: the listeners, the shares of addresses, and the clients that wait for one.

use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heapless::Vec as Fixed;

use super::listener::Listener;
use crate::access::{Origin, ReadyQueue, Share, Shares};
use crate::config::{DEFERRED, Limits, QUEUE_FULL_TIMEOUT};
use crate::connection::Client;
use crate::error::Error;
use crate::sys::{Event, RateLimit, Tick};

/// What the accept loop accepts with.
pub(super) struct Accepting {
    pub(super) listeners: Vec<Listener>,
    /// With a limit per client only.
    shares: Option<Arc<Shares>>,
    /// Clients that wait until their address has fewer connections. When a client closes a connection and opens another
    /// at once, the accept loop may see the new one before a worker, or a child process, sees the close. So a client over
    /// the share waits here, accepted and unserved, until an earlier connection of the address has ended or a short time
    /// is over. The places are few, and fewer for each address; a client that gets none is refused at once.
    pub(super) deferred: Fixed<Pending, DEFERRED>,
    pub(super) queue: ReadyQueue,
    /// Closed to have a descriptor to answer with when there is no other.
    pub(super) reserve: Option<File>,
    pub(super) failure_lines: RateLimit,
    pub(super) refusal_lines: RateLimit,
}

/// An accepted client that waits for a share of its address.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) client: Client,
    pub(super) listener: usize,
    pub(super) until: Tick,
}

impl Accepting {
    /// Accepts for `places` connections at a time. `wake` wakes the accept loop.
    ///
    /// # Errors
    /// When the reserve descriptor cannot be opened.
    pub(super) fn new(
        listeners: Vec<Listener>,
        limits: &Limits,
        places: usize,
        wake: &Arc<Event>,
    ) -> Result<Accepting, Error> {
        let reserve = File::open("/dev/null").map_err(Error::setup("open /dev/null as the reserve descriptor"))?;
        Ok(Accepting {
            listeners,
            shares: limits.per_client.map(|limit| Arc::new(Shares::new(limit, places, wake.clone()))),
            deferred: Fixed::new(),
            queue: ReadyQueue::HasRoom,
            reserve: Some(reserve),
            failure_lines: RateLimit::new(1, Duration::from_secs(1)),
            refusal_lines: RateLimit::new(1, Duration::from_secs(1)),
        })
    }

    /// Closes a child process's copies, which would keep the addresses taken.
    pub(super) fn release(&mut self) {
        self.listeners.clear();
        self.reserve.take();
        self.deferred.clear();
    }

    /// The next time at which the accept loop must come back.
    pub(super) fn deadline(&self, now: Tick) -> Option<Tick> {
        let queue_full_until = match self.queue {
            ReadyQueue::FullSince(since) => Some(since.after(QUEUE_FULL_TIMEOUT)).filter(|tick| !tick.reached(now)),
            ReadyQueue::HasRoom | ReadyQueue::Stuck => None,
        };
        let resumes = self.listeners.iter().map(|listener| listener.resumes);
        // All of these wait equally long, so the first is the first to be due. Clients that have their share wait for a place.
        let for_share = self.deferred.iter().find(|pending| pending.client.share.is_none());
        let deferred_until = for_share.map(|pending| pending.until);
        Tick::earliest(resumes.chain([queue_full_until, deferred_until]))
    }

    /// A share for one more connection of an address; `None` in it where there is no limit.
    pub(super) fn take_share(&self, peer: SocketAddr) -> Result<Option<Share>, AtLimit> {
        match &self.shares {
            None => Ok(None),
            Some(shares) => shares.take(peer.ip()).map(Some).ok_or(AtLimit),
        }
    }

    /// Keeps a client, or hands it back when there is no place, or none for its address.
    pub(super) fn defer(&mut self, pending: Pending) -> Result<(), Pending> {
        let origin = |pending: &Pending| Origin::from(pending.client.peer.ip());
        let of_same = self.deferred.iter().filter(|other| origin(other) == origin(&pending)).count();
        if of_same < DEFERRED / 4 { self.deferred.push(pending) } else { Err(pending) }
    }
}

/// The address has as many connections as it may.
pub(super) struct AtLimit;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Link;
    use crate::sys::Clock;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_address_has_a_quarter_of_the_places() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wake = Arc::new(Event::new().unwrap());
        let mut accepting = Accepting::new(vec![], &Limits::default(), 1, &wake).unwrap();
        let until = Clock.now();
        let places = (0..20).map(|host| {
            let kept = (0..DEFERRED).take_while(|port| {
                let peer = SocketAddr::from(([192, 0, 2, host], *port as u16));
                let link = Link::Socket(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
                let client = Client { share: None, link, peer, service: 0 };
                accepting.defer(Pending { client, listener: 0, until }).is_ok()
            });
            kept.count()
        });
        assert_eq!(places.collect::<Vec<_>>()[..5], [4, 4, 4, 4, 0]);
    }
}
