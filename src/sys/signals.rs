//! The self-pipe: signals become bytes that the accept loop polls for.
//!
//! The handler does what signal-safety(7) allows and nothing else: it saves errno, writes the signal's number with one
//! write(2) to a non-blocking pipe, and restores errno. A signal that a full pipe does not take is remembered in a bit
//! of its own, for the thousands before it may all be others, and this one the request to stop.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{pipe2, read, write};

/// Signals that ask a server to stop.
pub(crate) const STOPPING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];

/// A bit for each signal that the pipe did not take. Relaxed is enough: the handler sets a bit before it writes to the
/// pipe, and the accept loop takes the bits after it has read from it.
static MISSED: AtomicU32 = AtomicU32::new(0);
/// Both ends, open for the life of the process: a handler may run at any moment.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

extern "C" fn report(signal: i32) {
    let errno = Errno::last_raw();
    // To look into the lock is one atomic load. It is full before any handler is installed.
    let Some((_, writer)) = PIPE.get() else { return };
    if write(writer, &[signal as u8]).is_err() {
        MISSED.fetch_or(1 << (signal as u32 % u32::BITS), Ordering::Relaxed);
        // The reader may have emptied the pipe meanwhile, and sleep. No signal has this number.
        let _ = write(writer, &[0]);
    }
    Errno::set_raw(errno);
}

/// There is a [`Signals`]. Acquire and Release order what its owners read from the pipe.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The reading end of the process's self-pipe, which has one owner at a time.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) reader: &'static OwnedFd,
    pub(super) routed: SigSet,
}

impl Signals {
    /// Routes `signals` into the pipe, and drops what handlers have reported since the last owner. The handlers stay when
    /// this owner of the pipe is gone.
    ///
    /// # Errors
    /// `ResourceBusy` while there is another owner.
    pub(crate) fn route(signals: &[Signal]) -> io::Result<Signals> {
        let reader = match PIPE.get() {
            Some((reader, _)) => reader,
            None => {
                let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                &PIPE.get_or_init(|| pipe).0
            }
        };
        if TAKEN.swap(true, Ordering::Acquire) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        // From here on, an error gives the pipe back.
        let own = Signals { reader, routed: signals.iter().copied().collect() };
        while read(reader, &mut [0; 4096]).is_ok_and(|count| count > 0) {}
        MISSED.store(0, Ordering::Relaxed);
        // A child that is stopped or continued is not news.
        let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP;
        let action = SigAction::new(SigHandler::Handler(report), flags, SigSet::all());
        for signal in signals {
            if *signal == Signal::SIGHUP && is_ignored(*signal)? {
                // nohup(1) has started the program, so that it outlives its terminal.
                continue;
            }
            // SAFETY: the handler calls only async-signal-safe functions and keeps errno.
            unsafe { sigaction(*signal, &action) }?;
        }
        // A program keeps the mask of the one that started it (execve(2)).
        own.routed.thread_unblock()?;
        Ok(own)
    }

    /// Reads the signals that have arrived, oldest first, and then those that a full pipe did not take. Never blocks.
    /// Leaves out those that only an owner before has routed.
    pub(crate) fn read<'a>(&self, into: &'a mut [u8; 16]) -> impl Iterator<Item = Signal> + use<'a> {
        let (routed, count) = (self.routed, read(self.reader, &mut into[..]).unwrap_or(0));
        let missed = MISSED.swap(0, Ordering::Relaxed);
        let piped = into[..count].iter().map(|number| i32::from(*number));
        let unpiped = (1..32).filter(move |number| missed & (1 << number) != 0);
        let signals = piped.chain(unpiped).filter_map(|number| Signal::try_from(number).ok());
        signals.filter(move |signal| routed.contains(*signal))
    }
}

fn is_ignored(signal: Signal) -> nix::Result<bool> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: without a new action, sigaction(2) does nothing but write the present one.
    Errno::result(unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) })?;
    // SAFETY: sigaction(2) has succeeded, so it has written it.
    let action: libc::sigaction = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

impl Drop for Signals {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

/// Shows a signal by its name, or by its number if it has none.
pub(crate) struct SignalName(pub(crate) i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::Mutex;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::signal::raise;

    /// There is one pipe for all tests.
    static PIPE_IN_USE: Mutex<()> = Mutex::new(());

    #[test]
    fn a_signal_arrives_as_itself_and_errno_is_kept() {
        let _alone = PIPE_IN_USE.lock();
        let signals = Signals::route(&[Signal::SIGWINCH]).unwrap();
        Errno::ENOTTY.set();
        raise(Signal::SIGWINCH).unwrap();
        assert_eq!(Errno::last(), Errno::ENOTTY);
        let mut fds = [PollFd::new(signals.reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(signals.read(&mut bytes).collect::<Vec<_>>(), [Signal::SIGWINCH]);
        assert_eq!(signals.read(&mut bytes).count(), 0);
    }

    #[test]
    fn the_pipe_has_one_owner_and_each_reads_its_own_signals() {
        let _alone = PIPE_IN_USE.lock();
        let first = Signals::route(&[Signal::SIGWINCH, Signal::SIGURG]).unwrap();
        assert_eq!(Signals::route(&[Signal::SIGURG]).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        raise(Signal::SIGURG).unwrap();
        drop(first);
        raise(Signal::SIGWINCH).unwrap();
        let next = Signals::route(&[Signal::SIGWINCH]).unwrap();
        raise(Signal::SIGWINCH).unwrap();
        raise(Signal::SIGURG).unwrap();
        assert_eq!(next.read(&mut [0; 16]).collect::<Vec<_>>(), [Signal::SIGWINCH]);
    }

    #[test]
    fn a_signal_that_a_full_pipe_does_not_take_is_reported_once() {
        let _alone = PIPE_IN_USE.lock();
        let signals = Signals::route(&[Signal::SIGWINCH, Signal::SIGURG]).unwrap();
        let mut bytes = [0; 16];
        while MISSED.load(Ordering::Relaxed) == 0 {
            raise(Signal::SIGWINCH).unwrap();
        }
        raise(Signal::SIGURG).unwrap();
        raise(Signal::SIGURG).unwrap();
        let (mut flood, mut kept) = (0, 0);
        loop {
            let read: Vec<Signal> = signals.read(&mut bytes).collect();
            flood += read.iter().filter(|signal| **signal == Signal::SIGWINCH).count();
            kept += read.iter().filter(|signal| **signal == Signal::SIGURG).count();
            if read.is_empty() {
                break;
            }
        }
        assert!(flood > 1_000, "{flood}");
        assert_eq!(kept, 1);
    }
}
