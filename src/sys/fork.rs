//! Processes: fork(2), while the process has one thread.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::unistd::{ForkResult, Pid, getpid, getppid};

use super::signals::Signals;

/// The exit status of a child process that could not do what it was made for.
const FAILED: u8 = 255;

/// How a child process has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChildEnd {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// Reaps one child process that has ended, if there is one (wait(2)).
///
/// nix's `waitpid` does not serve here: for a child that a real-time signal has ended it returns an error, though the
/// kernel has reaped the child.
pub(crate) fn reap_child() -> Option<(Pid, ChildEnd)> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid(2) writes one int.
        let pid = unsafe { nix::libc::waitpid(-1, &raw mut status, nix::libc::WNOHANG) };
        let end = match Errno::result(pid) {
            Ok(0) => return None,
            Ok(_) if nix::libc::WIFEXITED(status) => ChildEnd::Exited(nix::libc::WEXITSTATUS(status)),
            Ok(_) if nix::libc::WIFSIGNALED(status) => ChildEnd::Killed(nix::libc::WTERMSIG(status)),
            // A stop under ptrace(2), which is no end; or a signal interrupted the call.
            Ok(_) | Err(Errno::EINTR) => continue,
            // ECHILD: there are none.
            Err(_) => return None,
        };
        return Some((Pid::from_raw(pid), end));
    }
}

impl Signals {
    /// Starts a process that runs `child` and ends with the status that it returns. Returns its id.
    ///
    /// The process ignores the routed signals: a terminal, or a supervisor, sends them to the whole group, and the
    /// parent decides what they mean for its children. It gets SIGKILL when its parent is gone, however that ended.
    /// Its memory is a copy, and no destructor runs at its end.
    ///
    /// # Errors
    /// What fork(2) says, and `Unsupported` when the process has a second thread.
    pub(crate) fn fork(&self, child: impl FnOnce() -> u8) -> io::Result<Pid> {
        let parent = getpid();
        // All signals are blocked until the child has replaced the handler, which would write into the parent's pipe.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let forked = fork();
        if matches!(forked, Ok(None)) {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.detach(parent, &mask).map(|()| child())));
            let status = outcome.unwrap_or(Ok(FAILED)).unwrap_or(FAILED);
            // SAFETY: ends the process. Not exit(3): that would write out what the parent has buffered, again.
            unsafe { nix::libc::_exit(status.into()) }
        }
        let _ = mask.thread_set_mask();
        match forked? {
            Some(child) => Ok(child),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes a new process independent of its parent's signals, but not of its parent.
    fn detach(&self, parent: Pid, mask: &SigSet) -> nix::Result<()> {
        end_with(parent)?;
        for signal in &self.routed {
            // SIGCHLD gets its default: with SIG_IGN the kernel would reap the processes that a service waits for.
            let handler = if signal == Signal::SIGCHLD { SigHandler::SigDfl } else { SigHandler::SigIgn };
            let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
            // SAFETY: no handler is installed; ignoring also drops what became pending since the fork.
            unsafe { sigaction(signal, &action) }?;
        }
        mask.thread_set_mask()
    }
}

/// Makes a second process of this one, which goes on from here too: fork(2), for a program that wants to serve in
/// the background. Returns the new process's id, and in the new process `None`.
///
/// Only one of the two may use a [`Server`](crate::Server) that was built before and handles signals: both would read
/// from the same self-pipe.
///
/// # Errors
/// What fork(2) says; `Unsupported` when the process has a second thread, which the new one would lack, with
/// whatever it holds locked; and what reading `/proc/self/task` says, where threads are counted.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    if threads()? != 1 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: this is the only thread, as was counted just now, and only it could start another. So no lock is held
    // by a thread that the child lacks, and the child may do whatever the parent may.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Makes the kernel end this process with SIGKILL when `parent` ends, however that ends.
///
/// # Errors
/// `ESRCH` when the parent has ended already: the kernel would not send that signal any more.
pub(crate) fn end_with(parent: Pid) -> nix::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
}

/// How many threads the process has (proc(5): /proc/pid/task has a link for each, beside the usual two).
///
/// # Errors
/// When /proc is not mounted.
pub(crate) fn threads() -> io::Result<u64> {
    let links = std::fs::metadata("/proc/self/task")?.nlink();
    Ok(links.saturating_sub(2).saturating_sub(is_emulated().into()))
}

/// True under qemu-user, which runs a thread of its own beside the program's. It shows the emulated program as
/// /proc/self/exe and itself as /proc/thread-self/exe. The kernel shows one file as both, whatever its name.
fn is_emulated() -> bool {
    let (process, thread) =
        (std::fs::read_link("/proc/self/exe").ok(), std::fs::read_link("/proc/thread-self/exe").ok());
    let name = thread.as_ref().and_then(|path| path.file_name()?.to_str());
    process != thread && name.is_some_and(|name| name.starts_with("qemu-"))
}
