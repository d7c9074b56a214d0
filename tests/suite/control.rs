//! The control socket, and the ways to stop a server without a signal.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::faults::tracer::{need_strace, scratch};
use crate::logging::{Folder, read};
use crate::support::{Client, Daemon, FullServer, HANG, command, guard, need_root, prlimit, wait_until};
use crate::vitals::spent;

/// A path of this test's own, removed when it ends.
struct Path(PathBuf);

impl Path {
    fn new(name: &str) -> Path {
        let path = std::env::temp_dir().join(format!("lastorders-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Path(path)
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn ask(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(HANG / 2)).unwrap();
        // A request that is refused before its end may find the socket closed.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn control(&self, args: &[&str]) -> Output {
        command().args(["control", "--socket", self.text()]).args(args).output().unwrap()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[track_caller]
fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `status` in its three forms, from a socket that only its owner may open.
#[test]
fn status_comes_in_three_forms() {
    guard(|| {
        let path = Path::new("status");
        let daemon = Daemon::echo(&["--control", path.text()]);
        let _client = Client::greeted(daemon.address());
        assert_eq!(std::fs::metadata(&path.0).unwrap().permissions().mode() & 0o777, 0o600);
        let lines = printed(&path.control(&["status"]));
        assert!(
            lines.lines().any(|line| line == "accepted 1") && lines.lines().any(|line| line == "open 1"),
            "{lines}"
        );
        let json = printed(&path.control(&["status", "--json"]));
        assert!(json.starts_with("{\"open\": 1, ") && json.ends_with("}\n") && json.lines().count() == 1, "{json}");
        let metrics = printed(&path.control(&["status", "--metrics"]));
        assert!(metrics.contains("# TYPE lastorders_served_total counter\nlastorders_served_total 1\n"), "{metrics}");
        assert!(metrics.contains("# TYPE lastorders_open gauge\nlastorders_open 1\n"), "{metrics}");
    });
}

/// With every worker held, every slot taken and the queue full, status answers and stop drains with the notice.
#[test]
fn a_full_server_answers_and_drains() {
    guard(|| {
        let path = Path::new("full");
        let mut daemon =
            Daemon::echo(&["--control", path.text(), "--connections", "8", "--queue", "1", "--workers", "1"]);
        let full = FullServer::fill(daemon.address());
        assert!(printed(&path.control(&["status"])).contains("open 8\n"));
        assert_eq!(printed(&path.control(&["stop", "--grace", "33"])), "stopping, grace 33 seconds\n");
        assert_eq!(path.ask(b"stop\n"), "stopping already, grace 33 seconds\n");
        daemon.wait_for("Control request made, closing server in 33 seconds...");
        full.expect_notice();
        daemon.wait_ok();
        assert!(!path.0.exists(), "the socket file is removed");
    });
}

/// Rubbish, huge, empty, slow and silent requests: each gets an error or nothing, and status still answers.
#[test]
fn bad_requests_harm_nothing() {
    guard(|| {
        let path = Path::new("bad");
        let mut daemon = Daemon::echo(&["--control", path.text()]);
        for (request, answer) in [
            (&b"help\n"[..], "ERROR: unknown request \"help\""),
            (b"\n", "ERROR: unknown request \"\""),
            (b"stop -1\n", "ERROR: unknown request \"stop -1\""),
            (b"\xff\x1b[2J\0\n", "ERROR: unknown request"),
            (&[b'x'; 1_000_000], "ERROR: request longer than 128 bytes"),
        ] {
            let told = path.ask(request);
            assert!(told.starts_with(answer) && told.is_ascii(), "{told}");
        }
        // Half a request, then its end; and as many silent ones as there are places: they are dropped in time.
        let mut half = UnixStream::connect(&path.0).unwrap();
        half.write_all(b"stat").unwrap();
        half.write_all(b"us").unwrap();
        half.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        half.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("open 0\n"), "{answer}");
        let silent: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&path.0).unwrap()).collect();
        assert!(path.ask(b"status\n").starts_with("open 0\n"));
        drop(silent);
        let output = path.control(&["status", "--grace", "1"]);
        assert_eq!(output.status.code(), Some(2));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// Out of descriptors, the server cannot accept who asks: it does not spin over it, and answers when it can.
#[test]
fn a_client_that_cannot_be_accepted_is_not_spun_on() {
    guard(|| {
        let path = Path::new("spin");
        let mut daemon = Daemon::echo(&["--control", path.text()]);
        let pid = daemon.pid();
        prlimit(pid, "nofile=4:4096");
        let before = spent(pid);
        let mut asking = UnixStream::connect(&path.0).unwrap();
        asking.write_all(b"status\n").unwrap();
        asking.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        asking.read(&mut [0]).expect_err("no answer");
        let spun = spent(pid) - before;
        assert!(spun.as_millis() < 100, "{spun:?} of half a second");
        prlimit(pid, "nofile=4096:4096");
        asking.set_read_timeout(Some(HANG / 2)).unwrap();
        let mut answer = String::new();
        asking.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("open 0\n"), "{answer}");
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// The socket file of a server that was killed is replaced; that of a live one, and any other file, is an error.
#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    guard(|| {
        let path = Path::new("stale");
        drop(UnixListener::bind(&path.0).unwrap());
        assert!(path.0.exists());
        let daemon = Daemon::echo(&["--control", path.text()]);
        let refused =
            command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--control", path.text()]).output().unwrap();
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(text.contains(path.text()) && text.contains("a server answers there"), "{text}");
        assert!(path.ask(b"status\n").starts_with("open "), "the live one still answers");
        drop(daemon);
        let gone = path.control(&["status"]);
        assert_eq!(gone.status.code(), Some(1));
        assert!(String::from_utf8(gone.stderr).unwrap().contains("is a server running"));

        let file = Path::new("file");
        std::fs::write(&file.0, "precious").unwrap();
        let refused =
            command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--control", file.text()]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert_eq!(std::fs::read(&file.0).unwrap(), b"precious");

        let lost = command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--control", "/nonexistent/socket"]).output();
        let text = String::from_utf8(lost.unwrap().stderr).unwrap();
        assert!(text.contains("/nonexistent/socket") && text.contains("make its directory first"), "{text}");
    });
}

/// Two servers start at the same moment on one path, where there is nothing or a stale socket: one of them answers there,
/// and the other one says why not.
#[test]
fn of_two_starts_on_one_path_one_is_refused() {
    guard(|| {
        for round in 0..60 {
            let path = Path::new("two-starts");
            if round % 2 == 0 {
                drop(UnixListener::bind(&path.0).unwrap());
            }
            let args = ["serve", "--tcp", "echo=127.0.0.1:0", "--control", path.text()];
            let mut daemons = [(), ()].map(|()| Daemon::spawn(command().args(args)));
            let serves = daemons.each_mut().map(|daemon| daemon.wait_for_or_end("Server started on ").is_some());
            let [first, second] = daemons;
            let (mut server, mut other) = match serves {
                [true, false] => (first, second),
                [false, true] => (second, first),
                both => panic!("round {round}: {both:?}"),
            };
            assert_eq!(other.wait().code(), Some(1));
            other.expect_last("cannot listen on the control socket");
            assert!(printed(&path.control(&["stop"])).contains("stopping"), "round {round}");
            server.wait_ok();
        }
    });
}

/// A server is about to remove a stale socket while another one starts on the path: the other one's socket stays.
#[test]
fn a_socket_that_is_bound_meanwhile_is_not_taken_for_the_stale_one() {
    guard(|| {
        need_strace();
        let (path, trace) = (Path::new("meanwhile"), scratch("trace"));
        drop(UnixListener::bind(&path.0).unwrap());
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=connect,unlink", "-e", "inject=unlink:delay_enter=300000"]);
        strace.arg("-o").arg(&trace).arg(command().get_program());
        let args = ["serve", "--tcp", "echo=127.0.0.1:0", "--control", path.text()];
        let mut first = Daemon::spawn(strace.args(args).stdout(Stdio::null()).stderr(Stdio::piped()));
        wait_until("it has found the socket stale", || read(&trace).contains("ECONNREFUSED"));
        let mut second = Daemon::spawn(command().args(args));
        let serves = [&mut first, &mut second].map(|daemon| daemon.wait_for_or_end("Server started on ").is_some());
        assert_eq!(serves, [true, false]);
        second.wait();
        second.expect_last("a server answers there");
        assert!(printed(&path.control(&["stop"])).contains("stopping"));
        first.wait_ok();
        std::fs::remove_file(&trace).unwrap();
    });
}

/// A server that SIGSTOP has stopped keeps neither `control` nor another server's start waiting, though its backlog is
/// full.
#[test]
fn a_stopped_server_keeps_nobody_waiting() {
    guard(|| {
        let path = Path::new("stopped");
        let mut daemon = Daemon::echo(&["--control", path.text()]);
        daemon.signal(Signal::SIGSTOP);
        let mut waiting = vec![];
        while let Ok(stream) = connect_at_once(&path.0) {
            waiting.push(stream);
        }
        let asked = path.control(&["status"]);
        assert_eq!(asked.status.code(), Some(1));
        let started =
            command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--control", path.text()]).output().unwrap();
        let text = String::from_utf8(started.stderr).unwrap();
        assert_eq!(started.status.code(), Some(1));
        assert!(text.contains(path.text()) && text.contains("does not answer"), "{text}");
        daemon.signal(Signal::SIGCONT);
        drop(waiting);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// Connects, or fails when that would have to wait.
fn connect_at_once(path: &std::path::Path) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A server whose socket file was replaced by another server's leaves that file alone at its end.
#[test]
fn the_file_of_another_server_stays() {
    guard(|| {
        let path = Path::new("replaced");
        let mut first = Daemon::echo(&["--control", path.text()]);
        std::fs::remove_file(&path.0).unwrap();
        let second = Daemon::echo(&["--control", path.text()]);
        first.signal(Signal::SIGTERM);
        first.wait_ok();
        assert!(path.ask(b"status\n").starts_with("open "));
        drop(second);
    });
}

/// A user that is neither root nor the server's own is refused with a line, even where the socket file lets them in;
/// and that is logged. Root and the own user are answered.
#[test]
fn strangers_are_refused() {
    guard(|| {
        need_root();
        let ask = |path: &Path, user: &str| {
            let script = "import os,socket,sys\nos.setuid(int(sys.argv[2]))\ns=socket.socket(socket.AF_UNIX)\n\
                s.connect(sys.argv[1])\ntry: s.sendall(b'status\\n')\nexcept OSError: pass\n\
                print(s.recv(65536).decode())";
            let output = Command::new("python3").args(["-c", script, path.text(), user]).output();
            printed(&output.unwrap())
        };
        let open_to_all = |path: &Path| {
            std::fs::set_permissions(&path.0, std::fs::Permissions::from_mode(0o666)).unwrap();
        };
        let path = Path::new("strangers");
        let mut daemon = Daemon::echo(&["--control", path.text()]);
        open_to_all(&path);
        assert_eq!(ask(&path, "65534").trim_end(), "ERROR: only root and the user of the server may ask");
        daemon.wait_for("Control client of user 65534 (process ");
        assert!(ask(&path, "0").starts_with("open 0\n"));
        assert!(path.ask(b"status\n").starts_with("open 0\n"));
    });
}

/// `lastorders control` of such a user says that it was refused and why, be it the file that refuses or the server, which
/// may have closed the socket before it was asked.
#[test]
fn a_refused_user_is_told_why() {
    guard(|| {
        need_root();
        let path = Path::new("refused");
        let folder = Folder::new("refused");
        let daemon = Daemon::echo(&["--control", path.text()]);
        let ask = || {
            let args = ["control", "--socket", path.text(), "status"];
            let mut program = folder.command();
            let output = program.args(args).uid(65_534).gid(65_534).output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            String::from_utf8(output.stderr).unwrap()
        };
        let why = "only root and the user of the server may ask\n";
        let text = ask();
        assert!(text.contains(path.text()) && text.contains("Permission denied") && text.ends_with(why), "{text}");
        std::fs::set_permissions(&path.0, std::fs::Permissions::from_mode(0o666)).unwrap();
        for _ in 0..50 {
            let text = ask();
            assert!(text.ends_with(why) && !text.contains("is a server running"), "{text}");
        }
        assert!(printed(&path.control(&["status"])).contains("open 0\n"));
        drop(daemon);
    });
}
