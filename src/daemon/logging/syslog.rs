//! The system log: a datagram to `/dev/log` for each line.
//!
//! syslog(3) does not serve here: it waits for a daemon that does not read, and every thread that logs waits with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

/// The socket, connected or not. It is connected again when the daemon there was restarted.
pub(crate) struct Syslog(UnixDatagram);

impl Syslog {
    /// Makes the socket. There may be no daemon yet.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn new() -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let _ = socket.connect("/dev/log");
        Ok(Syslog(socket))
    }

    /// Sends the first of some lines. Returns how long it is, with its newline.
    ///
    /// # Errors
    /// What connect(2) and send(2) say. `WouldBlock` when the daemon has not read what it was sent before.
    pub(crate) fn send(&mut self, lines: &[u8]) -> io::Result<usize> {
        let line = lines.split(|byte| *byte == b'\n').next().unwrap_or(lines);
        match self.0.send(line) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.0.connect("/dev/log")?;
                self.0.send(line)
            }
            sent => sent,
        }?;
        Ok(line.len() + 1)
    }
}

impl AsFd for Syslog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
