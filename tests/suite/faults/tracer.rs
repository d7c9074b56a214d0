//! strace(1) on a running daemon: system calls that fail when and as they are told to.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{EMULATED_CALLS, need_native, need_program, skip};

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

/// Goes on where faults can be injected into a running process, or skips the test.
pub fn need_tracer() {
    // ptrace(2): anything but 0, and only root may look into a process that is not its child.
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if !matches!(scope.trim(), "" | "0") && (scope.trim() == "3" || !nix::unistd::geteuid().is_root()) {
        skip(&format!("kernel.yama.ptrace_scope is {}", scope.trim()));
    }
    need_strace();
}

/// Goes on where faults can be injected into a process from its start, or skips the test.
pub fn need_strace() {
    need_native(EMULATED_CALLS);
    need_program("strace");
    let tried = Command::new("strace").args(["-e", "trace=none", "true"]).output().unwrap();
    if !tried.status.success() {
        skip(&format!("strace(1) may not trace: {}", String::from_utf8_lossy(&tried.stderr).trim()));
    }
}

impl Tracer {
    /// Makes `call` fail in all threads of the process: `fault` is what strace's `inject` takes after the name of
    /// the call, or the names that it has on different machines. With a path, only calls that have to do with it
    /// are meant.
    pub fn inject(pid: u32, call: &str, fault: &str, path: Option<&Path>) -> Tracer {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}"));
        let path = path.map(|path| ["-P", path.to_str().unwrap()]);
        let options = ["-e", &trace, "-e", &inject].into_iter().chain(path.into_iter().flatten());
        Tracer::attach(pid, &options.collect::<Vec<_>>())
    }

    /// Traces all threads of the process, with these options of strace's.
    pub fn attach(pid: u32, options: &[&str]) -> Tracer {
        let output = scratch("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-o"]).arg(&output).args(options);
        let mut strace = command.stderr(Stdio::piped()).spawn().expect("start strace");
        let mut said = BufReader::new(strace.stderr.take().unwrap()).lines();
        let attached = said.by_ref().map_while(Result::ok).any(|line| line.contains(" attached"));
        assert!(attached, "strace(1) cannot attach");
        Tracer { strace, output, said }
    }

    /// What was traced so far.
    pub fn trace(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// How many calls have failed, or have been delayed, so far.
    pub fn hits(&mut self) -> usize {
        if let Some(status) = self.strace.try_wait().unwrap() {
            panic!("strace(1) has ended with {status}: {:?}", self.said.by_ref().collect::<Vec<_>>());
        }
        self.trace().lines().filter(|line| line.contains("INJECTED") || line.contains("DELAYED")).count()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let _ = self.strace.wait();
        let _ = fs::remove_file(&self.output);
    }
}
