//! What a supervisor of the daemon gets: readiness, the beginning of the shutdown, and pings of the watchdog.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, HANG, command, guard};

/// What a supervisor of `Type=notify` listens on.
struct Supervisor {
    socket: UnixDatagram,
    path: Option<PathBuf>,
}

impl Supervisor {
    fn at_path(name: &str) -> (Supervisor, String) {
        let path = std::env::temp_dir().join(format!("lastorders-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let name = path.to_str().unwrap().to_string();
        (Supervisor::new(UnixDatagram::bind(&path).unwrap(), Some(path)), name)
    }

    fn abstractly(name: &str) -> (Supervisor, String) {
        let name = format!("lastorders-{name}-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        (Supervisor::new(UnixDatagram::bind_addr(&address).unwrap(), None), format!("@{name}"))
    }

    fn new(socket: UnixDatagram, path: Option<PathBuf>) -> Supervisor {
        socket.set_read_timeout(Some(HANG / 2)).unwrap();
        Supervisor { socket, path }
    }

    #[track_caller]
    fn next(&self) -> String {
        let mut bytes = [0; 256];
        let count = self.socket.recv(&mut bytes).expect("news of the daemon");
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.path.as_ref().map(std::fs::remove_file);
    }
}

fn echo(args: &[&str]) -> Command {
    let mut command = command();
    command.args(["serve", "--tcp", "echo=127.0.0.1:0"]).args(args);
    command
}

/// READY when clients are served, then pings, then STOPPING before the first notice; in that order.
#[test]
fn the_supervisor_gets_ready_watchdog_and_stopping() {
    guard(|| {
        let (supervisor, name) = Supervisor::at_path("notify");
        let mut daemon = Daemon::spawn(echo(&[]).env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "400000"));
        assert_eq!(supervisor.next(), "READY=1");
        let address = daemon.started();
        let mut client = Client::greeted(address);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(supervisor.next(), "WATCHDOG=1");
        }
        assert!(start.elapsed() >= Duration::from_millis(400), "twice 200 ms lie between three pings");
        daemon.signal(Signal::SIGTERM);
        client.expect("SHUTDOWN");
        // The datagram was there before the notice was. The kernel keeps ten at least: two seconds of pings.
        supervisor.socket.set_nonblocking(true).unwrap();
        while supervisor.next() != "STOPPING=1" {}
        drop(client);
        daemon.wait_ok();
        assert!(!daemon.log.iter().any(|line| line.contains("supervisor")), "{:#?}", daemon.log);
    });
}

/// An abstract socket is one too. A watchdog that another process is to feed is not fed, and one without a socket
/// to tell is no obstacle.
#[test]
fn an_abstract_socket_is_notified_and_a_foreign_watchdog_is_not() {
    guard(|| {
        let (supervisor, name) = Supervisor::abstractly("notify");
        let mut command = echo(&[]);
        let mut daemon =
            Daemon::spawn(command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "2000").env("WATCHDOG_PID", "1"));
        assert_eq!(supervisor.next(), "READY=1");
        supervisor.socket.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
        assert!(supervisor.socket.recv(&mut [0; 64]).is_err());
        supervisor.socket.set_read_timeout(Some(HANG / 2)).unwrap();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(supervisor.next(), "STOPPING=1");
        daemon.wait_ok();

        let mut daemon = Daemon::spawn(echo(&[]).env("WATCHDOG_USEC", "2000"));
        Client::greeted(daemon.started());
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// A supervisor that is gone, or does not read, costs a line in the log.
#[test]
fn a_supervisor_that_does_not_listen_is_logged_and_no_more() {
    guard(|| {
        let (supervisor, name) = Supervisor::at_path("deaf");
        drop(supervisor);
        let mut daemon = Daemon::spawn(echo(&[]).env("NOTIFY_SOCKET", name));
        let address = daemon.started();
        daemon.wait_for("NOTIFY_SOCKET was not told READY=1");
        Client::greeted(address);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for("NOTIFY_SOCKET was not told STOPPING=1");
        daemon.wait_ok();
    });
}

/// Values that make no sense are a usage error that shows them.
#[test]
fn garbled_variables_are_refused() {
    guard(|| {
        for (name, value) in [("NOTIFY_SOCKET", "vsock:2:1"), ("WATCHDOG_USEC", "0"), ("LASTORDERS_NOTIFY_FD", "out")] {
            let output = echo(&[]).env(name, value).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(&format!("{name} {value:?}: expected ")), "{text}");
        }
    });
}

/// The daemon with a pipe's writing end as its descriptor 3, as s6 and OpenRC start it.
pub fn with_pipe(writer: OwnedFd, args: &[&str]) -> Command {
    let program = echo(args);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3>&1 >/dev/null; exec \"$@\"", "sh"]);
    shell.arg(program.get_program()).args(program.get_args());
    shell.stdin(Stdio::null()).stdout(Stdio::from(writer)).stderr(Stdio::piped());
    shell
}

/// Once ready, and not before, the daemon writes a line to the descriptor and closes it while it goes on.
#[test]
fn a_line_on_the_descriptor_says_ready() {
    guard(|| {
        let (reader, writer) = io::pipe().unwrap();
        let mut daemon = Daemon::spawn(&mut with_pipe(writer.into(), &["--notify-fd", "3"]));
        let mut text = String::new();
        (&reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "\n");
        Client::greeted(daemon.started());
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// A daemon that cannot start closes the descriptor without a word.
#[test]
fn nothing_is_written_when_the_start_fails() {
    guard(|| {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = with_pipe(writer.into(), &["--notify-fd=3", "--tcp", "echo=192.0.2.1:9"]);
        let mut daemon = Daemon::spawn(&mut command);
        drop(command);
        let mut text = String::new();
        (&reader).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), daemon.wait().code()), ("", Some(1)));
    });
}

/// A descriptor that is not open, or is not for writing, is refused by its number.
#[test]
fn a_descriptor_that_cannot_be_written_to_is_refused() {
    guard(|| {
        for (args, parts) in [
            (["--notify-fd", "1023"], ["--notify-fd 1023", "Bad file"]),
            (["--notify-fd", "3"], ["--notify-fd 3", "reading only"]),
        ] {
            let null = std::fs::File::open("/dev/null").unwrap();
            let output = with_pipe(null.into(), &args).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    });
}
