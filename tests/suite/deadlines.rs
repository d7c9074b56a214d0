//! The three deadlines, and that no client holds a worker while it makes them pass.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use lastorders::builtin::Echo;
use lastorders::{Flow, Limits, Lines, Server, Service, Streams};

use crate::support::{Client, Daemon, Running, guard, wait_until};

fn limits(idle: u64, request: u64, write: u64) -> Limits {
    Limits {
        idle_timeout: Duration::from_millis(idle),
        request_timeout: Duration::from_millis(request),
        write_timeout: Duration::from_millis(write),
        ..Limits::default()
    }
}

fn upper() -> impl Service {
    Lines::new(|line, reply| {
        reply.push(&line.to_ascii_uppercase());
        reply.push(b"\n");
        Ok(Flow::Continue)
    })
}

/// A silent client is closed after the idle timeout, not before; one that speaks now and then is kept.
#[test]
fn a_silent_client_is_closed_after_the_idle_timeout() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).limits(limits(400, 10_000, 10_000)));
        let start = Instant::now();
        let mut silent = running.client();
        let mut talker = running.client();
        let talking = std::thread::spawn(move || {
            while start.elapsed() < Duration::from_millis(900) {
                talker.echo(b"hello");
                std::thread::park_timeout(Duration::from_millis(50));
            }
            talker
        });
        silent.expect_end();
        assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        talking.join().unwrap().echo(b"kept");
        assert_eq!(running.handle.stats().timed_out_idle, 1);
        running.stop();
    });
}

/// A request that trickles in byte by byte is closed when its total time is over, however busy its sender is.
#[test]
fn a_trickled_request_is_closed_by_its_total_time() {
    guard(|| {
        let running = Running::start(Server::builder(upper()).limits(limits(10_000, 500, 10_000)));
        let mut trickler = running.client();
        trickler.send("whole\n");
        trickler.expect("WHOLE\n");
        let start = Instant::now();
        while trickler.0.write_all(b"x").is_ok() && start.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
        wait_until("it is counted", || running.handle.stats().timed_out_request == 1);
        running.stop();
    });
}

/// Eight clients that send without ever reading, on four workers: another client is served all the while, and
/// they are closed by the write timeout.
#[test]
fn clients_that_never_read_are_closed_and_hold_up_nobody() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).limits(limits(60_000, 10_000, 1_500)));
        let address = running.address;
        let floods: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(address);
                    while client.0.write_all(&[b'x'; 65_536]).is_ok() {}
                })
            })
            .collect();
        let mut other = running.client();
        while running.handle.stats().timed_out_write < 8 {
            other.echo(b"hello world");
        }
        for flood in floods {
            flood.join().unwrap();
        }
        other.echo(b"and after");
        running.stop();
    });
}

/// A stream handler's reads keep the deadlines too, and free the worker.
#[test]
fn a_stream_handler_keeps_the_deadlines() {
    guard(|| {
        let hello = Streams::new(|client| {
            let mut name = String::new();
            client.read_line(&mut name)?;
            writeln!(client, "Hello, {}!", name.trim_end())?;
            client.read_line(&mut name)?;
            Ok(())
        });
        let running =
            Running::start(Server::builder(hello).workers(1).limits(Limits { workers: 1, ..limits(400, 200, 10_000) }));
        let mut trickler = running.client();
        trickler.send("half a na");
        trickler.expect_end();
        let mut silent = running.client();
        silent.send("me\n");
        assert_eq!(silent.rest(), b"Hello, me!\n");
        wait_until("both are counted", || {
            let stats = running.handle.stats();
            (stats.timed_out_request, stats.timed_out_idle) == (1, 1)
        });
        running.stop();
    });
}

/// The daemon logs who timed out.
#[test]
fn a_timeout_is_logged_with_the_client() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--idle-timeout", "0.2"]);
        let mut client = daemon.client();
        let address = client.0.local_addr().unwrap();
        client.expect_end();
        daemon.wait_for(&format!("Client {address} timed out"));
        daemon.wait_for(&format!("Closing connection from {address}"));
    });
}

/// A line that is longer than the buffer is answered with an error, after the answers to those before it.
#[test]
fn a_line_that_is_too_long_is_refused() {
    guard(|| {
        let running = Running::start(Server::builder(upper()).limits(Limits { buffer: 64, ..Limits::default() }));
        let mut client = running.client();
        client.send(format!("short\n{}\n", "x".repeat(63)));
        client.expect(format!("SHORT\n{}\n", "X".repeat(63)));
        client.send(format!("last\n{}\n", "x".repeat(64)));
        assert_eq!(client.rest(), b"LAST\nERROR: line too long\n");
        running.stop();
    });
}

/// A last line without an end is answered when the client closes its sending side.
#[test]
fn a_last_line_without_an_end_is_served() {
    guard(|| {
        let running = Running::start(Server::builder(upper()));
        let mut client = running.client();
        client.send("one\r\ntwo");
        client.finish();
        assert_eq!(client.rest(), b"ONE\nTWO\n");
        running.stop();
    });
}

/// A megabyte through a 4 KiB buffer, from a client that sends all before it reads, and closes its side.
#[test]
fn a_long_stream_comes_back_whole() {
    guard(|| {
        let running = Running::start(Server::builder(Echo));
        let client = running.client();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|index| (index / 3) as u8).collect();
        let sending = {
            let (mut half, bytes) = (Client(client.0.try_clone().unwrap()), bytes.clone());
            std::thread::spawn(move || {
                half.send(bytes);
                half.finish();
            })
        };
        let mut client = client;
        assert!(client.rest() == bytes);
        sending.join().unwrap();
        running.stop();
    });
}
