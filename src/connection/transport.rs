//! How bytes reach a client and come from it: a socket, or in tests a script.
//!
//! No call here blocks. The socket stays in blocking mode and is used with MSG_DONTWAIT, which saves the accept loop a
//! system call for each client.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::Linger;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};

use crate::sys::pending_bytes;

/// A stream of bytes in both directions.
pub(crate) trait Transport {
    /// Receives once. `None` when nothing has arrived, 0 bytes when the client will send no more.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<usize>>;

    /// Sends once. `None` when there is no room.
    fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>>;

    /// Bytes that have arrived and were not received yet.
    fn pending(&mut self) -> u32;

    /// True when nothing is pending and the client will send no more. Receives nothing.
    fn has_ended(&mut self) -> io::Result<bool>;

    /// Ends the sending direction: the client reads the end of input after what was sent.
    fn finish_sending(&mut self) -> io::Result<()>;

    /// Makes the close a reset, which throws away what the kernel has not sent.
    fn abort(&mut self);
}

impl Transport for TcpStream {
    fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        once(|| recv(self.as_raw_fd(), into, MsgFlags::MSG_DONTWAIT))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        once(|| send(self.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL))
    }

    fn pending(&mut self) -> u32 {
        pending_bytes(self).unwrap_or(0)
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        let peek = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK;
        Ok(once(|| recv(self.as_raw_fd(), &mut [0], peek))? == Some(0))
    }

    fn finish_sending(&mut self) -> io::Result<()> {
        match self.shutdown(Shutdown::Write) {
            // The client has reset the connection already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        }
    }

    fn abort(&mut self) {
        let _ = setsockopt(self, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
    }
}

/// Makes a call until no signal interrupts it; `None` when it would have to wait.
fn once(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a connection's bytes travel on.
pub(crate) enum Link {
    Socket(TcpStream),
    /// Without a kernel.
    #[cfg(all(any(test, fuzzing, lastorders_bench), not(loom)))]
    Scripted(Box<dyn Transport + Send>),
}

impl Link {
    pub(super) fn transport(&mut self) -> &mut dyn Transport {
        match self {
            Link::Socket(socket) => socket,
            #[cfg(all(any(test, fuzzing, lastorders_bench), not(loom)))]
            Link::Scripted(script) => script.as_mut(),
        }
    }

    /// The socket, to poll it.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Link::Socket(socket) => Some(socket),
            #[cfg(all(any(test, fuzzing, lastorders_bench), not(loom)))]
            Link::Scripted(_) => None,
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket().fmt(f)
    }
}
