//! Writes to a descriptor that the process was started with, and never waits for it.
//!
//! The flags of such a descriptor belong to every process that has it, so O_NONBLOCK must not be set there. And room that
//! poll(2) has found may be taken by another writer. So this module opens the pipe or the terminal again, which makes a
//! description of its own (proc(5), `/proc/pid/fd`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::termios::tcgetsid;
use nix::unistd::pipe2;

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
    /// By SPLICE_F_NONBLOCK: the description is shared, and its pipe may not be opened.
    SharedPipe,
    /// A byte at a time, once poll(2) has found room: the description is shared, and its terminal may not be opened. The
    /// one way that can wait, if another process writes to that terminal at the same moment.
    SharedTerminal,
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
            Err(_) => Output { way: if kind.is_fifo() { Way::SharedPipe } else { Way::SharedTerminal }, file },
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
            Way::SharedPipe => {
                // What splice(2) leaves in this pipe is dropped with it.
                let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                let count = File::from(writer).write(&bytes[..PIPE_BUF.min(bytes.len())])?;
                Ok(splice(reader, None, &self.file, None, count, SpliceFFlags::SPLICE_F_NONBLOCK)?)
            }
            Way::SharedTerminal => {
                let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut fds, PollTimeout::ZERO)? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.file.write(&bytes[..1])
            }
        }
    }

    /// Writes as much of a text as the kernel takes at once.
    fn show(&mut self, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            rest = &rest[self.write(rest)?..];
        }
        Ok(())
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
    let _ = Output::new(fd).and_then(|mut output| output.show(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// No look before the write, after which another writer could take the room.
    #[test]
    fn a_shared_pipe_takes_what_it_has_room_for_and_is_never_waited_for() {
        let (reader, writer) = io::pipe().unwrap();
        let (mut reader, file) =
            (File::from(std::os::fd::OwnedFd::from(reader)), std::os::fd::OwnedFd::from(writer).into());
        let mut output = Output { file, way: Way::SharedPipe };
        let mut sent = 0;
        let error = loop {
            match output.write(&[b'x'; 3_000]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(sent > 10_000);
        reader.read_exact(&mut vec![0; sent]).unwrap();
        assert_eq!(output.write(b"hello").unwrap(), 5);
        drop(output);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "hello");
    }
}
