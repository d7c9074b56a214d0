//! Signals, processes and inherited descriptors: what needs `unsafe`, and nothing else of the crate does.
//!
//! The self-pipe turns signals into bytes that the accept loop polls for. [`Signals::fork`] makes a process that
//! has no part in it and that cannot outlive its parent. [`inherit`] takes what the program was started with.
//!
//! The handler does what signal-safety(7) allows and nothing else: it saves errno, writes the signal's number
//! with one write(2) to a non-blocking pipe, and restores errno. A full pipe is silent, but a signal that it does
//! not take is remembered once: the thousands before it may all be others, and this one the wish to stop.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::unistd::{ForkResult, Pid, getpid, getppid, pipe2, read, write};

/// The writing end for the handler; -1 before there is one.
static WRITER: AtomicI32 = AtomicI32::new(-1);
/// A bit for each signal that the pipe did not take.
static MISSED: AtomicU32 = AtomicU32::new(0);
/// Both ends, open for the life of the process: a handler may run at any moment.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();

extern "C" fn report(signal: i32) {
    let errno = Errno::last_raw();
    // SAFETY: PIPE owns the descriptor and is never dropped; WRITER is set from it before any handler is
    // installed.
    let writer = unsafe { BorrowedFd::borrow_raw(WRITER.load(Ordering::Relaxed)) };
    if write(writer, &[signal as u8]).is_err() {
        MISSED.fetch_or(1 << (signal as u32 % u32::BITS), Ordering::Relaxed);
        // The reader may have emptied the pipe meanwhile, and sleep. No signal has this number.
        let _ = write(writer, &[0]);
    }
    Errno::set_raw(errno);
}

/// The reading end of the process's self-pipe.
#[derive(Debug)]
pub(crate) struct Signals {
    reader: &'static OwnedFd,
    routed: SigSet,
}

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
        // A child that is stopped or continued is not news.
        let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP;
        let action = SigAction::new(SigHandler::Handler(report), flags, SigSet::all());
        for signal in signals {
            // SAFETY: the handler calls only async-signal-safe functions and keeps errno.
            unsafe { sigaction(*signal, &action) }?;
        }
        let routed: SigSet = signals.iter().copied().collect();
        // A program keeps the mask of the one that started it (execve(2)).
        routed.thread_unblock()?;
        Ok(Signals { reader, routed })
    }

    /// Reads signals that have arrived into `into`, oldest first, without waiting; then those that the pipe did not
    /// take.
    pub(crate) fn read<'a>(&self, into: &'a mut [u8; 16]) -> impl Iterator<Item = Signal> + use<'a> {
        let count = read(self.reader, &mut into[..]).unwrap_or(0);
        let missed = MISSED.swap(0, Ordering::Relaxed);
        let held = into[..count].iter().map(|number| i32::from(*number));
        let rest = (1..32).filter(move |number| missed & (1 << number) != 0);
        held.chain(rest).filter_map(|number| Signal::try_from(number).ok())
    }

    /// Starts a process that runs `child` and ends with the status that it returns. Returns its id.
    ///
    /// The process ignores the routed signals: a terminal, or a supervisor, sends them to the whole group, and
    /// what they ask for is the parent's to order. It gets SIGKILL when its parent is gone, however that ended.
    /// Its memory is a copy, and no destructor runs at its end.
    ///
    /// # Errors
    /// What fork(2) says, and `Unsupported` when the process has a second thread.
    pub(crate) fn fork(&self, child: impl FnOnce() -> u8) -> io::Result<Pid> {
        let parent = getpid();
        // Until the child has changed what they do: its handler would write into the parent's pipe.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let forked = fork();
        if matches!(forked, Ok(None)) {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.leave(parent, &mask).map(|()| child())));
            let status = outcome.unwrap_or(Ok(STRAY)).unwrap_or(STRAY);
            // SAFETY: ends the process. Not exit(3): that would write out what the parent has buffered, again.
            unsafe { nix::libc::_exit(status.into()) }
        }
        let _ = mask.thread_set_mask();
        match forked? {
            Some(child) => Ok(Pid::from_raw(child.cast_signed())),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes a new process independent of its parent's signals, but not of its parent.
    fn leave(&self, parent: Pid, mask: &SigSet) -> nix::Result<()> {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above: then nobody would send that signal any more.
        if getppid() != parent {
            return Err(Errno::ESRCH);
        }
        for signal in &self.routed {
            // What the service starts and waits for must not be reaped behind its back.
            let handler = if signal == Signal::SIGCHLD { SigHandler::SigDfl } else { SigHandler::SigIgn };
            let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
            // SAFETY: no handler is installed; ignoring also drops what became pending since the fork.
            unsafe { sigaction(signal, &action) }?;
        }
        mask.thread_set_mask()
    }
}

/// The status of a child that could not do what it was made for.
const STRAY: u8 = 255;

/// Makes a second process of this one, which goes on from here too: fork(2), for a program that wants to serve in
/// the background. Returns the new process's id, and in the new process `None`.
///
/// A [`Server`](crate::Server) that was built before, and handles signals, is to be used by one of the two only:
/// what they hear of signals they would share.
///
/// # Errors
/// What fork(2) says; `Unsupported` when the process has a second thread, which the new one would lack, with
/// whatever it holds locked; and what reading `/proc/self/task` says, where threads are counted.
pub fn fork() -> io::Result<Option<u32>> {
    if threads()? != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: this is the only thread, as was counted just now, and only it could start another. So no lock is held
    // by a thread that the child lacks, and the child may do whatever the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child.as_raw().cast_unsigned())),
        ForkResult::Child => Ok(None),
    }
}

/// How many threads the process has (proc(5): /proc/pid/task has a link for each, beside the usual two).
///
/// # Errors
/// When /proc is not mounted.
pub(crate) fn threads() -> io::Result<u64> {
    let links = std::fs::metadata("/proc/self/task")?.nlink();
    Ok(links.saturating_sub(2).saturating_sub(is_emulated().into()))
}

/// True under qemu-user, which runs a thread of its own beside the program's. It shows the program's name as
/// /proc/self/exe, but not here.
fn is_emulated() -> bool {
    let program = std::fs::read_link("/proc/thread-self/exe").ok();
    let name = program.as_ref().and_then(|path| path.file_name()?.to_str());
    name.is_some_and(|name| name.starts_with("qemu-"))
}

/// Takes a descriptor that the program was started with, and closes it for programs that this one starts.
///
/// One without close-on-exec has come through execve(2): std and this crate open none like that. So nobody here
/// owns it yet, and as it is given the flag, it is taken once only.
///
/// # Errors
/// `InvalidInput` for the standard three, and for one that has close-on-exec; otherwise what fcntl(2) says.
pub(crate) fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    static TAKING: Mutex<()> = Mutex::new(());
    let refuse = |problem| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    if number <= 2 {
        return refuse("it is standard input, output or error; choose one from 3 on");
    }
    // Two threads must not both find the flag unset.
    let _taking = TAKING.lock();
    // SAFETY: not -1. Whatever it is, or if it is nothing, all that is done by this borrow is to ask for its flags.
    let flags = fcntl(unsafe { BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD)?;
    if FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC) {
        return refuse("it was not inherited, or is taken already");
    }
    // SAFETY: it is open, as F_GETFD found, and without an owner, as said above.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

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
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let mut bytes = [0; 16];
        assert_eq!(signals.read(&mut bytes).collect::<Vec<_>>(), [Signal::SIGWINCH]);
        assert_eq!(signals.read(&mut bytes).count(), 0);
    }

    #[test]
    fn an_inherited_descriptor_is_taken_once_and_none_of_ours_ever() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let refused = inherit(reader.as_raw_fd()).unwrap_err().to_string();
        assert!(refused.contains("not inherited"), "{refused}");
        // As it would be behind execve.
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let taken = inherit(writer.into_raw_fd()).unwrap();
        assert!(inherit(taken.as_raw_fd()).is_err());
        write(&taken, b"!").unwrap();
        for number in [-1, 0, 2] {
            assert_eq!(inherit(number).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(inherit(RawFd::MAX).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
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
            let heard: Vec<Signal> = signals.read(&mut bytes).collect();
            flood += heard.iter().filter(|signal| **signal == Signal::SIGWINCH).count();
            kept += heard.iter().filter(|signal| **signal == Signal::SIGURG).count();
            if heard.is_empty() {
                break;
            }
        }
        assert!(flood > 1_000, "{flood}");
        assert_eq!(kept, 1);
    }
}
