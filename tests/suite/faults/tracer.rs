//! strace(1) on a running daemon: system calls that fail when and as they are told to.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::vitals::native;

/// The call that makes a thread, and no process.
pub const NEW_THREAD: &str = if cfg!(target_env = "musl") { "clone" } else { "clone3" };

/// Faults that last until this is dropped, or as many times as was asked for.
pub struct Tracer {
    strace: Child,
    output: PathBuf,
    /// What strace itself says. Closed, it would end strace at its next word.
    said: Lines<BufReader<ChildStderr>>,
}

/// A file name of this test's own.
pub fn scratch(what: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("lastorders-{}-{what}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

/// True when faults can be injected into a running process; says why if not.
pub fn can_attach() -> bool {
    // ptrace(2): anything but 0, and only root may look into a process that is not its child.
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let free = matches!(scope.trim(), "" | "0") || (scope.trim() != "3" && nix::unistd::geteuid().is_root());
    if !free {
        println!("skipped: kernel.yama.ptrace_scope is {}", scope.trim());
    }
    free && can_trace()
}

/// True when faults can be injected into a process from its start; says why if not.
pub fn can_trace() -> bool {
    if !native() {
        println!("skipped: strace(1) would see the emulator's system calls");
        return false;
    }
    let tried = Command::new("strace").args(["-e", "trace=none", "true"]).stderr(Stdio::null()).status();
    match tried {
        Ok(status) if status.success() => true,
        Ok(_) => {
            println!("skipped: strace(1) may not trace here");
            false
        }
        Err(_) => {
            println!("skipped: strace(1) is not installed");
            false
        }
    }
}

impl Tracer {
    /// Makes `call` fail in all threads of the process: `fault` is what strace's `inject` takes after the name of
    /// the call, or the names that it has on different machines. With a path, only calls that have to do with it
    /// are meant.
    pub fn inject(pid: u32, call: &str, fault: &str, path: Option<&Path>) -> Tracer {
        let output = scratch("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{fault}")]).arg("-o").arg(&output);
        if let Some(path) = path {
            command.arg("-P").arg(path);
        }
        let mut strace = command.stderr(Stdio::piped()).spawn().expect("start strace");
        let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = said.by_ref().map_while(Result::ok).any(|line| line.contains(" attached"));
        assert!(attached, "strace(1) cannot attach");
        Tracer { strace, output, said }
    }

    /// How many calls have failed, or have been delayed, so far.
    pub fn hits(&mut self) -> usize {
        if let Some(status) = self.strace.try_wait().unwrap() {
            panic!("strace(1) has ended with {status}: {:?}", self.said.by_ref().collect::<Vec<_>>());
        }
        let trace = fs::read_to_string(&self.output).unwrap_or_default();
        trace.lines().filter(|line| line.contains("INJECTED") || line.contains("DELAYED")).count()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let _ = self.strace.wait();
        let _ = fs::remove_file(&self.output);
    }
}
