//! The key-value service over real sockets: every text, every odd line, and clients that misbehave.

use lastorders::builtin::Kv;
use lastorders::{Limits, Server};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::{Client, Daemon, Running, command, guard, wait_until};

fn start(entries: usize, bytes: usize, buffer: usize) -> Running {
    let limits = Limits { buffer, ..Limits::default() };
    Running::start(Server::builder(Kv::new(entries, bytes).unwrap()).limits(limits))
}

/// A client that was greeted.
pub fn ready(address: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.expect("READY\n");
    client
}

/// Every line of the protocol, the odd ones too, and its answer, byte for byte.
#[test]
fn each_line_has_its_answer() {
    guard(|| {
        let running = start(8, 4_096, 4_096);
        let mut client = ready(running.address);
        for (line, answer) in [
            (&b"GET a\n"[..], "NOT_FOUND"),
            (b"SET a 1\n", "OK"),
            (b"GET a\n", "1"),
            (b"get a\r\n", "1"),
            (b" \t Set\ta  \t two   words \t\r\n", "OK"),
            (b"\tgEt   a ", ""),
            (b"\n", "two   words"),
            ("SET\u{2003}\u{43a}\u{a0}\u{3b6} \u{3000} z\u{85}\n".as_bytes(), "OK"),
            ("GET \u{43a}\n".as_bytes(), "\u{3b6} \u{3000} z"),
            (b"SET \0 \0\x01\n", "OK"),
            (b"GET \0\n", "\0\x01"),
            (b"SET a SET b 1\n", "OK"),
            (b"GET a\n", "SET b 1"),
            (b"DEL a\n", "DELETED"),
            (b"DEL a\n", "NOT_FOUND"),
            (b"GET a\n", "NOT_FOUND"),
            (b"GET A\n", "NOT_FOUND"),
            (b"\n", "ERROR: empty command"),
            (b" \t \r\n", "ERROR: empty command"),
            ("\u{a0}\n".as_bytes(), "ERROR: empty command"),
            (b"GET\n", "ERROR: unknown command"),
            (b"GET a b\n", "ERROR: unknown command"),
            (b"SET\n", "ERROR: unknown command"),
            (b"SET a\n", "ERROR: unknown command"),
            (b"SET a  \r\n", "ERROR: unknown command"),
            (b"DEL\n", "ERROR: unknown command"),
            (b"DEL a b\n", "ERROR: unknown command"),
            (b"QUITS\n", "ERROR: unknown command"),
            (b"GET\0a\n", "ERROR: unknown command"),
            (b"hello world\n", "ERROR: unknown command"),
            (b"\xff\n", "ERROR: invalid UTF-8"),
            (b"GET \xc3\n", "ERROR: invalid UTF-8"),
            (b"QUIT \xed\xa0\x80\n", "ERROR: invalid UTF-8"),
        ] {
            client.send(line);
            if line.ends_with(b"\n") {
                client.expect(format!("{answer}\n"));
            }
        }
        for quit in ["QUIT\n", "quit now\r\n", " Quit  SET a b", "QUIT"] {
            let mut client = ready(running.address);
            client.send(quit);
            client.finish();
            assert_eq!(client.rest(), b"BYE\n");
        }
        drop(client);
        running.stop();
    });
}

/// Lines that arrive together, or in pieces, are answered in order; behind QUIT nothing is executed; the last
/// line needs no end when the client has closed its sending side.
#[test]
fn pipelined_lines_are_answered_in_order() {
    guard(|| {
        let running = start(2_048, 65_536, 512);
        let mut client = ready(running.address);
        let sets: String = (0..1_000).map(|index| format!("SET k{index} v{index}\n")).collect();
        let gets: String = (0..1_000).map(|index| format!("GET k{index}\nDEL k{index}\n")).collect();
        client.send(sets + &gets + "SET last 1\nQUIT\nSET last 2\n");
        client.expect("OK\n".repeat(1_000));
        client.expect((0..1_000).map(|index| format!("v{index}\nDELETED\n")).collect::<String>());
        client.expect("OK\nBYE\n");
        client.expect_end();
        let mut client = ready(running.address);
        "SET last 3\nGET l".chars().for_each(|letter| client.send(letter.to_string()));
        client.expect("OK\n");
        client.send("ast");
        client.finish();
        assert_eq!(client.rest(), b"3\n");
        running.stop();
    });
}

/// The longest line that fits makes the longest value, which comes back whole; a longer line is refused and
/// changes nothing.
#[test]
fn every_value_fits_into_a_reply() {
    guard(|| {
        let running = start(8, 4_096, 512);
        let mut client = ready(running.address);
        let value = "v".repeat(512 - "SET k \n".len());
        client.send(format!("SET k {value}\nGET k\nGET k\n"));
        client.expect(format!("OK\n{value}\n{value}\n"));
        client.send(format!("GET k\nSET k {value}x\nGET k\n"));
        assert_eq!(String::from_utf8(client.rest()).unwrap(), format!("{value}\nERROR: line too long\n"));
        let mut client = ready(running.address);
        client.send(format!("SET k {value}x"));
        client.finish();
        assert_eq!(client.rest(), b"ERROR: line too long\n");
        let mut client = ready(running.address);
        client.send("GET k\n");
        client.expect(format!("{value}\n"));
        drop(client);
        running.stop();
    });
}

/// When entries or bytes run out, `SET` is refused, what is stored stays, and what is deleted makes room.
#[test]
fn a_full_store_refuses_and_loses_nothing() {
    guard(|| {
        let running = start(3, 64, 512);
        let mut client = ready(running.address);
        let mut say = |lines: &str, answers: &str| {
            client.send(lines);
            client.expect(answers);
        };
        say("SET a 1\nSET b 2\nSET c 3\n", "OK\nOK\nOK\n");
        say("SET d 4\nGET d\n", "ERROR: store full\nNOT_FOUND\n");
        say("SET a one\nDEL b\nSET d 4\n", "OK\nDELETED\nOK\n");
        // a, c, d with "one", "3", "4" are 8 bytes: 55 more fit c, 56 do not.
        let (fits, exceeds) = ("x".repeat(57), "y".repeat(58));
        say(&format!("SET c {exceeds}\nGET c\n"), "ERROR: store full\n3\n");
        say(&format!("SET c {fits}\nGET c\n"), &format!("OK\n{fits}\n"));
        say("SET d 44\nGET d\nSET d 5\nGET d\nGET a\n", "ERROR: store full\n4\nOK\n5\none\n");
        say(&format!("DEL c\nSET a {fits}\n"), "DELETED\nOK\n");
        drop(client);
        running.stop();
    });
}

/// A client that pipelines requests for large values and does not read delays no other; when it reads at last,
/// it finds every answer in order.
#[test]
fn a_late_reader_loses_nothing() {
    const REQUESTS: usize = 5_000;
    guard(|| {
        let running = start(16, 65_536, 4_096);
        let mut late = ready(running.address);
        let values: Vec<String> = ["a", "b", "c"].iter().map(|letter| letter.repeat(4_000)).collect();
        for value in &values {
            late.send(format!("SET {} {value}\n", &value[..1]));
            late.expect("OK\n");
        }
        let key = |index: usize| ["a", "b", "c", "none"][index * 7 / 3 % 4];
        // 15 MB of answers, more than the kernel takes.
        let requests: String = (0..REQUESTS).map(|index| format!("GET {}\n", key(index))).collect();
        late.send(requests);
        let (mut served, mut same) = (0, 0);
        wait_until("its replies pile up", || {
            let stats = running.handle.stats();
            same = if stats.served == served && stats.parked == 1 { same + 1 } else { 0 };
            served = stats.served;
            same == 200
        });
        let mut other = ready(running.address);
        other.send("SET d 4\nGET d\n");
        other.expect("OK\n4\n");
        for index in 0..REQUESTS {
            let value = values.iter().find(|value| value.starts_with(key(index)));
            late.expect(format!("{}\n", value.map_or("NOT_FOUND", |value| value)));
        }
        late.send("QUIT\n");
        assert_eq!(late.rest(), b"BYE\n");
        drop(other);
        running.stop();
    });
}

/// A client that is told to leave gets the answers to what it had sent, then the notice on a line of its own.
#[test]
fn the_notice_is_a_line_behind_the_answers() {
    guard(|| {
        let running = start(8, 4_096, 4_096);
        let mut client = ready(running.address);
        client.send("SET a 1\nGET a\n".repeat(500) + "GET ");
        client.expect("OK\n");
        running.handle.shutdown();
        assert_eq!(
            String::from_utf8(client.rest()).unwrap(),
            "1\n".to_string() + &"OK\n1\n".repeat(499) + "SHUTDOWN\n"
        );
        drop(client);
        running.report();
    });
}

/// Two servers with one store: what one stores the other finds; what exceeds its buffer costs its client only.
#[test]
fn a_store_can_be_shared_by_servers() {
    guard(|| {
        let kv = Kv::new(8, 4_096).unwrap();
        let large = Running::start(Server::builder(kv.clone()));
        let small = Running::start(Server::builder(kv).limits(Limits { buffer: 64, ..Limits::default() }));
        let mut writer = ready(large.address);
        let value = "v".repeat(64);
        writer.send(format!("SET short 1\nSET long {value}\nGET long\n"));
        writer.expect(format!("OK\nOK\n{value}\n"));
        let mut reader = ready(small.address);
        reader.send("GET short\nGET long\n");
        reader.expect("1\n");
        reader.expect_gone();
        wait_until("it is counted as an error", || small.handle.stats().errors == 1);
        drop(writer);
        large.stop();
        small.stop();
    });
}

/// How a client ended is a line in the log, with its address and the cause.
#[test]
fn how_a_client_ended_is_logged() {
    guard(|| {
        let mut daemon = Daemon::serve(&["--tcp", "kv=127.0.0.1:0", "--idle-timeout", "0.3"]);
        let mut idle = ready(daemon.address());
        let address = idle.0.local_addr().unwrap();
        let line = daemon.wait_for("timed out");
        assert!(line.ends_with(&format!("Client {address} timed out")), "{line}");
        idle.expect_gone();

        let resetting = ready(daemon.address());
        let address = resetting.0.local_addr().unwrap();
        reset(resetting);
        let line = daemon.wait_for("reset connection");
        assert!(line.ends_with(&format!("Client {address} reset connection")), "{line}");

        // It has closed its sending side, and is gone while answers are still being sent: EPIPE.
        let mut leaving = ready(daemon.address());
        let address = leaving.0.local_addr().unwrap();
        let value = "v".repeat(4_000);
        leaving.send(format!("SET k {value}\n") + &"GET k\n".repeat(5_000));
        leaving.finish();
        leaving.expect("OK\n");
        drop(leaving);
        let line = daemon.wait_for("pipe broken");
        assert!(line.ends_with(&format!("Client {address} pipe broken")), "{line}");
    });
}

/// Many clients that reset their connections get a few lines a second, and the lines account for all of them.
#[test]
fn the_log_lines_of_one_cause_are_limited() {
    guard(|| {
        let mut daemon = Daemon::serve(&["--tcp", "kv=127.0.0.1:0"]);
        let (mut clients, mut lines, mut left_out) = (0, 0, 0);
        while left_out == 0 {
            let client = ready(daemon.address());
            let closing = format!("Closing connection from {}", client.0.local_addr().unwrap());
            let seen = daemon.log.len();
            reset(client);
            clients += 1;
            daemon.wait_for(&closing);
            for line in daemon.log[seen..].iter().filter(|line| line.contains("reset connection")) {
                lines += 1;
                if let Some((_, count)) = line.split_once("reset connection (") {
                    left_out = count.strip_suffix(" before it not logged)").unwrap().parse().unwrap();
                }
            }
        }
        assert_eq!(lines + left_out, clients);
    });
}

/// Closes with a reset instead of the end of stream.
fn reset(client: Client) {
    setsockopt(&client.0, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

/// Capacities out of range are usage errors with the range; the store is part of the budget.
#[test]
fn the_daemon_checks_the_capacities() {
    guard(|| {
        let run = |args: &[&str]| {
            let output = command().args(["serve", "--check"]).args(args).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(text).unwrap())
        };
        let (code, text) = run(&["--tcp", "kv=127.0.0.1:0", "--kv-entries", "0"]);
        assert_eq!(
            (code, text.contains("--kv-entries \"0\": expected a whole number from 1 to 1048576")),
            (Some(2), true),
            "{text}"
        );
        let (code, text) = run(&["--tcp", "kv=127.0.0.1:0", "--kv-bytes", "1e9"]);
        assert_eq!((code, text.contains("--kv-bytes \"1e9\": expected a number of bytes")), (Some(2), true), "{text}");
        let tables = |args: &[&str]| {
            let (code, text) = run(args);
            assert_eq!(code, Some(0), "{text}");
            let line = text.lines().find_map(|line| line.strip_prefix("tables: ")).unwrap().to_string();
            line.strip_suffix(" KiB").unwrap().parse::<u64>().unwrap()
        };
        let without = tables(&["--tcp", "echo=127.0.0.1:0"]);
        let with = tables(&["--tcp", "kv=127.0.0.1:0", "--tcp", "echo=127.0.0.1:0", "--tcp", "kv=127.0.0.1:0"]);
        // 2,048 cells of 16 bytes and 3,364 blocks of 32, once.
        assert!((137..142).contains(&(with - without)), "{without} {with}");
    });
}
