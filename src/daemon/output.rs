//! Writes to a descriptor that the process was started with, and never waits for it.
//!
//! The flags of such a descriptor belong to every process that has it, so O_NONBLOCK must not be set there. And poll(2)
//! says of a terminal only that it has room for a byte. So this module opens the pipe or the terminal again, which
//! makes a description of its own (proc(5), `/proc/pid/fd`).

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::termios::tcgetsid;

/// A descriptor that is written to without waiting.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    way: Way,
}

/// How a write is kept from waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The description is this process's own, with O_NONBLOCK; or it is of a file, which never makes a writer wait.
    Plain,
    /// By MSG_DONTWAIT.
    Socket,
    /// The description is shared: so many bytes at a time, once poll(2) has found room.
    Shared { chunk: usize },
}

impl Output {
    /// An output to where `fd` leads.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub(crate) fn new(fd: impl AsFd) -> io::Result<Output> {
        let file = File::from(fd.as_fd().try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            return Ok(Output { file, way: Way::Socket });
        }
        if !kind.is_fifo() && !kind.is_char_device() {
            return Ok(Output { file, way: Way::Plain });
        }
        // The process may have no right to open it again, after a change of the user say. For the terminal that it was
        // started from there is a name that anybody may open.
        let own = open(&format!("/proc/self/fd/{}", file.as_raw_fd()));
        let own = own.or_else(|error| if tcgetsid(&file).is_ok() { open("/dev/tty") } else { Err(error) });
        Ok(match own {
            Ok(file) => Output { file, way: Way::Plain },
            // A pipe that has room has room for PIPE_BUF bytes (pipe(7)).
            Err(_) => Output { way: Way::Shared { chunk: if file.is_terminal() { 1 } else { PIPE_BUF } }, file },
        })
    }

    /// Writes what the kernel takes at once, and returns how much that was.
    ///
    /// # Errors
    /// `WouldBlock` when that is nothing, and what write(2) says.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.way {
            Way::Plain => self.file.write(bytes),
            Way::Socket => Ok(send(self.file.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?),
            Way::Shared { chunk } => {
                let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::ZERO)? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.file.write(&bytes[..chunk.min(bytes.len())])
            }
        }
    }

    /// The device and inode numbers of what is written to.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|file| (file.dev(), file.ino()))
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open(path: &str) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    OpenOptions::new().write(true).custom_flags(flags.bits()).open(path)
}

/// Shows a text to a person, as far as `fd` takes it at once. A text that nobody reads is no failure.
pub(crate) fn show(fd: impl AsFd, text: &str) {
    let _ = Output::new(fd).and_then(|mut output| output.write(text.as_bytes()));
}
