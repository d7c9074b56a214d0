//! Keeps the multicast groups joined, through interfaces that come late, go, and come back.
//!
//! In comes the news that something of the network changed; then every group is joined anew, and the memberships
//! before are dropped once the new ones stand, so nothing is missed in between. While nothing changes nothing is
//! done: time alone matters only to a join that no news would heal, or where there is no news.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::group::Group;
use super::links::Links;
use crate::clock::Tick;
use crate::config::{JOIN_RETRY, LINKS_SETTLE};
use crate::fmt::{Text, info, warn};

#[derive(Debug)]
pub(crate) struct Memberships {
    /// `None` when the kernel gives no news, or there is no group to need it.
    links: Option<Links>,
    members: Vec<Member>,
    /// Something has changed; the groups are joined anew then.
    settles: Option<Tick>,
    retry: Option<Tick>,
    /// The wait before the retry after the next.
    patience: Duration,
}

#[derive(Debug)]
struct Member {
    group: Group,
    /// The membership lasts as long as this.
    joined: Option<UdpSocket>,
    /// The log has been told that it is not joined.
    reported: bool,
}

impl Memberships {
    pub(crate) fn new(groups: Vec<Group>) -> Memberships {
        let members = groups.into_iter().map(|group| Member { group, joined: None, reported: false }).collect();
        Memberships { links: None, members, settles: None, retry: None, patience: JOIN_RETRY.0 }
    }

    /// Joins every group that can be joined now.
    pub(crate) fn start(&mut self, now: Tick) {
        if self.members.is_empty() {
            return;
        }
        // Before the first attempt, so that what changes after it is heard of.
        match Links::open() {
            Ok(links) => self.links = Some(links),
            Err(error) => warn!("No news of network interfaces ({}): groups are retried by time", Text(&error)),
        }
        self.join_all(now);
    }

    /// What to poll for news. Not polled while the last news settles: an interface that comes up sends many.
    pub(crate) fn news(&self) -> Option<BorrowedFd<'_>> {
        self.links.as_ref().filter(|_| self.settles.is_none()).map(AsFd::as_fd)
    }

    /// There is news.
    pub(crate) fn hear(&mut self, now: Tick) {
        self.settles = Some(now.after(LINKS_SETTLE));
    }

    /// When [`renew`](Memberships::renew) is to be called next.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        match (self.settles, self.retry) {
            (Some(settles), Some(retry)) => Some(if retry.is_before(settles) { retry } else { settles }),
            (settles, retry) => settles.or(retry),
        }
    }

    /// Joins anew, if it is time to.
    pub(crate) fn renew(&mut self, now: Tick) {
        if self.settles.is_some_and(|tick| tick.reached(now)) {
            self.settles = None;
            // First, so that what happens from here on is news again.
            if let Some(Err(error)) = self.links.as_ref().map(Links::drain) {
                warn!("No more news of network interfaces ({}): groups are retried by time", Text(&error));
                self.links = None;
            }
            self.patience = JOIN_RETRY.0;
            self.join_all(now);
        } else if self.retry.is_some_and(|tick| tick.reached(now)) {
            self.join_all(now);
        }
    }

    fn join_all(&mut self, now: Tick) {
        let news = self.links.is_some();
        let mut again = false;
        for member in &mut self.members {
            if let Err(error) = member.join() {
                again |= !(news && healed_by_news(&error));
            }
        }
        self.retry = again.then(|| now.after(self.patience));
        self.patience = if again { (self.patience * 2).min(JOIN_RETRY.1) } else { JOIN_RETRY.0 };
    }
}

impl Member {
    fn join(&mut self) -> io::Result<()> {
        match self.group.join() {
            Ok(socket) => {
                if self.reported {
                    info!("Joined {}", Text(&self.group));
                }
                (self.joined, self.reported) = (Some(socket), false);
                Ok(())
            }
            Err(error) => {
                if !self.reported {
                    warn!("Cannot join {} now: {}; it will be joined once it can be", Text(&self.group), Text(&error));
                }
                (self.joined, self.reported) = (None, true);
                Err(error)
            }
        }
    }
}

/// True for the errors that say that the interface, its address or the route is not there: when it comes, there
/// is news.
fn healed_by_news(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::AddrNotAvailable {
        return true;
    }
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENODEV | Errno::ENXIO | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::ENETDOWN))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn nowhere() -> Memberships {
        let group = Group::new("239.1.1.1:5007".parse().unwrap(), "no-such-if".parse().ok());
        Memberships::new(vec![group.unwrap()])
    }

    #[test]
    fn without_groups_nothing_is_opened_and_nothing_is_waited_for() {
        let mut memberships = Memberships::new(vec![]);
        memberships.start(Clock::start().now());
        assert!(memberships.news().is_none() && memberships.deadline().is_none());
    }

    #[test]
    fn a_missing_interface_waits_for_news_and_not_for_time() {
        let now = Clock::start().now();
        let mut memberships = nowhere();
        memberships.start(now);
        assert!(memberships.news().is_some());
        assert_eq!(memberships.deadline(), None);
        memberships.hear(now);
        assert_eq!(memberships.deadline(), Some(now.after(LINKS_SETTLE)));
        assert!(memberships.news().is_none(), "the storm passes unheard");
        memberships.renew(now.after(LINKS_SETTLE));
        assert!(memberships.news().is_some() && memberships.deadline().is_none());
    }

    #[test]
    fn without_news_the_waits_double_up_to_the_longest() {
        let mut now = Clock::start().now();
        let mut memberships = nowhere();
        memberships.join_all(now);
        let mut waits = vec![];
        for _ in 0..8 {
            let next = memberships.deadline().unwrap();
            waits.push(next.until(now).as_secs());
            now = next;
            memberships.renew(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn only_what_an_interface_lacks_is_left_to_the_news() {
        for (errno, healed) in
            [(Errno::ENODEV, true), (Errno::EADDRNOTAVAIL, true), (Errno::ENOBUFS, false), (Errno::EMFILE, false)]
        {
            assert_eq!(healed_by_news(&io::Error::from(errno)), healed, "{errno}");
        }
    }
}
