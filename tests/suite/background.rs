//! The daemon in the background: what it reports to its starter, and what is left of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::faults::tracer::{NEW_THREAD, need_strace};
use crate::logging::{Folder, read, texts};
use crate::support::{Client, command, guard, started_on, wait_until};

/// A server in the background with its files in a folder, ended by the number in its pid file when dropped.
pub struct Background(Folder);

impl Background {
    pub fn new(name: &str) -> Background {
        Background(Folder::new(name))
    }

    pub fn file(&self, name: &str) -> String {
        self.0.file(name)
    }

    /// `serve --daemon` in the folder, with a pid file and a log file.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = command();
        // Paths of the program, and of an emulator's libraries, must stay good in another directory.
        let mut words = [program.get_program()].into_iter().chain(program.get_args()).map(absolute);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir(self.file("")).args(["serve", "--daemon", "--pid-file", "pid", "--log-file", "log"]);
        command.args(args);
        command
    }

    pub fn start(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Echo on a free port.
    #[track_caller]
    pub fn echo(&self, args: &[&str]) -> SocketAddr {
        let output = self.start(&[&["--tcp", "echo=127.0.0.1:0"], args].concat());
        assert_eq!((said(&output), output.status.code()), (String::new(), Some(0)));
        self.address()
    }

    pub fn address(&self) -> SocketAddr {
        wait_until("the server has started", || read(self.file("log")).contains("(echo)\n"));
        started_on(&read(self.file("log")))
    }

    /// The process id of the pid file.
    pub fn pid(&self) -> Option<i32> {
        let pid = read(self.file("pid"));
        pid.ends_with('\n').then(|| pid.trim().parse().unwrap())
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().expect("a pid file")), signal).unwrap();
    }

    /// Ends it, and waits until it is gone.
    #[track_caller]
    pub fn stop(&self) {
        let pid = self.pid().expect("a pid file");
        self.signal(Signal::SIGTERM);
        wait_until("the server is gone", || !runs(pid));
        assert!(read(self.file("log")).contains("Server stopped. SIGTERM: "));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Runs a starter until it exits, and no longer: a server that kept its output open would be waited for.
pub fn run(command: &mut Command) -> Output {
    let mut starter = command.spawn().expect("run the daemon");
    let status = starter.wait().expect("wait for the starter");
    let (mut stdout, mut stderr) = (starter.stdout.take().unwrap(), starter.stderr.take().unwrap());
    Output { status, stdout: printed(&mut stdout), stderr: printed(&mut stderr) }
}

fn printed(pipe: &mut (impl Read + AsFd)) -> Vec<u8> {
    fcntl(pipe.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut bytes = Vec::new();
    let _ = pipe.read_to_end(&mut bytes);
    bytes
}

fn absolute(word: &OsStr) -> OsString {
    fs::canonicalize(word).map_or(word.into(), Into::into)
}

/// What it has printed.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Fields of proc(5)'s stat, from the state on.
fn stat(pid: i32) -> Vec<String> {
    let stat = read(format!("/proc/{pid}/stat"));
    stat.rsplit(')').next().unwrap().split_whitespace().map(String::from).collect()
}

/// False too for a process that has ended and was not reaped.
pub fn runs(pid: i32) -> bool {
    stat(pid).first().is_some_and(|state| state != "Z" && state != "X")
}

/// The processes that a process has started and that run.
fn children(parent: i32) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).get(1).is_some_and(|field| *field == parent.to_string()) && runs(*pid)).collect()
}

/// Started, and reached at once: the starter's exit code 0 is the promise. The server is in no terminal's reach, in
/// the root directory, with its console let go of; it drains as ever, and takes its files with it.
#[test]
fn the_starter_exits_when_the_server_can_be_reached() {
    guard(|| {
        let server = Background::new("reached");
        // An address of the test's own, so that the port is still free when the server comes.
        let address = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let output = server.start(&["--tcp", &format!("echo={address}"), "--control", "control", "--grace", "30"]);
        assert_eq!((said(&output), output.status.code()), (String::new(), Some(0)));
        let mut client = Client::connect(address);
        client.echo(b"hello world");

        let pid = server.pid().expect("a pid file");
        assert!(read(server.file("log")).contains(&format!("PID:{pid}. Server started on {address} (echo)\n")));
        let [session, terminal] = [3, 4].map(|field| stat(pid)[field].clone());
        assert!(session != pid.to_string() && terminal == "0", "session {session}, terminal {terminal}");
        assert_ne!(session, stat(std::process::id() as i32)[3]);
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
        for descriptor in 0..3 {
            let held = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap();
            assert_eq!(held.to_str(), Some("/dev/null"));
        }
        assert_eq!(fs::metadata(server.file("pid")).unwrap().permissions().mode() & 0o777, 0o644);

        server.signal(Signal::SIGTERM);
        assert_eq!(client.rest(), b"SHUTDOWN");
        drop(client);
        wait_until("the server is gone", || !runs(pid));
        let left: Vec<_> = fs::read_dir(server.file("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["log"]);
        assert!(texts(&read(server.file("log"))).last().unwrap().starts_with("Server stopped. SIGTERM: "));
    });
}

/// What keeps it from starting is said by the starter, with the exit code that it has without `--daemon`; no file
/// and no process is left.
#[test]
fn the_starter_says_why_there_is_no_server() {
    guard(|| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = format!("--tcp=echo={}", taken.local_addr().unwrap());
        for (arg, code, part) in [
            (&taken[..], 1, "in use"),
            ("--log-file=/nowhere/log", 1, "cannot open log file /nowhere/log"),
            ("--pid-file=/nowhere/pid", 1, "cannot write the pid file /nowhere/pid: No such file or directory"),
            ("--workers=65", 2, "--workers \"65\""),
            ("--console", 2, "--daemon leaves the console"),
            ("--user=no-such-user", 2, "--user \"no-such-user\": there is no such user"),
        ] {
            let server = Background::new("fails");
            let output = server.start(&["--tcp", "echo=127.0.0.1:0", arg]);
            assert_eq!(output.status.code(), Some(code), "{arg}: {}", said(&output));
            assert!(said(&output).starts_with("lastorders: ") && said(&output).contains(part), "{}", said(&output));
            assert!(!fs::exists(server.file("pid")).unwrap());
        }
    });
}

/// No thread for its worker: by then every socket is bound, and still the starter says so and exits with 1.
#[test]
fn a_server_without_workers_is_not_ready() {
    guard(|| {
        need_strace();
        let server = Background::new("threads");
        let started = server.command(&["--tcp", "echo=127.0.0.1:0", "--workers", "1"]);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={NEW_THREAD}")]);
        strace
            .args(["-e", &format!("inject={NEW_THREAD}:error=EAGAIN")])
            .arg(started.get_program())
            .args(started.get_args());
        strace.current_dir(server.file(""));
        let output = run(strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).starts_with("lastorders: cannot start 1 workers"), "{}", said(&output));
        assert!(!fs::exists(server.file("pid")).unwrap());
        assert!(read(server.file("log")).contains("cannot start 1 workers"));
    });
}

/// With nothing but the console to log to, the daemon says so before it leaves the console.
#[test]
fn a_server_without_a_log_warns_at_the_start() {
    guard(|| {
        let server = Background::new("mute");
        let mut command = command();
        command.args(["serve", "--daemon", "--tcp", "echo=127.0.0.1:0", "--pid-file", &server.file("pid")]);
        let output = run(&mut command);
        assert_eq!(output.status.code(), Some(0));
        assert!(said(&output).contains("Nothing will be logged") && said(&output).contains("--syslog"));
        assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));
    });
}

/// A start that takes long, because another program has the address.
struct Stuck {
    starter: Child,
    leader: i32,
    server: i32,
    _taken: TcpListener,
}

impl Stuck {
    fn start(background: &Background) -> Stuck {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = format!("echo={}", taken.local_addr().unwrap());
        let args = ["--tcp", &socket, "--bind-retry", "60", "--log-level", "error"];
        let starter = background.command(&args).spawn().unwrap();
        let first = starter.id() as i32;
        let only = |parent| children(parent).first().copied();
        wait_until("the server's process is there", || only(first).and_then(only).is_some());
        let leader = only(first).unwrap();
        // Beyond its start: it has the root directory by then.
        let server = only(leader).unwrap();
        wait_until("it has begun", || {
            fs::read_link(format!("/proc/{server}/cwd")).is_ok_and(|path| path.to_str() == Some("/"))
        });
        Stuck { starter, leader, server, _taken: taken }
    }
}

/// The server, or the process that waits for it, is killed before the server is ready: the starter says so, and exits
/// with 1.
#[test]
fn a_server_killed_before_it_is_ready_is_reported() {
    guard(|| {
        for whom in ["server", "leader"] {
            let background = Background::new(&format!("killed-{whom}"));
            let stuck = Stuck::start(&background);
            let victim = if whom == "server" { stuck.server } else { stuck.leader };
            kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
            let server = stuck.server;
            let output = stuck.starter.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(said(&output), "lastorders: SIGKILL ended the server before it was ready\n");
            wait_until("no process is left", || !runs(server));
        }
    });
}

/// The starter gives up waiting: no server is left that its user does not expect any more.
#[test]
fn a_starter_that_is_killed_takes_the_server_with_it() {
    guard(|| {
        let background = Background::new("given-up");
        let mut stuck = Stuck::start(&background);
        stuck.starter.kill().unwrap();
        stuck.starter.wait().unwrap();
        wait_until("no process is left", || !runs(stuck.leader) && !runs(stuck.server));
    });
}

/// The daemon may fork for its clients too.
#[test]
fn a_forking_server_goes_to_the_background() {
    guard(|| {
        let server = Background::new("forking");
        let address = server.echo(&["--fork", "--grace", "30"]);
        let mut clients = [Client::greeted(address), Client::greeted(address)];
        assert_eq!(children(server.pid().unwrap()).len(), 2);
        let pid = server.pid().unwrap();
        server.signal(Signal::SIGTERM);
        clients.iter_mut().for_each(|client| assert_eq!(client.rest(), b"SHUTDOWN"));
        drop(clients);
        wait_until("the server is gone", || !runs(pid));
    });
}
