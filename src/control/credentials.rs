//! Who may ask on the control socket: root and the server's own user, whatever the socket's file lets in.
//!
//! In comes an accepted stream. A client that may not ask is told so in a line, and the log in one a second at most.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::sockopt;
use nix::sys::socket::{MsgFlags, getsockopt, recv, send};
use nix::unistd::geteuid;

use crate::config::CONTROL_REQUEST;
use crate::log::warn;
use crate::sys::RateLimit;

const TEXT: &[u8] = b"ERROR: only root and the user of the server may ask\n";

#[derive(Debug)]
pub(super) struct PeerCredentials(RateLimit);

impl Default for PeerCredentials {
    fn default() -> PeerCredentials {
        PeerCredentials(RateLimit::new(Duration::from_secs(1)))
    }
}

impl PeerCredentials {
    /// Hands back a client that may ask. Any other is told that it may not.
    pub(super) fn authorize(&self, stream: UnixStream) -> Option<UnixStream> {
        // Of the moment of its connect(2) (unix(7)). Our own is not remembered: it may have changed since the start.
        let (user, process) = match getsockopt(&stream, sockopt::PeerCredentials) {
            Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => return Some(stream),
            Ok(peer) => (peer.uid(), peer.pid()),
            // Every kernel with Unix sockets tells: a client of which it does not is refused.
            Err(_) => (u32::MAX, 0),
        };
        let _ = send(stream.as_raw_fd(), TEXT, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        // Closed with a request unread, it would be a reset.
        let _ = recv(stream.as_raw_fd(), &mut [0; CONTROL_REQUEST], MsgFlags::MSG_DONTWAIT);
        if let Some(count) = self.0.event() {
            warn!("Control client of user {} (process {}) refused ({} before it not logged)", user, process, count);
        }
        None
    }
}
