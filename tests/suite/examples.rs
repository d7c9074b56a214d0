//! Every example, run as its reader would run it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use lastorders::Group;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Client, HANG, command, guard};

/// Cargo puts the examples beside the folder of the test programs.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let folder: PathBuf = tests.ancestors().nth(2).unwrap().join("examples");
    assert!(folder.join(name).exists(), "not built: run `cargo build --examples` first");
    let mut command = Command::new(folder.join(name));
    command.stdout(Stdio::piped());
    command
}

struct Example {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Example {
    fn spawn(command: &mut Command) -> Example {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let address = next_address(&mut stdout);
        Example { child, stdout, address }
    }

    fn start(name: &str) -> (Example, Client) {
        let example = Example::spawn(&mut example(name));
        let client = Client::connect(example.address);
        (example, client)
    }

    /// Sends SIGTERM; the client gets the notice, and the example ends well.
    fn stop(self, mut client: Client, notice: &str) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(client.rest(), notice.as_bytes());
        drop(client);
        self.expect_end("SIGTERM: 1 notified");
    }

    /// The rest of its standard output.
    #[track_caller]
    fn expect_end(mut self, text: &str) {
        assert!(self.child.wait().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with(text), "{rest}");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn next_line(stdout: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line.trim_end().to_string()
}

fn next_address(stdout: &mut BufReader<ChildStdout>) -> SocketAddr {
    next_line(stdout).strip_prefix("listening on ").unwrap().parse().unwrap()
}

/// Echo answers, and stops on a signal.
#[test]
fn echo_runs() {
    guard(|| {
        let (example, mut client) = Example::start("echo");
        client.echo(b"hello world");
        example.stop(client, "SHUTDOWN");
    });
}

/// The line service adds up, reports what is no number, and closes on request.
#[test]
fn lines_runs() {
    guard(|| {
        let (example, mut client) = Example::start("lines");
        client.send("1 2 3.5\none\n");
        client.expect("6.5\nERROR: invalid float literal\n");
        example.stop(client, "SHUTDOWN\n");
    });
}

/// The stateful service keeps its count between requests.
#[test]
fn stateful_runs() {
    guard(|| {
        let (example, mut client) = Example::start("stateful");
        client.expect("client 1\n");
        client.send("four");
        client.expect("4 bytes\n");
        client.send("and six");
        client.expect("11 bytes\n");
        example.stop(client, "SHUTDOWN");
    });
}

/// The stream handler talks with blocking reads and writes.
#[test]
fn stream_runs() {
    guard(|| {
        let (example, mut client) = Example::start("stream");
        client.send("Ada\n");
        client.expect("Hello, Ada. How old are you? ");
        client.send("36\n");
        client.expect("Then you will be 37 next year.\n");
        let mut other = Client::connect(client.0.peer_addr().unwrap());
        client.expect_end();
        other.send("Bob");
        example.stop(other, "Hello, Bob. How old are you? That is no age.\nSHUTDOWN");
    });
}

/// The handle stops a server without a signal.
#[test]
fn handle_runs() {
    guard(|| {
        let output = example("handle").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        for part in ["5 requests served", "the server said \"SHUTDOWN\"", "Shutdown request: 1 notified, 1 left"] {
            assert!(text.contains(part), "{text}");
        }
    });
}

/// The store holds what it is given.
#[test]
fn kv_runs() {
    guard(|| {
        let (example, mut client) = Example::start("kv");
        client.expect("READY\n");
        client.send("SET colour blue\nGET colour\n");
        client.expect("OK\nblue\n");
        example.stop(client, "SHUTDOWN\n");
    });
}

/// The table's answer comes, and the end of the connection.
#[test]
fn command_runs() {
    guard(|| {
        let (example, mut client) = Example::start("command");
        client.send("hello\n");
        assert_eq!(client.rest(), b"Hello yourself.\r\n");
        let other = Client::connect(example.address);
        example.stop(other, "SHUTDOWN\n");
    });
}

/// A datagram is answered, and what is sent to the group is printed.
#[test]
fn datagrams_runs() {
    guard(|| {
        let mut example = Example::spawn(example("datagrams").args(["127.0.0.1:0", "239.1.1.3:0", "lo"]));
        let group = next_address(&mut example.stdout);
        assert_eq!(next_line(&mut example.stdout), "ready");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(HANG / 2)).unwrap();
        socket.send_to(b"desserts", example.address).unwrap();
        let mut reply = [0; 16];
        let count = socket.recv(&mut reply).unwrap();
        assert_eq!(&reply[..count], b"stressed");
        Group::new(group, "lo".parse().ok()).unwrap().send(b"hello", 1).unwrap();
        let line = next_line(&mut example.stdout);
        assert!(line.starts_with("\"hello\" from "), "{line}");
        kill(Pid::from_raw(example.child.id() as i32), Signal::SIGTERM).unwrap();
        example.expect_end("SIGTERM: 0 notified");
    });
}

/// Each client has a process, and the crash of one leaves the other.
#[test]
fn forking_runs() {
    guard(|| {
        let (example, mut client) = Example::start("forking");
        let process = |client: &mut Client| {
            client.send("hello\n");
            let reply = String::from_utf8(client.recv()).unwrap();
            reply.strip_suffix(": hello\n").expect("a number").to_string()
        };
        let mut other = Client::connect(example.address);
        assert_ne!(process(&mut client), process(&mut other));
        other.send("crash\n");
        other.expect_gone();
        process(&mut client);
        example.stop(client, "SHUTDOWN");
    });
}

/// The control socket tells the counters, and stops the server.
#[test]
fn control_runs() {
    guard(|| {
        let path = std::env::temp_dir().join(format!("lastorders-example-{}", std::process::id()));
        let example = Example::spawn(example("control").arg("127.0.0.1:0").arg(&path));
        let mut client = Client::greeted(example.address);
        let control = |ask: &str| command().arg("control").arg("--socket").arg(&path).arg(ask).output().unwrap();
        let status = String::from_utf8(control("status").stdout).unwrap();
        assert!(status.contains("served 1\n"), "{status}");
        assert!(control("stop").status.success());
        assert_eq!(client.rest(), b"SHUTDOWN");
        drop(client);
        example.expect_end("Control request: 1 notified, 1 left");
    });
}

/// Enter stops the server.
#[test]
fn console_runs() {
    guard(|| {
        let mut example = Example::spawn(example("console").stdin(Stdio::piped()));
        assert_eq!(next_line(&mut example.stdout), "Press Enter to quit.");
        let mut client = Client::connect(example.address);
        client.send("unfinished");
        let mut stdin = example.child.stdin.take().unwrap();
        stdin.write_all(b"\n").unwrap();
        assert_eq!(client.rest(), b"SHUTDOWN\n");
        drop(client);
        example.expect_end("Shutdown request: 1 notified, 1 left");
    });
}
