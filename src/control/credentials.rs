//! Which users may ask on the control socket: root and the server's own user, whatever the socket's file lets in.
//!
//! In comes an accepted stream. A client that may not ask gets a line that says so, and the log a line a second at
//! most.

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
        PeerCredentials(RateLimit::new(1, Duration::from_secs(1)))
    }
}

impl PeerCredentials {
    /// Returns a client that may ask, and refuses any other.
    pub(super) fn authorize(&self, stream: UnixStream) -> Option<UnixStream> {
        // The credentials are those at connect(2) (unix(7)). The server's own user is read anew, for it may have
        // changed since the start.
        let (user, process) = match getsockopt(&stream, sockopt::PeerCredentials) {
            Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => return Some(stream),
            Ok(peer) => (peer.uid(), peer.pid()),
            // Every kernel with Unix sockets knows the user. Should it fail all the same, the client is refused.
            Err(_) => (u32::MAX, 0),
        };
        let _ = send(stream.as_raw_fd(), TEXT, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        // A request that is left unread would turn the close into a reset.
        let _ = recv(stream.as_raw_fd(), &mut [0; CONTROL_REQUEST], MsgFlags::MSG_DONTWAIT);
        if let Some(count) = self.0.event() {
            warn!("Control client of user {} (process {}) refused ({} before it not logged)", user, process, count);
        }
        None
    }
}
