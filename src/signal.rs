//! The self-pipe: signals become bytes that the accept loop polls for, and the only `unsafe` of the crate.
//!
//! The handler does what signal-safety(7) allows and nothing else: it saves errno, writes the signal's number
//! with one write(2) to a non-blocking pipe, and restores errno. A full pipe is silent: it holds thousands of
//! signals that nobody has read yet, and one more would say nothing new.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{pipe2, read, write};

/// The writing end for the handler; -1 before there is one.
static WRITER: AtomicI32 = AtomicI32::new(-1);
/// Both ends, open for the life of the process: a handler may run at any moment.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

extern "C" fn report(signal: i32) {
    let errno = Errno::last_raw();
    // SAFETY: PIPE owns the descriptor and is never dropped; WRITER is set from it before any handler is
    // installed.
    let writer = unsafe { BorrowedFd::borrow_raw(WRITER.load(Ordering::Relaxed)) };
    let _ = write(writer, &[signal as u8]);
    Errno::set_raw(errno);
}

/// The reading end of the process's self-pipe.
#[derive(Debug)]
pub(crate) struct Signals(&'static OwnedFd);

impl Signals {
    /// Routes `signals` into the pipe. There is one pipe for the process, however often this is called.
    pub(crate) fn route(signals: &[Signal]) -> io::Result<Signals> {
        let reader = match PIPE.get() {
            Some((reader, _)) => reader,
            None => {
                let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                let (reader, writer) = PIPE.get_or_init(|| pipe);
                WRITER.store(writer.as_raw_fd(), Ordering::Relaxed);
                reader
            }
        };
        let action = SigAction::new(SigHandler::Handler(report), SaFlags::SA_RESTART, SigSet::all());
        for signal in signals {
            // SAFETY: the handler calls only async-signal-safe functions and keeps errno.
            unsafe { sigaction(*signal, &action) }?;
        }
        Ok(Signals(reader))
    }

    /// Reads signals that have arrived into `into`, oldest first, without waiting.
    pub(crate) fn read<'a>(&self, into: &'a mut [u8; 16]) -> impl Iterator<Item = Signal> + use<'a> {
        let count = read(self.0, &mut into[..]).unwrap_or(0);
        into[..count].iter().filter_map(|number| Signal::try_from(i32::from(*number)).ok())
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::raise;

    #[test]
    fn a_signal_arrives_as_itself_and_errno_is_kept() {
        let signals = Signals::route(&[Signal::SIGWINCH]).unwrap();
        Errno::ENOTTY.set();
        raise(Signal::SIGWINCH).unwrap();
        assert_eq!(Errno::last(), Errno::ENOTTY);
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(signals.read(&mut bytes).collect::<Vec<_>>(), [Signal::SIGWINCH]);
        assert_eq!(signals.read(&mut bytes).count(), 0);
    }
}
