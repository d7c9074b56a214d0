//! A panic on the accept loop is a line of the log like any other, and waits for nobody who does not read it.
//!
//! The program is its own daemon: with the words of a command line it runs what the command line says.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use lastorders::builtin::Echo;
use lastorders::daemon::Daemon;
use lastorders::{Connection, Flow, Service};

/// The accept loop itself opens it, because it never blocks.
struct Panics;

impl Service for Panics {
    type Session = ();

    fn never_blocks(&self) -> bool {
        true
    }

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        panic!("first\n2026-11-21 01:38:47+01:00 [INFO] forged");
    }

    fn serve(&self, _: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        Ok(Flow::Close)
    }
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return Daemon::new().tcp("echo", || Echo).tcp("panics", || Panics).main();
    }
    panics_are_lines_and_wait_for_nobody();
    ExitCode::SUCCESS
}

/// More panics than a pipe that nobody reads has room for: clients are served, the server ends, and no line is forged.
fn panics_are_lines_and_wait_for_nobody() {
    let log = std::env::temp_dir().join(format!("lastorders-panics-{}", std::process::id()));
    let mut daemon = Command::new(std::env::current_exe().unwrap());
    daemon.args(["serve", "--tcp", "echo=127.0.0.1:0", "--tcp", "panics=127.0.0.1:0", "--log-file"]).arg(&log);
    // It stops when this process ends, in whatever way.
    daemon.args(["--console", "--grace", "0"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut daemon = daemon.spawn().unwrap();
    let start = Instant::now();
    let text = loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains("(panics)\n") {
            break text;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the daemon does not start");
        std::thread::park_timeout(Duration::from_millis(1));
    };
    let addresses = text.lines().map(|line| line.split_once("started on ").unwrap().1.split(' ').next().unwrap());
    let addresses: Vec<SocketAddr> = addresses.map(|address| address.parse().unwrap()).collect();
    let connect = |address| {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client
    };
    for _ in 0..500 {
        assert!(connect(addresses[1]).read_to_end(&mut Vec::new()).is_ok_and(|count| count == 0));
    }
    let mut client = connect(addresses[0]);
    client.write_all(b"hello world").unwrap();
    client.read_exact(&mut [0; 11]).unwrap();
    drop(daemon.stdin.take());
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "SHUTDOWN");
    assert!(daemon.wait().unwrap().success());
    let mut shown = String::new();
    daemon.stderr.take().unwrap().read_to_string(&mut shown).unwrap();
    let told = shown.lines().filter(|line| line.contains("[ERROR] panicked at ") && line.contains(r"first\n2026"));
    assert!(told.count() > 100, "{shown}");
    assert!(shown.len() > 60_000 && !shown.contains("\n2026-11-21 01:38:47+01:00 [INFO] forged"), "{}", shown.len());
    fs::remove_file(log).unwrap();
}
