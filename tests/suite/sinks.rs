//! Sinks of the log, and other outputs, that nobody reads: no thread waits for them, and what they lack is counted.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::logging::{Folder, expect_one_gap, read, texts, visits};
use crate::supervision::with_pipe;
use crate::support::{Client, Daemon, HANG, command, guard, guard_within, need_root, skip, wait_until};
use crate::vitals::Figures;

/// The system log in the place of a syslog daemon, by one test at a time, of this process and of others.
pub struct SystemLog {
    pub socket: UnixDatagram,
    _only: Flock<File>,
}

impl SystemLog {
    const PATH: &str = "/dev/log";

    pub fn start() -> SystemLog {
        need_root();
        let lock = File::create(std::env::temp_dir().join("lastorders-dev-log.lock")).unwrap();
        let only = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        let probe = UnixDatagram::unbound().unwrap();
        match probe.connect(SystemLog::PATH) {
            Ok(()) => skip("there is a syslog daemon"),
            // Left by a test that was killed.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(SystemLog::PATH).unwrap(),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
        let socket = UnixDatagram::bind(SystemLog::PATH).unwrap();
        socket.set_read_timeout(Some(HANG / 2)).unwrap();
        SystemLog { socket, _only: only }
    }

    /// Ends this one and starts another after `between`.
    fn restart(&mut self, between: impl FnOnce()) {
        self.socket = UnixDatagram::unbound().unwrap();
        fs::remove_file(SystemLog::PATH).unwrap();
        between();
        self.socket = UnixDatagram::bind(SystemLog::PATH).unwrap();
    }
}

impl Drop for SystemLog {
    fn drop(&mut self) {
        let _ = fs::remove_file(SystemLog::PATH);
    }
}

/// Clients whose log lines fill every sink and the daemon's backlog for it: 2,400 lines of more than 70 bytes.
const VISITS: usize = 1_200;

/// A daemon with a log file, by which the test sees what it does, and a control socket.
struct Observed {
    daemon: Daemon,
    folder: Folder,
}

impl Observed {
    fn start(name: &str, args: &[&str], with: impl FnOnce(&mut Command)) -> Observed {
        let folder = Folder::new(name);
        if geteuid().is_root() {
            chown(folder.file(""), Some(65_534), Some(65_534)).unwrap();
        }
        let (log, control) = (folder.file("log"), folder.file("control"));
        let mut command = command();
        command.args(["serve", "--tcp", "echo=127.0.0.1:0", "--log-file", &log, "--control", &control]).args(args);
        with(&mut command);
        Observed { daemon: Daemon::silent(&mut command, &log), folder }
    }

    fn address(&self) -> SocketAddr {
        self.daemon.address()
    }

    fn lost(&self) -> u64 {
        let control = self.folder.file("control");
        let output = command().args(["control", "--socket", &control, "status"]).output().unwrap();
        Figures::parse(&String::from_utf8(output.stdout).unwrap()).of("log_lines_lost")
    }

    fn log(&self) -> Vec<String> {
        texts(&read(self.folder.file("log")))
    }

    /// Logs more than the sink takes: the clients are served, and the lines counted.
    fn overflow(&self) {
        visits(self.address(), VISITS);
        assert!(self.lost() > 0, "more lines than the sink and the backlog hold");
    }

    /// SIGTERM, and the client is told and the process gone at once, though the sink takes nothing.
    fn expect_good_end(&mut self) {
        let mut client = Client::greeted(self.address());
        let start = Instant::now();
        self.daemon.signal(Signal::SIGTERM);
        assert_eq!(client.rest(), b"SHUTDOWN");
        drop(client);
        self.daemon.wait_ok();
        // The grace time is 5 s, and the last client has left.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(self.log().last().unwrap().starts_with("Server stopped."));
    }

    /// Reads the sink, which was blocked, to the end of the server: what it had no room for comes without another line,
    /// and it lacks just the lines that it says it lacks. `text` takes the text out of one of its lines.
    fn expect_catch_up(mut self, mut next: impl FnMut() -> Option<Vec<u8>> + Send + 'static, text: fn(&str) -> &str) {
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            while let Some(bytes) = next() {
                let _ = sender.send(bytes);
            }
        });
        let mut shown = Vec::new();
        let mut wait_for = |part: &str| {
            wait_until(part, || {
                shown.extend(pieces.try_iter().flatten());
                String::from_utf8_lossy(&shown).contains(part)
            });
            String::from_utf8(shown.clone()).unwrap()
        };
        wait_for("log lines were lost here");
        visits(self.address(), 10);
        self.expect_good_end();
        let log = self.log();
        let shown = wait_for(log.last().unwrap());
        expect_one_gap(shown.lines().filter(|line| !line.is_empty()).map(|line| text(line).into()).collect(), &log);
    }
}

/// The text of a line that begins with a stamp and a level.
fn stamped(line: &str) -> &str {
    line.split_once("] ").unwrap().1
}

/// Reads a descriptor, piece by piece.
fn pieces(fd: OwnedFd) -> impl FnMut() -> Option<Vec<u8>> {
    let mut file = File::from(fd);
    move || {
        let mut bytes = [0; 16_384];
        let count = file.read(&mut bytes).ok().filter(|count| *count > 0)?;
        Some(bytes[..count].to_vec())
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader.into(), writer.into())
}

/// A pipe with no room for a byte.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe();
    let mut file = File::from(writer.try_clone().unwrap());
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while file.write(&[b'\n'; 4_096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

/// Standard error is a pipe, a terminal or a socket that nobody reads, and the daemon may open it anew or not: it
/// serves and ends as ever, and shows what it could not show before as soon as somebody reads.
#[test]
fn a_console_that_nobody_reads_is_not_waited_for() {
    guard_within(HANG * 2, || {
        let terminal = || {
            let terminal = openpty(None, None).unwrap();
            (terminal.master, terminal.slave)
        };
        let socket = || {
            let (reader, writer) = UnixStream::pair().unwrap();
            (reader.into(), writer.into())
        };
        for (name, make) in
            [("pipe", &pipe as &dyn Fn() -> (OwnedFd, OwnedFd)), ("tty", &terminal), ("socket", &socket)]
        {
            for user in [None, Some(65_534)] {
                let (reader, writer) = make();
                let observed = Observed::start(&format!("unread-{name}"), &[], |command| {
                    command.stderr(writer);
                    user.map(|user| command.uid(user).gid(user));
                });
                observed.overflow();
                observed.expect_catch_up(pieces(reader), stamped);
            }
        }
    });
}

/// A server whose console is stuck from the start to the end: it starts, and ends at once. One that cannot start does
/// not wait to say so.
#[test]
fn a_stuck_console_delays_no_start_and_no_end() {
    guard(|| {
        let (_reader, writer) = full_pipe();
        let mut observed =
            Observed::start("stuck-start", &[], |command| _ = command.stderr(writer.try_clone().unwrap()));
        observed.expect_good_end();
        let status = command().args(["serve", "--workers", "0"]).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(2));
    });
}

/// Forked children log to a pipe that nobody reads: each serves its client, and the lines that they lose are counted.
#[test]
fn children_do_not_wait_for_a_console() {
    guard(|| {
        let (_reader, writer) = full_pipe();
        let mut observed =
            Observed::start("unread-fork", &["--fork", "--log-level", "debug"], |command| _ = command.stderr(writer));
        // At debug a child has lines of its own; the parent's few wait in its backlog.
        visits(observed.address(), 20);
        wait_until("each child has lost its line", || observed.lost() >= 20);
        observed.expect_good_end();
    });
}

/// The syslog daemon does not read: lines wait for it, then are lost and counted, and come when it reads again.
#[test]
fn a_system_log_that_does_not_read_is_not_waited_for() {
    guard(|| {
        let system = SystemLog::start();
        let observed = Observed::start("unread-syslog", &["--syslog"], |command| _ = command.stderr(Stdio::null()));
        observed.overflow();
        let socket = system.socket.try_clone().unwrap();
        let next = move || {
            let mut bytes = [0; 4_096];
            let count = socket.recv(&mut bytes).ok()?;
            bytes[count] = b'\n';
            Some(bytes[..=count].to_vec())
        };
        observed.expect_catch_up(next, |line| line.split_once("]: ").unwrap().1);
    });
}

/// The system log was restarted, and for a while there is none: lines wait, and none is lost.
#[test]
fn a_system_log_that_is_restarted_gets_every_line() {
    guard(|| {
        let mut system = SystemLog::start();
        let mut observed = Observed::start("restarted", &["--syslog"], |command| _ = command.stderr(Stdio::null()));
        let mut bytes = [0; 4_096];
        // The log file has its lines first.
        while !String::from_utf8_lossy(&bytes).contains("Server started on ") {
            system.socket.recv(&mut bytes).unwrap();
        }
        system.restart(|| visits(observed.address(), 10));
        system.socket.set_nonblocking(true).unwrap();
        let mut got: Vec<String> = vec![];
        let mut receive = || {
            while let Ok(count) = system.socket.recv(&mut bytes) {
                got.push(String::from_utf8_lossy(&bytes[..count]).split_once("]: ").unwrap().1.to_string());
            }
            got.clone()
        };
        // All but those before the restart.
        let logged = |observed: &Observed| {
            let mut log = observed.log();
            log.retain(|text| !text.contains("the system log"));
            log.split_off(log.iter().position(|text| text.starts_with("Starting")).unwrap())
        };
        wait_until("the lines come", || {
            // One attempt a second is made, when there is a line.
            thread::park_timeout(Duration::from_millis(100));
            visits(observed.address(), 1);
            !receive().is_empty()
        });
        wait_until("all lines come", || receive() == logged(&observed));
        observed.expect_good_end();
        assert_eq!(receive(), logged(&observed));
    });
}

/// `--console` with a standard output that nobody reads, `--notify-fd` with a full pipe, and a NOTIFY_SOCKET that
/// nobody reads: the server starts, serves and ends.
#[test]
fn outputs_for_people_and_supervisors_are_not_waited_for() {
    guard(|| {
        let (_reader, writer) = full_pipe();
        let mut observed = Observed::start("unread-stdout", &["--console"], |command| {
            command.stdin(Stdio::piped()).stdout(writer.try_clone().unwrap());
        });
        let mut client = Client::greeted(observed.address());
        observed.daemon.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(client.rest(), b"SHUTDOWN");
        drop(client);
        observed.daemon.wait_ok();

        let mut daemon = Daemon::spawn(&mut with_pipe(writer, &["--notify-fd", "3"]));
        let address = daemon.started();
        daemon.wait_for("The supervisor at --notify-fd was not told");
        Client::greeted(address);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();

        let folder = Folder::new("unread-notify");
        let name = folder.file("socket");
        let supervisor = UnixDatagram::bind(&name).unwrap();
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        while other.send_to(b"full", &name).is_ok() {}
        let mut observed =
            Observed::start("unread-notify-socket", &[], |command| _ = command.env("NOTIFY_SOCKET", &name));
        let not_told = |observed: &Observed| observed.log().iter().any(|text| text.contains("was not told READY=1"));
        wait_until("the log says that the supervisor was not told", || not_told(&observed));
        observed.expect_good_end();
        drop(supervisor);
    });
}

/// The journal gets levels and no stamps.
#[test]
fn the_journal_stamps_the_lines_itself() {
    guard(|| {
        let (reader, writer) = UnixStream::pair().unwrap();
        let file = File::from(OwnedFd::from(writer.try_clone().unwrap())).metadata().unwrap();
        let mut observed = Observed::start("journal", &[], |command| {
            command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino())).stderr(OwnedFd::from(writer));
        });
        observed.expect_good_end();
        let mut shown = String::new();
        { reader }.read_to_string(&mut shown).unwrap();
        assert!(shown.starts_with("<6>PID:") && shown.contains("\n<6>Server stopped."), "{shown}");
    });
}
