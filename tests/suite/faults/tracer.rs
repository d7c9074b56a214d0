//! strace(1) on a running daemon: system calls that fail when and as they are told to.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::vitals::native;

/// Faults that last until this is dropped, or as many times as was asked for.
pub struct Tracer {
    strace: Child,
    output: PathBuf,
}

/// A file name of this test's own.
pub fn scratch(what: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("lastorders-{}-{what}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}

/// True when faults can be injected here; says why if not.
pub fn possible() -> bool {
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
    /// the call. With a path, only calls that have to do with it are meant.
    pub fn inject(pid: u32, call: &str, fault: &str, path: Option<&Path>) -> Tracer {
        let output = scratch("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:{fault}")]).arg("-o").arg(&output);
        if let Some(path) = path {
            command.arg("-P").arg(path);
        }
        let mut strace = command.stderr(Stdio::piped()).spawn().expect("start strace");
        let mut said = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
        let attached = said.find(|line| line.contains(" attached"));
        assert!(attached.is_some(), "strace(1) cannot attach");
        Tracer { strace, output }
    }

    /// How many calls have failed so far.
    pub fn hits(&self) -> usize {
        fs::read_to_string(&self.output).unwrap_or_default().matches("INJECTED").count()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.strace.id() as i32), Signal::SIGINT);
        let _ = self.strace.wait();
        let _ = fs::remove_file(&self.output);
    }
}
