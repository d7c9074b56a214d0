//! The console: one that is closed, one without a reader, and Enter.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use crate::logging::{Folder, read, stop, texts, visits};
use crate::support::{Client, Daemon, FullServer, command, guard, wait_until};

/// A daemon whose console has no reader.
fn without_reader(path: &str, stderr: impl Into<Stdio>) -> Daemon {
    let mut command = command();
    command.args(["serve", "--tcp", "echo=127.0.0.1:0", "--log-file", path]).stderr(stderr);
    Daemon::silent(&mut command, path)
}

/// Standard error is a pipe whose reader is gone, or a full disk: the server serves on, and the file has every line.
#[test]
fn a_closed_console_never_stops_the_server() {
    guard(|| {
        let folder = Folder::new("closed");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        for (name, stderr) in [("pipe", Stdio::from(writer)), ("full", Stdio::from(full))] {
            let path = folder.file(name);
            let mut daemon = without_reader(&path, stderr);
            visits(daemon.address(), 10);
            stop(&mut daemon);
            let texts = texts(&read(&path));
            assert_eq!(texts.iter().filter(|text| text.starts_with("Starting connection")).count(), 10);
            assert!(texts.last().unwrap().starts_with("Server stopped."));
        }
    });
}

/// The console has no reader, and its pipe is full: the server serves on. Once there is a reader, the daemon says how
/// many lines were lost.
#[test]
fn a_console_without_a_reader_costs_lines_and_they_are_counted() {
    guard(|| {
        let folder = Folder::new("stuck");
        let path = folder.file("log");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut daemon = without_reader(&path, writer);
        // A pipe holds 64 KiB, and these are over 90.
        visits(daemon.address(), 600);
        let (sender, pieces) = mpsc::channel();
        let reading = thread::spawn(move || {
            let mut bytes = [0; 16_384];
            while let count @ 1.. = reader.read(&mut bytes).unwrap() {
                sender.send(bytes[..count].to_vec()).unwrap();
            }
        });
        let mut shown = Vec::new();
        wait_until("the console is written to again", || {
            visits(daemon.address(), 1);
            shown.extend(pieces.try_iter().flatten());
            String::from_utf8_lossy(&shown).contains("were lost here")
        });
        stop(&mut daemon);
        reading.join().unwrap();
        shown.extend(pieces.iter().flatten());
        let shown = String::from_utf8(shown).unwrap();
        let mut expected = texts(&read(&path)).into_iter();
        for line in shown.lines() {
            let text = line.split_once("] ").unwrap().1;
            match text.strip_suffix(" log lines were lost here") {
                Some(lost) => drop(expected.nth(lost.parse::<usize>().unwrap() - 1).unwrap()),
                None => assert_eq!(Some(text), expected.next().as_deref()),
            }
        }
        assert_eq!(expected.next(), None);
    });
}

/// Enter, and the end of input, each let the clients finish; what the person reads is exact.
#[test]
fn enter_and_the_end_of_input_stop_the_server_with_notice() {
    guard(|| {
        for input in ["\n", "quit\n", ""] {
            let mut command = command();
            command.args(["serve", "--tcp", "echo=127.0.0.1:0", "--console", "--grace", "30"]).stdin(Stdio::piped());
            let mut daemon = Daemon::spawn(&mut command);
            let mut client = Client::greeted(daemon.started());
            let mut stdin = daemon.child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            let stdin = (!input.is_empty()).then_some(stdin);
            assert_eq!(client.rest(), b"SHUTDOWN");
            drop(client);
            let mut stdout = daemon.child.stdout.take().unwrap();
            daemon.wait_ok();
            drop(stdin);
            let mut said = String::new();
            stdout.read_to_string(&mut said).unwrap();
            assert_eq!(said, "Press Enter to quit.\nWaiting for server to shut down...\nExiting now.\n");
        }
    });
}

/// Enter drains a server with every slot taken, under load, as a signal does.
#[test]
fn enter_drains_a_full_server() {
    guard(|| {
        let mut command = command();
        command.args(["serve", "--tcp", "echo=127.0.0.1:0", "--console", "--connections", "8", "--grace", "30"]);
        let mut daemon = Daemon::spawn(command.stdin(Stdio::piped()));
        let full = FullServer::fill(daemon.started());
        daemon.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        full.expect_notice();
        daemon.wait_ok();
    });
}

/// A signal stops a server with a console too: the thread that waits for Enter keeps nothing from ending. Nor does a
/// standard output that is gone.
#[test]
fn the_wait_for_enter_does_not_keep_the_server_from_ending() {
    guard(|| {
        let mut daemon = command();
        daemon.args(["serve", "--tcp", "echo=127.0.0.1:0", "--console"]).stdin(Stdio::piped());
        let mut daemon = Daemon::spawn(&mut daemon);
        let stdin = daemon.child.stdin.take();
        drop(daemon.child.stdout.take());
        daemon.wait_for("Server started on ");
        stop(&mut daemon);
        drop(stdin);
    });
}

/// A forking server must have one thread, which the wait for Enter would add to: said at once, with a way out.
#[test]
fn a_forking_server_has_no_console() {
    guard(|| {
        let output = command().args(["serve", "--fork", "--console"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("--console waits in a thread"));
    });
}
