//! Every example, run as its reader would run it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Client, guard};

/// Cargo puts the examples beside the folder of the test programs.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let folder: PathBuf = tests.ancestors().nth(2).unwrap().join("examples");
    assert!(folder.join(name).exists(), "not built: run `cargo build --examples` first");
    let mut command = Command::new(folder.join(name));
    command.stdout(Stdio::piped());
    command
}

struct Example(Child, BufReader<ChildStdout>);

impl Example {
    fn start(name: &str) -> (Example, Client) {
        let mut child = example(name).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").unwrap().parse().unwrap();
        (Example(child, stdout), Client::connect(address))
    }

    /// Sends SIGTERM; the client gets the notice, and the example ends well.
    fn stop(mut self, mut client: Client, notice: &str) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(client.rest(), notice.as_bytes());
        drop(client);
        assert!(self.0.wait().unwrap().success());
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        assert!(rest.starts_with("SIGTERM: 1 notified"), "{rest}");
    }
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
