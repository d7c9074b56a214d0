//! Each call of the start that fails, in turn, and limits that the kernel sets: an error that says what to do, or a
//! server that does without.

use std::fs;
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;

use super::tracer::{NEW_THREAD, need_strace, scratch};
use crate::logging::Folder;
use crate::support::{Client, Daemon, EMULATED_LIMITS, command, guard, need_native, need_program, need_root};

/// What a start has come to.
struct Start {
    /// The injected call as the trace has it; `None` when there are not that many.
    hit: Option<String>,
    /// `None` when the server runs, and has served a client and stopped well.
    failed: Option<ExitStatus>,
    said: Vec<String>,
}

/// Starts a daemon whose `number`th call of that kind fails.
fn start(call: &str, error: &str, number: usize) -> Start {
    let (trace, log, control, pid_file) = (scratch("trace"), scratch("log"), scratch("sock"), scratch("pid"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-qq", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:error={error}:when={number}")]).arg("-o").arg(&trace);
    strace.arg(command().get_program());
    strace.args(["serve", "--tcp", "echo=127.0.0.1:0", "--udp", "time=127.0.0.1:0", "--workers", "1"]);
    strace.arg("--log-file").arg(&log).arg("--control").arg(&control).arg("--pid-file").arg(&pid_file);
    let mut daemon = Daemon::spawn(strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
    let mut lost = false;
    let announced = daemon.wait_for_or_end("Server started on ");
    let failed = match announced {
        Some(line) => {
            let (pid, address) = line.split_once("PID:").unwrap().1.split_once(". Server started on ").unwrap();
            let address = address.split(' ').next().unwrap().parse().unwrap();
            let mut client = Client::connect(address);
            client.send("hello world");
            // What hits the first client has not hit the start, and costs that client alone.
            lost = client.0.read(&mut [0; 11]).ok() != Some(11);
            if lost {
                client = Client::greeted(address);
            }
            // strace passes no signal on that is sent to itself.
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
            assert_eq!(client.rest(), b"SHUTDOWN");
            drop(client);
            daemon.wait_ok();
            None
        }
        None => Some(daemon.wait()),
    };
    let text = fs::read_to_string(&trace).unwrap();
    let hit = text.lines().find(|line| line.contains("INJECTED") && !lost).map(String::from);
    for path in [&control, &pid_file] {
        assert!(!path.exists(), "{call} {number}: {} is left behind", path.display());
    }
    for path in [&trace, &log] {
        let _ = fs::remove_file(path);
    }
    Start { hit, failed, said: std::mem::take(&mut daemon.log) }
}

/// How many such calls the loader and the runtime make before the program itself has begun. What fails there is not
/// the program's to report.
fn before_main(call: &str) -> usize {
    let trace = scratch("trace");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-e", &format!("trace={call},sigaltstack"), "-o"]).arg(&trace);
    let status = strace.arg(command().get_program()).arg("--version").stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let text = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    let before = text.lines().take_while(|line| !line.starts_with("sigaltstack({"));
    before.filter(|line| !line.starts_with("sigaltstack(")).count()
}

/// What a server needs, each call of it once, with an error that it may fail with, and what must be said of it; an
/// empty text is for what can also be done without.
const CALLS: &[(&str, &str, &str)] = &[
    ("socket", "EMFILE", "ulimit -n"),
    ("bind", "EADDRINUSE", "cannot listen on "),
    ("listen", "EADDRINUSE", "cannot listen on "),
    ("setsockopt", "EPERM", ""),
    ("getsockname", "ENOBUFS", "out of memory"),
    ("ioctl", "EBADF", "cannot listen on "),
    ("fchmod", "EPERM", "control socket"),
    ("pipe2", "EMFILE", "cannot install signal handlers: "),
    ("eventfd2", "EMFILE", "event"),
    ("epoll_create1", "EMFILE", "cannot make "),
    ("epoll_ctl", "ENOSPC", "cannot watch "),
    (NEW_THREAD, "EAGAIN", "cannot start 1 workers: "),
    // Not so with musl, whose malloc takes the smallest block from mmap: no program is told of that one.
    #[cfg(not(target_env = "musl"))]
    ("mmap", "ENOMEM", ""),
    ("mprotect", "ENOMEM", ""),
    ("?open,openat", "EMFILE", ""),
    ("prlimit64", "EPERM", ""),
    ("rt_sigaction", "EINVAL", ""),
];

fn expect_sound_starts(calls: &[(&str, &str, &str)]) {
    need_strace();
    for (call, error, text) in calls {
        let first = 1 + before_main(call);
        let mut failures = 0;
        for number in first.. {
            assert!(number < first + 40, "{call} is called without end");
            let start = start(call, error, number);
            let Some(hit) = start.hit else { break };
            let said = start.said.join("\n");
            assert!(!said.contains("panicked"), "{hit}: {said}");
            let Some(status) = start.failed else {
                // The number of bytes that wait at a client's socket is asked for at the stop, and may be unknown.
                assert!(text.is_empty() || hit.contains("FIONREAD"), "{hit}: started without it: {said}");
                continue;
            };
            assert_eq!(status.code(), Some(1), "{hit}: {said}");
            let last = start.said.last().unwrap();
            assert!(last.starts_with("lastorders: ") && last.contains(text), "{hit}: {said}");
            failures += 1;
        }
        // Some kernels and libraries have other names for it; then there is nothing to fail.
        println!("{call}: {failures} starts refused");
    }
}

/// Each call of the start fails once: exit code 1 and a message that names the step and what to do, no panic, no
/// hang, no socket file left behind.
#[test]
fn every_call_of_the_start_may_fail() {
    guard(|| expect_sound_starts(&CALLS[..8]));
}

/// The rest of them; what can be done without is.
#[test]
fn every_other_call_of_the_start_may_fail() {
    guard(|| expect_sound_starts(&CALLS[8..]));
}

/// Runs a copy of the daemon in the folder under a limit that prlimit(1) sets, and returns what it says before it fails.
#[track_caller]
fn refused(folder: &Folder, limit: &str, user: &[&str], args: &[&str]) -> String {
    need_native(EMULATED_LIMITS);
    need_program("prlimit");
    let words = [user, &["prlimit", limit]].concat();
    let mut limited = Command::new(words[0]);
    limited.args(&words[1..]).arg(folder.command().get_program());
    let output = limited.args(["serve", "--tcp", "echo=127.0.0.1:0"]).args(args).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// More memory than RLIMIT_AS or RLIMIT_DATA allows is refused at start with what to do, as `--check` does.
#[test]
fn memory_beyond_the_process_limit_is_refused() {
    guard(|| {
        let folder = Folder::new("little-memory");
        for limit in ["--as=67108864", "--data=67108864"] {
            let big = ["--connections", "4096", "--buffer", "16384"];
            for args in [&big[..], &[&big[..], &["--check"]].concat()] {
                let text = refused(&folder, limit, &[], args);
                assert!(text.contains("KiB of memory") && text.contains("ulimit -v"), "{text}");
            }
        }
    });
}

/// Fewer threads than workers: an error with the number and what to do. Root has no such limit, so this steps down.
#[test]
fn too_few_threads_are_refused() {
    guard(|| {
        need_root();
        // A user without another process: its only one is this.
        let user = ["setpriv", "--reuid", "40961", "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all"];
        let text = refused(&Folder::new("few-threads"), "--nproc=8", &user, &["--workers", "64"]);
        assert!(text.contains("cannot start 64 workers") && text.contains("lower the number"), "{text}");
    });
}
