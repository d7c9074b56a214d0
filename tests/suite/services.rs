//! The small TCP services over real sockets: upper, upper-lines and command, and one that fills its output; kv has
//! a file of its own.

use std::io::{self, Write};
use std::sync::mpsc;

use lastorders::builtin::{Command, Upper, UpperLines};
use lastorders::{CloseReason, Connection, Flow, Limits, Server, Service};

use crate::support::{Client, Daemon, HANG, Running, guard};

const HAIKU: &[u8] =
    b"A haiku on \"Error 404\"\r\n\r\n  You step in the stream,\r\n  But the water has moved on.\r\n  This file is not here.\r\n";

fn with_buffer(service: impl Service, buffer: usize) -> Running {
    Running::start(Server::builder(service).limits(Limits { buffer, ..Limits::default() }))
}

/// Sends `text`, closes the sending side, and returns all that comes back.
fn ask(running: &Running, text: impl AsRef<[u8]>) -> String {
    let mut client = running.client();
    client.send(text);
    client.finish();
    String::from_utf8(client.rest()).unwrap()
}

/// The daemon offers every service by its name, announces the sockets in the order of the options, and several
/// addresses in a row for one service.
#[test]
fn the_daemon_offers_each_service_by_name() {
    guard(|| {
        let names = ["upper", "kv", "command", "command", "upper-lines", "echo", "kv"];
        let options: Vec<String> = names.iter().map(|name| format!("{name}=127.0.0.1:0")).collect();
        let args: Vec<&str> = options.iter().flat_map(|option| ["--tcp", option]).collect();
        let mut daemon = Daemon::serve(&args);
        let announced: Vec<&String> = daemon.log.iter().filter(|line| line.contains("Server started on")).collect();
        for ((line, address), name) in announced.iter().zip(&daemon.addresses).zip(names) {
            assert!(line.ends_with(&format!("Server started on {address} ({name})")), "{line}");
        }
        let talks = [
            ("hi", "HI"),
            ("QUIT\n", "READY\nBYE\n"),
            ("hi\n", "Unknown command:hi"),
            ("poem\n", std::str::from_utf8(HAIKU).unwrap()),
            ("a\nb", "A\nB"),
            ("hi", "hi"),
            ("GET a\n", "READY\nNOT_FOUND\n"),
        ];
        for (address, (text, answer)) in daemon.addresses.iter().zip(talks) {
            let mut client = Client::connect(*address);
            client.send(text);
            client.finish();
            assert_eq!(String::from_utf8_lossy(&client.rest()), answer, "{text:?}");
        }
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// Upper answers each chunk at once, changes no byte but ASCII letters, and says goodbye without a newline.
#[test]
fn upper_answers_chunks_in_upper_case() {
    guard(|| {
        let running = Running::start(Server::builder(Upper));
        let mut client = running.client();
        client.send("hello world");
        client.expect("HELLO WORLD");
        let all: Vec<u8> = (0..=255).collect();
        client.send(&all);
        client.expect(all.to_ascii_uppercase());
        client.send("\u{e9}\u{df}\u{131}");
        client.expect("\u{e9}\u{df}\u{131}");
        running.handle.shutdown();
        assert_eq!(client.rest(), b"SHUTDOWN");
        drop(client);
        running.report();
    });
}

/// A megabyte through a buffer of 64 bytes, read while it is being sent: nothing is lost, nothing changes twice.
#[test]
fn upper_loses_nothing_of_a_long_stream() {
    guard(|| {
        let running = with_buffer(Upper, 64);
        let text: Vec<u8> = (0..1_000_000_u32).map(|index| (index * 7 + index / 251) as u8).collect();
        let mut client = running.client();
        let mut writer = Client(client.0.try_clone().unwrap());
        let sent = text.clone();
        let writing = std::thread::spawn(move || {
            writer.send(sent);
            writer.finish();
        });
        assert!(client.rest() == text.to_ascii_uppercase());
        writing.join().unwrap();
        running.stop();
    });
}

/// Upper-lines answers whole lines with the ends they came with; an unfinished one waits, and is not answered
/// when the server stops; at the end of input it is.
#[test]
fn upper_lines_answers_whole_lines() {
    guard(|| {
        let running = Running::start(Server::builder(UpperLines));
        assert_eq!(ask(&running, "one\r\ntwo\n\nlast"), "ONE\r\nTWO\n\nLAST");
        assert_eq!(ask(&running, "last"), "LAST");
        assert_eq!(ask(&running, ""), "");
        let mut client = running.client();
        client.send("one\nunfini");
        client.expect("ONE\n");
        client.send("shed\ntwo");
        client.expect("UNFINISHED\n");
        running.handle.shutdown();
        assert_eq!(client.rest(), b"SHUTDOWN\n");
        drop(client);
        running.report();
    });
}

/// A line that fits into the buffer with its newline is answered; a longer one is an error, after the answers to
/// the lines before it.
#[test]
fn upper_lines_refuses_a_line_that_is_too_long() {
    guard(|| {
        let running = with_buffer(UpperLines, 64);
        let longest = "x".repeat(63) + "\n";
        assert_eq!(ask(&running, longest.repeat(3)), longest.to_uppercase().repeat(3));
        let mut client = running.client();
        client.send(longest.clone() + &"y".repeat(64));
        client.expect(longest.to_uppercase());
        client.expect("ERROR: line too long\n");
        client.expect_end();
        running.stop();
    });
}

/// Every command, in any case and with any line end, gets its exact answer, and then the end of stream.
#[test]
fn command_answers_one_line_and_closes() {
    guard(|| {
        let running = Running::start(Server::builder(Command::default()));
        for (line, answer) in [
            ("SONG\n", &b"Old McDonald had a farm, E-I-E-I-O!\r\n"[..]),
            ("song\r\n", b"Old McDonald had a farm, E-I-E-I-O!\r\n"),
            ("Quote\r\r\n", b"And now for something completely different...\r\n"),
            ("HAIKU\n", HAIKU),
            ("poem\r\n", HAIKU),
            ("\n", b"Unknown command:"),
            ("\r\n", b"Unknown command:"),
            ("Sing a song\r\n", b"Unknown command:Sing a song"),
            (" song\n", b"Unknown command: song"),
            ("song \n", b"Unknown command:song "),
            ("caf\u{e9}\0\t\n", "Unknown command:caf\u{e9}\0\t".as_bytes()),
            // Only the first line counts.
            ("song\nquote\n", b"Old McDonald had a farm, E-I-E-I-O!\r\n"),
        ] {
            let mut client = running.client();
            client.send(line);
            assert_eq!(client.rest(), answer, "{line:?}");
        }
        running.stop();
    });
}

/// A line without an end is answered when the client closes its sending side; one that comes byte by byte when
/// it is whole; no line at all gets no answer.
#[test]
fn command_waits_for_the_line() {
    guard(|| {
        let running = Running::start(Server::builder(Command::default()));
        assert_eq!(ask(&running, "song"), "Old McDonald had a farm, E-I-E-I-O!\r\n");
        assert_eq!(ask(&running, "nope\r"), "Unknown command:nope");
        assert_eq!(ask(&running, ""), "");
        let mut client = running.client();
        "quote\r\n".chars().for_each(|letter| client.send(letter.to_string()));
        assert_eq!(client.rest(), b"And now for something completely different...\r\n");
        let mut silent = running.client();
        silent.send("son");
        let mut other = running.client();
        other.send("\n");
        assert_eq!(other.rest(), b"Unknown command:");
        drop(other);
        running.handle.shutdown();
        assert_eq!(silent.rest(), b"SHUTDOWN\n");
        drop(silent);
        running.report();
    });
}

/// Answers longer than the buffer arrive whole; a line longer than it is refused.
#[test]
fn command_answers_what_exceeds_its_buffer() {
    guard(|| {
        let running = with_buffer(Command::default(), 64);
        assert_eq!(ask(&running, "haiku\n").as_bytes(), HAIKU);
        let longest = "x".repeat(63);
        assert_eq!(ask(&running, longest.clone() + "\n"), format!("Unknown command:{longest}"));
        let mut client = running.client();
        client.send(longest + "xx\n");
        assert_eq!(client.rest(), b"ERROR: line too long\n");
        running.stop();
    });
}

/// A service written against the trait. It answers each line with ten bytes, and either looks at the room first, as the
/// trait's documentation shows, or does not.
struct Tens {
    least_room: usize,
    reasons: mpsc::Sender<String>,
}

impl Service for Tens {
    type Session = ();
    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }
    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        while let Some((taken, line)) = input.line() {
            if output.room() < self.least_room {
                break;
            }
            write!(output, "{:-<10}", String::from_utf8_lossy(line))?;
            input.consume(taken);
        }
        Ok(Flow::Continue)
    }
    fn close(&self, (): (), reason: &CloseReason) {
        let _ = self.reasons.send(match reason {
            CloseReason::Error(error) => format!("{:?}: {error}", error.kind()),
            reason => format!("{reason:?}"),
        });
    }
}

/// Has a client send 1,500 lines at once, and returns why its connection was closed.
fn pipeline(least_room: usize, read: impl FnOnce(&mut Client)) -> String {
    let (reasons, reason) = mpsc::channel();
    let running = Running::start(Server::builder(Tens { least_room, reasons }));
    let mut client = running.client();
    client.send((0..1_500).map(|number| format!("{number}\n")).collect::<String>());
    read(&mut client);
    let reason = reason.recv_timeout(HANG / 2).unwrap();
    running.stop();
    reason
}

/// A service that leaves a line whose answer has no room is called again for it once its output is sent.
#[test]
fn a_service_that_looks_at_the_room_answers_1500_pipelined_lines() {
    guard(|| {
        let reason = pipeline(10, |client| {
            client.finish();
            let answers: String = (0..1_500).map(|number| format!("{number:-<10}")).collect();
            assert_eq!(String::from_utf8_lossy(&client.rest()), answers);
        });
        assert_eq!(reason, "Left");
    });
}

/// The error of a service that does not look says which buffer is full, its size, and what would be right.
#[test]
fn a_full_output_is_named_in_the_error() {
    guard(|| {
        let text = "the output buffer of 4096 bytes is full; write no more than its room() in one call";
        assert_eq!(pipeline(0, Client::expect_gone), format!("WriteZero: {text}"));
    });
}
