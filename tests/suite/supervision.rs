//! What a supervisor hears: readiness, the begin of the shutdown, and a watchdog that falls silent when the
//! workers stand still.

use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastorders::{Builder, Connection, Error, Flow, Server, Service, Streams};
use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, HANG, Running, command, guard};

/// How often the servers of these tests beat.
const BEAT: Duration = Duration::from_millis(10);
/// A beat that has not come within this time does not come.
const SILENCE: Duration = Duration::from_millis(500);

/// A service whose every call waits until it is let go.
struct Stuck {
    entered: Mutex<mpsc::Sender<()>>,
    leave: Mutex<Receiver<()>>,
}

impl Service for Stuck {
    type Session = ();
    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }
    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let held = input.bytes().contains(&b'!');
        output.push(input.bytes());
        input.consume(input.bytes().len());
        if held {
            self.entered.lock().unwrap().send(()).unwrap();
            self.leave.lock().unwrap().recv().unwrap();
        }
        Ok(Flow::Continue)
    }
}

/// A running server of that service, with its beats, and what tells and ends the calls.
struct Scene {
    server: Running,
    beats: Receiver<()>,
    entered: Receiver<()>,
    leave: mpsc::Sender<()>,
}

impl Scene {
    fn start(workers: usize) -> Scene {
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel();
        let service = Stuck { entered: Mutex::new(enter), leave: Mutex::new(left) };
        let (builder, beats) = watched(Server::builder(service).workers(workers));
        Scene { server: Running::start(builder), beats, entered, leave }
    }

    /// A client whose request holds a worker.
    fn holder(&self) -> Client {
        let mut client = self.server.client();
        client.send("!");
        self.entered.recv_timeout(HANG / 2).unwrap();
        client
    }
}

fn watched(builder: Builder) -> (Builder, Receiver<()>) {
    let (beat, beats) = mpsc::channel();
    (builder.watchdog(BEAT, move || beat.send(()).unwrap_or(())), beats)
}

#[track_caller]
fn expect_beats(beats: &Receiver<()>) {
    while beats.try_recv().is_ok() {}
    for _ in 0..10 {
        beats.recv_timeout(HANG / 2).expect("a beat");
    }
}

#[track_caller]
fn expect_silence(beats: &Receiver<()>) {
    // A beat or two may be under way.
    let heard = (0..10).take_while(|_| beats.recv_timeout(SILENCE) != Err(RecvTimeoutError::Timeout)).count();
    assert!(heard < 10, "it goes on");
}

/// With every worker stuck in the service the watchdog beats for as long as nobody waits, falls silent when
/// somebody does, and beats again when the workers are free.
#[test]
fn stuck_workers_silence_the_watchdog_while_work_waits() {
    guard(|| {
        let scene = Scene::start(2);
        expect_beats(&scene.beats);
        let holders = [scene.holder(), scene.holder()];
        expect_beats(&scene.beats);
        let mut waiting = scene.server.client();
        waiting.send("hello");
        expect_silence(&scene.beats);
        holders.iter().for_each(|_| scene.leave.send(()).unwrap());
        waiting.expect("hello");
        expect_beats(&scene.beats);
        drop(scene.leave);
        scene.server.stop();
    });
}

/// One free worker is enough, however many are stuck.
#[test]
fn one_worker_that_moves_keeps_the_watchdog_going() {
    guard(|| {
        let scene = Scene::start(2);
        let _holder = scene.holder();
        let mut other = scene.server.client();
        other.echo(b"hello");
        expect_beats(&scene.beats);
        other.echo(b"hello");
        drop(scene.leave);
        scene.server.stop();
    });
}

/// With the only worker stuck nobody watches over the parked connections: a client of those that speaks waits for a
/// worker, even though the ready queue is empty.
#[test]
fn a_parked_client_that_nobody_watches_silences_the_watchdog() {
    guard(|| {
        let scene = Scene::start(1);
        let mut parked = scene.server.client();
        parked.echo(b"hello");
        let _holder = scene.holder();
        expect_beats(&scene.beats);
        parked.send("hello");
        expect_silence(&scene.beats);
        scene.leave.send(()).unwrap();
        parked.expect("hello");
        expect_beats(&scene.beats);
        drop(scene.leave);
        scene.server.stop();
    });
}

/// A stream handler whose client is silent holds its worker up to a timeout. Another client waits meanwhile, but the
/// server is not stuck: else anybody could have it killed by a watchdog.
#[test]
fn a_silent_client_of_a_stream_handler_does_not_silence_the_watchdog() {
    guard(|| {
        let lines = Streams::new(|client| {
            let mut line = String::new();
            while client.read_line(&mut line)? > 0 {
                io::Write::write_all(client, line.as_bytes())?;
                line.clear();
            }
            Ok(())
        });
        let (builder, beats) = watched(Server::builder(lines).workers(1));
        let server = Running::start(builder);
        let mut holder = server.client();
        holder.echo(b"hello\n");
        let mut waiting = server.client();
        waiting.send("hello\n");
        expect_beats(&beats);
        drop(holder);
        waiting.expect("hello\n");
        drop(waiting);
        server.stop();
    });
}

/// The hooks are called once each and in their order, ready before any client and drain before the notice. One
/// that panics ends nothing.
#[test]
fn the_hooks_run_once_each_and_may_panic() {
    guard(|| {
        let heard = Arc::new(Mutex::new(vec![]));
        let note = |what: &'static str| {
            let heard = heard.clone();
            move || heard.lock().unwrap().push(what)
        };
        let builder = Server::builder(lastorders::services::Echo)
            .on_ready(note("ready"))
            .on_ready(|| panic!("on purpose"))
            .on_ready(note("ready too"))
            .on_drain(|| panic!("on purpose"))
            .on_drain(note("drain"))
            .watchdog(BEAT, || panic!("on purpose"));
        let server = Running::start(builder);
        let mut client = Client::greeted(server.address);
        assert_eq!(*heard.lock().unwrap(), ["ready", "ready too"]);
        server.handle.shutdown();
        client.expect("SHUTDOWN");
        assert_eq!(*heard.lock().unwrap(), ["ready", "ready too", "drain"]);
        drop(client);
        server.report();
    });
}

/// A watchdog that would spin, or cannot be, is refused with its range.
#[test]
fn an_impossible_interval_is_refused() {
    for (interval, shown) in [(Duration::ZERO, "0"), (Duration::from_secs(86_401), "86401")] {
        let builder = Server::builder(lastorders::services::Echo).listen("127.0.0.1:0").unwrap();
        match builder.watchdog(interval, || {}).build() {
            Err(error @ Error::Limit { .. }) => {
                assert_eq!(
                    error.to_string(),
                    format!("watchdog {shown} is out of range; choose 0.001 to 86400 seconds")
                );
            }
            other => panic!("{:?}", other.err()),
        }
    }
}

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

/// The address that the daemon's log line tells.
#[track_caller]
fn address(daemon: &mut Daemon) -> SocketAddr {
    let line = daemon.wait_for("Server started on ");
    line.split("Server started on ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

/// READY when clients are served, then beats, then STOPPING before the clients are told; in that order.
#[test]
fn the_supervisor_hears_ready_beats_and_stopping() {
    guard(|| {
        let (supervisor, name) = Supervisor::at_path("notify");
        let mut daemon = Daemon::spawn(echo(&[]).env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "20000"));
        assert_eq!(supervisor.next(), "READY=1");
        let address = address(&mut daemon);
        let mut client = Client::greeted(address);
        for _ in 0..10 {
            assert_eq!(supervisor.next(), "WATCHDOG=1");
        }
        daemon.signal(Signal::SIGTERM);
        client.expect("SHUTDOWN");
        // The datagram was there before the notice was.
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
        supervisor.socket.set_read_timeout(Some(SILENCE / 2)).unwrap();
        assert!(supervisor.socket.recv(&mut [0; 64]).is_err());
        supervisor.socket.set_read_timeout(Some(HANG / 2)).unwrap();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(supervisor.next(), "STOPPING=1");
        daemon.wait_ok();

        let mut daemon = Daemon::spawn(echo(&[]).env("WATCHDOG_USEC", "2000"));
        Client::greeted(address(&mut daemon));
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
        let address = address(&mut daemon);
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
fn with_pipe(writer: OwnedFd, args: &[&str]) -> Command {
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
        Client::greeted(address(&mut daemon));
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
            (["--notify-fd", "9"], ["--notify-fd 9", "Bad file"]),
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
