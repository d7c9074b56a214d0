//! `--daemon`: the server goes on in the background, and the program that was started waits until it serves.
//!
//! Three processes: the one that was started; the leader of a new session, which no terminal belongs to; and the
//! server, which as a non-leader cannot get one either (daemon(7)). The server's errors go to the standard error
//! that it has from the first until it is ready. That is told through a pipe to the leader, which ends then, and
//! the first with it. A server that ends before is waited for, and its exit code, or the signal, passed on.
//!
//! Nothing here may run after a thread was started: a forked process has one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process;

use lastorders::fork;
use log::error;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, raise};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getpid, getppid, pipe2, setsid};

use crate::failure::Failure;

/// The server's side, until it is ready.
pub struct Background {
    /// Read by the session's leader. Closed without a byte when this process ends, however it ends.
    waiting: File,
    /// In reach now; the server may not be allowed everything later.
    null: File,
}

/// Goes on in a new process in the background, in the directory `/`. The calling process does not return from
/// here: it exits with 0 once the server is [`ready`](Background::ready), else with the server's exit code.
///
/// # Errors
/// When a process or a pipe cannot be made.
pub fn detach() -> Result<Background, Failure> {
    try_detach().map_err(|error| {
        let hint = "choose to run without --daemon, or see that /proc and /dev are mounted";
        Failure::Run(format!("cannot go on in the background: {error}; {hint}"))
    })
}

fn try_detach() -> io::Result<Background> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let first = getpid();
    if let Some(leader) = fork()? {
        process::exit(end_of(leader));
    }
    depend_on(first)?;
    let leader = setsid()?;
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    if let Some(server) = fork()? {
        drop(writer);
        process::exit(follow(reader, server));
    }
    depend_on(leader)?;
    drop(reader);
    chdir("/")?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(Background { waiting: writer.into(), null })
}

/// Has this process killed when `parent` ends: who gives up waiting, as an init script does in time, does not want
/// the server any more. SIGTERM might not be looked at before a socket is bound.
fn depend_on(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    // It may have ended before it could matter.
    if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

/// Waits until the server is ready, or has ended. Returns the exit code.
fn follow(ready: OwnedFd, server: u32) -> i32 {
    match File::from(ready).read(&mut [0]) {
        Ok(1) => 0,
        _ => match end_of(server) {
            0 => say("the server ended before it was ready"),
            code => code,
        },
    }
}

/// Waits for a process to end, and returns its exit code, or says what ended it.
fn end_of(process: u32) -> i32 {
    loop {
        match waitpid(Pid::from_raw(process.cast_signed()), None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return say(&format!("{signal} ended the server before it was ready"));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return say(&format!("cannot wait for the server: {error}")),
        }
    }
}

/// Says why there is no server, and returns the exit code for it.
fn say(text: &str) -> i32 {
    let _ = io::stderr().write_all(format!("lastorders: {text}\n").as_bytes());
    1
}

impl Background {
    /// Lets go of the console, and tells who waits that the server can be reached. If nobody waits any more, the
    /// server stops.
    pub fn ready(self) {
        if let Err(error) = self.tell() {
            error!("Cannot tell that the server is ready: {error}");
            let _ = raise(Signal::SIGTERM);
        }
    }

    fn tell(mut self) -> io::Result<()> {
        // Before it is told: a shell shall not show its prompt and then a line of ours.
        dup2_stdin(&self.null)?;
        dup2_stdout(&self.null)?;
        dup2_stderr(&self.null)?;
        set_pdeathsig(None)?;
        // EPIPE: nobody waits any more, and nobody expects a server.
        self.waiting.write_all(b"+")
    }
}
