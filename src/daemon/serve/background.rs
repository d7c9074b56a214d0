//! `--daemon`: the server goes on in the background, and the process that was started waits until it is ready.
//!
//! There are three processes: the first is the one that was started; the second leads a new session, which has no
//! terminal; the third is the server, which as a non-leader can never get one (daemon(7)). Until it is ready, the
//! server writes its errors to the standard error of the first. When it is ready, the server writes a byte to a pipe;
//! the leader reads that byte and exits with 0, and the first process with it. If the server ends before, the other
//! two exit with its exit code, or name the signal that ended it.
//!
//! Nothing here may run after a thread was started, because a forked process has only one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getpid, pipe2, setsid};

use crate::daemon::action::print_error;
use crate::log::error;
use crate::sys::{end_with, fork};

/// Continues in a new process in the background, in the directory `/`. The calling process never returns from this
/// function: it exits with 0 once the server has called the returned function, else with the server's exit code. That
/// function releases the console, and notifies the leader that clients can connect.
///
/// # Errors
/// When a process or a pipe cannot be made.
pub(crate) fn detach() -> io::Result<impl FnOnce()> {
    // Opened early: later the server may not be allowed to.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let first = getpid();
    if let Some(leader) = fork()? {
        process::exit(wait_for_exit(leader));
    }
    // An init script that gives up waiting, and kills what it has started, does not want the server any more. Not by
    // SIGTERM, which the server may not handle yet.
    end_with(first)?;
    let leader = setsid()?;
    // The kernel closes the pipe without a byte when the server ends, in whatever way.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    if let Some(server) = fork()? {
        drop(writer);
        process::exit(wait_until_ready(reader, server));
    }
    end_with(leader)?;
    drop(reader);
    chdir("/")?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(move || {
        // If the leader is gone, no process waits for the server any more, and the server stops.
        if let Err(error) = notify(writer.into(), &null) {
            error!("Cannot tell that the server is ready: {error}");
            let _ = raise(Signal::SIGTERM);
        }
    })
}

/// Waits until the server is ready, or has ended. Returns the exit code.
fn wait_until_ready(ready: OwnedFd, server: Pid) -> i32 {
    match File::from(ready).read(&mut [0]) {
        Ok(1) => 0,
        _ => match wait_for_exit(server) {
            0 => report("the server ended before it was ready"),
            code => code,
        },
    }
}

/// Waits for a process to end. Returns its exit code, or 1 after reporting what ended it.
fn wait_for_exit(process: Pid) -> i32 {
    loop {
        match waitpid(process, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return report(&format!("{signal} ended the server before it was ready"));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return report(&format!("cannot wait for the server: {error}")),
        }
    }
}

/// Reports why there is no server, and returns the exit code for that.
fn report(text: &str) -> i32 {
    print_error(text);
    1
}

fn notify(mut leader: File, null: &File) -> io::Result<()> {
    // Before the leader ends: a shell must not show its prompt and then a line of the server.
    dup2_stdin(null)?;
    dup2_stdout(null)?;
    dup2_stderr(null)?;
    set_pdeathsig(None)?;
    // EPIPE means that the leader is gone.
    leader.write_all(b"+")
}
