//! Keeps the multicast groups joined while interfaces come late, go, and come back.
//!
//! The accept loop reports that the network has changed, and calls again at the deadline; every group is then joined
//! anew. A new membership stands before the old one is closed, so the server misses no datagram in between. Time
//! alone causes a new join only after an error that no change of the network would end, or without a netlink socket.
//! While neither is the case, nothing here wakes the accept loop.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

use super::group::Group;
use crate::config::{JOIN_RETRY, LINKS_SETTLE};
use crate::log::{Text, info, warn};
use crate::sys::Tick;

/// Messages of netlink that are read at once, so that an endless stream of them does not keep the accept loop. The
/// socket stays readable while more are there.
const MESSAGES: usize = 256;

#[derive(Debug)]
pub(crate) struct Memberships {
    /// Becomes readable when an interface, an address or a route of the machine changes (rtnetlink(7)). `None` when the
    /// kernel reports no changes, or no group needs them.
    netlink: Option<OwnedFd>,
    all: Vec<Membership>,
    /// The network has changed, and the groups are joined anew at this time.
    rejoin_at: Option<Tick>,
    /// A group could not be joined, and is tried again at this time.
    retry_at: Option<Tick>,
    /// The wait after the next failure.
    backoff: Duration,
}

#[derive(Debug)]
struct Membership {
    group: Group,
    /// The kernel keeps the membership until this socket is closed.
    socket: Option<UdpSocket>,
    /// True while the last line in the log says that the group is not joined.
    reported: bool,
}

impl Memberships {
    pub(crate) fn new(groups: Vec<Group>) -> Memberships {
        let all = groups.into_iter().map(|group| Membership { group, socket: None, reported: false }).collect();
        Memberships { netlink: None, all, rejoin_at: None, retry_at: None, backoff: JOIN_RETRY.0 }
    }

    /// Joins every group that can be joined now.
    pub(crate) fn start(&mut self, now: Tick) {
        if self.all.is_empty() {
            return;
        }
        // The socket is opened before the first join, so that it reports every change after that join.
        match open_netlink() {
            Ok(netlink) => self.netlink = Some(netlink),
            Err(error) => warn!("No news of network interfaces ({}): groups are retried by time", Text(&error)),
        }
        self.join_all(now);
    }

    /// The descriptor that becomes readable when the network changes. `None` from [`note_change`] to the new join: an
    /// interface that comes up causes many messages, and one join serves all of them.
    ///
    /// [`note_change`]: Memberships::note_change
    pub(crate) fn change_fd(&self) -> Option<BorrowedFd<'_>> {
        self.netlink.as_ref().filter(|_| self.rejoin_at.is_none()).map(AsFd::as_fd)
    }

    /// The network has changed.
    pub(crate) fn note_change(&mut self, now: Tick) {
        self.rejoin_at = Some(now.after(LINKS_SETTLE));
    }

    /// When to call [`rejoin_if_due`](Memberships::rejoin_if_due) next.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        Tick::earliest([self.rejoin_at, self.retry_at])
    }

    /// Joins every group anew if a deadline has passed.
    pub(crate) fn rejoin_if_due(&mut self, now: Tick) {
        if self.rejoin_at.is_some_and(|tick| tick.reached(now)) {
            self.rejoin_at = None;
            // The messages are discarded before the join, so that a change during the join makes the socket readable.
            if let Some(Err(error)) = self.netlink.as_ref().map(discard_messages) {
                warn!("No more news of network interfaces ({}): groups are retried by time", Text(&error));
                self.netlink = None;
            }
            self.backoff = JOIN_RETRY.0;
            self.join_all(now);
        } else if self.retry_at.is_some_and(|tick| tick.reached(now)) {
            self.join_all(now);
        }
    }

    fn join_all(&mut self, now: Tick) {
        let mut retry = false;
        for membership in &mut self.all {
            if let Err(error) = membership.join() {
                retry |= self.netlink.is_none() || !lacks_interface(&error);
            }
        }
        self.retry_at = retry.then(|| now.after(self.backoff));
        self.backoff = if retry { (self.backoff * 2).min(JOIN_RETRY.1) } else { JOIN_RETRY.0 };
    }
}

impl Membership {
    fn join(&mut self) -> io::Result<()> {
        match self.group.join() {
            Ok(socket) => {
                if self.reported {
                    info!("Joined {}", Text(&self.group));
                }
                (self.socket, self.reported) = (Some(socket), false);
                Ok(())
            }
            Err(error) => {
                if !self.reported {
                    warn!("Cannot join {} now: {}; it will be joined once it can be", Text(&self.group), Text(&error));
                }
                (self.socket, self.reported) = (None, true);
                Err(error)
            }
        }
    }
}

/// Opens a netlink socket.
///
/// # Errors
/// The kernel has no netlink, or a sandbox forbids it.
fn open_netlink() -> nix::Result<OwnedFd> {
    let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
    Ok(socket)
}

/// Discards the messages that have arrived. What has changed is not read: the interfaces themselves are looked at
/// afterwards. So a message that is cut short, or that the kernel drops because too many came at once, says as much as a
/// whole one.
///
/// # Errors
/// The socket is broken, and no more messages will come.
fn discard_messages(netlink: &OwnedFd) -> nix::Result<()> {
    for _ in 0..MESSAGES {
        match recv(netlink.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
            // ENOBUFS: the kernel dropped messages because the buffer was full.
            Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// True for the errors that say that the interface, its address or its route is missing. Netlink reports it when that
/// comes.
fn lacks_interface(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return true;
    }
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENODEV | Errno::ENXIO | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Clock;

    fn without_interface() -> Memberships {
        let group = Group::new("239.1.1.1:5007".parse().unwrap(), "no-such-if".parse().ok());
        Memberships::new(vec![group.unwrap()])
    }

    #[test]
    fn without_groups_nothing_is_opened_and_nothing_is_waited_for() {
        let mut memberships = Memberships::new(vec![]);
        memberships.start(Clock.now());
        assert!(memberships.change_fd().is_none() && memberships.deadline().is_none());
    }

    #[test]
    fn a_missing_interface_waits_for_news_and_not_for_time() {
        let now = Clock.now();
        let mut memberships = without_interface();
        memberships.start(now);
        assert!(memberships.change_fd().is_some());
        assert_eq!(memberships.deadline(), None);
        memberships.note_change(now);
        assert_eq!(memberships.deadline(), Some(now.after(LINKS_SETTLE)));
        assert!(memberships.change_fd().is_none(), "further messages do not wake the accept loop");
        memberships.rejoin_if_due(now.after(LINKS_SETTLE));
        assert!(memberships.change_fd().is_some() && memberships.deadline().is_none());
    }

    #[test]
    fn without_news_the_waits_double_up_to_the_longest() {
        let mut now = Clock.now();
        let mut memberships = without_interface();
        memberships.join_all(now);
        let mut waits = vec![];
        for _ in 0..8 {
            let next = memberships.deadline().unwrap();
            waits.push(next.until(now).as_secs());
            now = next;
            memberships.rejoin_if_due(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn only_what_an_interface_lacks_is_left_to_the_news() {
        for (errno, lacking) in
            [(Errno::ENODEV, true), (Errno::EADDRNOTAVAIL, true), (Errno::ENOBUFS, false), (Errno::EMFILE, false)]
        {
            assert_eq!(lacks_interface(&io::Error::from(errno)), lacking, "{errno}");
        }
    }
}
