//! News of the machine's network: a netlink socket that becomes readable when an interface, an address or a
//! route comes, changes or goes (rtnetlink(7)).
//!
//! What exactly happened is not looked at: whoever asks looks at the interfaces themselves, as they are by then.
//! So a message that is cut short, or lost because too many came at once, says as much as a whole one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

/// Messages read at a time; a storm that is longer leaves the socket readable.
const MESSAGES: usize = 256;

#[derive(Debug)]
pub(super) struct Links(OwnedFd);

impl Links {
    /// # Errors
    /// A kernel without netlink, or a sandbox.
    pub(super) fn open() -> nix::Result<Links> {
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        Ok(Links(socket))
    }

    /// Forgets the news that has arrived.
    ///
    /// # Errors
    /// The socket is broken: no more news will come.
    pub(super) fn drain(&self) -> nix::Result<()> {
        for _ in 0..MESSAGES {
            match recv(self.0.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
                // ENOBUFS: some messages were lost, which is news too.
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
