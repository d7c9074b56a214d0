//! The netlink socket that becomes readable when an interface, an address or a route of the machine changes
//! (rtnetlink(7)).
//!
//! Nothing here reads what has changed: the caller looks at the interfaces afterwards. So a message that is cut
//! short, or that the kernel drops because too many came at once, says as much as a whole one.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

/// Messages read in one call, so that an endless stream of them does not keep the accept loop. The socket stays
/// readable while more are there.
const MESSAGES: usize = 256;

#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// # Errors
    /// The kernel has no netlink, or a sandbox forbids it.
    pub(super) fn open() -> nix::Result<Netlink> {
        let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        Ok(Netlink(socket))
    }

    /// Discards the messages that have arrived.
    ///
    /// # Errors
    /// The socket is broken, and no more messages will come.
    pub(super) fn drain(&self) -> nix::Result<()> {
        for _ in 0..MESSAGES {
            match recv(self.0.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT) {
                // ENOBUFS: the kernel dropped messages because the buffer was full.
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
