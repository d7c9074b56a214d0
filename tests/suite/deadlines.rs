//! The three deadlines, and that no client holds a worker while it makes them pass.

use std::io::{self, BufRead, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use lastorders::builtin::Echo;
use lastorders::{Connection, Flow, Limits, Lines, Server, Service, Streams};

use crate::support::{Client, Daemon, Running, expect_took, guard, ms, wait_until};

fn limits(idle: u64, request: u64, write: u64) -> Limits {
    Limits { idle_timeout: ms(idle), request_timeout: ms(request), write_timeout: ms(write), ..Limits::default() }
}

fn upper() -> impl Service {
    Lines::new(|line, reply| {
        reply.push(&line.to_ascii_uppercase());
        reply.push(b"\n");
        Ok(Flow::Continue)
    })
}

/// Echoes whole lines, and blocks its worker on the line `block` until the test says so.
struct Blocking {
    begun: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Service for Blocking {
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let whole = input.bytes().iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if input.bytes().starts_with(b"block\n") {
            self.begun.send(()).unwrap();
            let _ = self.go_on.lock().unwrap().recv();
        }
        let taken = output.push(&input.bytes()[..whole]);
        input.consume(taken);
        Ok(Flow::Continue)
    }
}

/// A server whose one worker can be blocked: a message when that is so, and the means to let it go on.
fn blocking(limits: Limits) -> (Running, Receiver<()>, Sender<()>) {
    let ((begun, is_blocked), (go_on, receiver)) = (mpsc::channel(), mpsc::channel());
    let service = Blocking { begun, go_on: Mutex::new(receiver) };
    (Running::start(Server::builder(service).limits(Limits { workers: 1, ..limits })), is_blocked, go_on)
}

/// The rest of a request comes in time, while the only worker is busy with another client. Its deadline passes before
/// the worker looks at it: it is answered all the same.
#[test]
fn a_request_that_is_whole_in_time_is_answered_by_a_worker_that_was_busy() {
    guard(|| assert_eq!(half_a_request_and("line\n"), ("half a line\n".into(), 0)));
}

/// More of a request comes in time, but not its end: what is there when its time is over is looked at once, and does
/// not buy it more time.
#[test]
fn a_request_that_is_not_whole_in_time_is_closed_by_a_worker_that_was_busy() {
    guard(|| assert_eq!(half_a_request_and("line without an end"), (String::new(), 1)));
}

/// Sends half a request, and `more` of it while the only worker is busy, until its time is over. Returns what the
/// client receives then, and how many requests were timed out.
fn half_a_request_and(more: &str) -> (String, u64) {
    let (running, is_blocked, go_on) = blocking(limits(2_500, 1_200, 10_000));
    let (mut silent, mut busy, mut client) = (running.client(), running.client(), running.client());
    client.send("half a ");
    wait_until("the half is received", || running.handle.stats().parked == 3);
    busy.send("block\n");
    is_blocked.recv().unwrap();
    client.send(more);
    // By then the accept loop has seen the deadline of the request, which is the shorter one.
    silent.expect_end();
    go_on.send(()).unwrap();
    busy.expect("block\n");
    let received = String::from_utf8(client.recv()).unwrap();
    let timed_out = running.handle.stats().timed_out_request;
    running.stop();
    (received, timed_out)
}

/// A client that has not read for long makes room in time, while the only worker is busy with another client. Its
/// deadline passes before the worker sends on: it is not closed.
#[test]
fn room_that_comes_in_time_keeps_a_client_though_the_worker_was_busy() {
    guard(|| {
        let (running, is_blocked, go_on) = blocking(limits(4_000, 10_000, 2_500));
        let (mut silent, mut busy, mut client) = (running.client(), running.client(), running.client());
        let line = [&[b'x'; 1_023][..], b"\n"].concat();
        let lines = line.repeat(256);
        client.0.set_nonblocking(true).unwrap();
        let (mut sent, mut refused) = (0_usize, 0);
        wait_until("nothing more is taken", || {
            let count = client.0.write(&lines[sent % line.len()..]).unwrap_or(0);
            sent += count;
            refused = if count > 0 { 0 } else { refused + 1 };
            refused == 100
        });
        client.0.set_nonblocking(false).unwrap();
        busy.send("block\n");
        is_blocked.recv().unwrap();
        // What the kernel holds for it: the worker sends nothing meanwhile.
        let mut read = client.recv().len();
        while read < 100_000 {
            read += client.recv().len();
        }
        silent.expect_end();
        go_on.send(()).unwrap();
        while read < sent / line.len() * line.len() {
            let received = client.recv();
            assert!(!received.is_empty(), "closed after {read} of {sent} bytes");
            read += received.len();
        }
        assert_eq!(running.handle.stats().timed_out_write, 0);
        busy.expect("block\n");
        running.stop();
    });
}

/// A silent client is closed after the idle timeout, not before; one that speaks now and then is kept.
#[test]
fn a_silent_client_is_closed_after_the_idle_timeout() {
    let once = || {
        let running = Running::start(Server::builder(Echo).limits(limits(1_000, 10_000, 10_000)));
        let start = Instant::now();
        let mut silent = running.client();
        let mut talker = running.client();
        let talking = std::thread::spawn(move || {
            while start.elapsed() < ms(2_000) {
                talker.echo(b"hello");
                std::thread::park_timeout(ms(50));
            }
            talker
        });
        silent.expect_end();
        let took = start.elapsed();
        talking.join().unwrap().echo(b"kept");
        assert_eq!(running.handle.stats().timed_out_idle, 1);
        running.stop();
        took
    };
    guard(move || expect_took(ms(1_000)..ms(1_300), once));
}

/// A request that trickles in byte by byte is closed when its total time is over, however busy its sender is.
#[test]
fn a_trickled_request_is_closed_by_its_total_time() {
    let once = || {
        let running = Running::start(Server::builder(upper()).limits(limits(10_000, 500, 10_000)));
        let mut trickler = running.client();
        trickler.send("whole\n");
        trickler.expect("WHOLE\n");
        trickler.0.set_read_timeout(Some(ms(20))).unwrap();
        let start = Instant::now();
        while trickler.0.write_all(b"x").is_ok() && trickler.0.read(&mut [0]).is_err_and(|error| is_timeout(&error)) {}
        let took = start.elapsed();
        wait_until("it is counted", || running.handle.stats().timed_out_request == 1);
        running.stop();
        took
    };
    guard(move || expect_took(ms(500)..ms(1_000), once));
}

/// The error of a read that has waited as long as it may.
fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// A client that reads nothing is closed when the write timeout has passed since the server could send some last.
#[test]
fn a_client_that_reads_nothing_is_closed_by_the_write_timeout() {
    let once = || {
        let running = Running::start(Server::builder(Echo).limits(limits(60_000, 10_000, 800)));
        let start = Instant::now();
        let mut client = running.client();
        client.stuff();
        let stuffed = Instant::now();
        wait_until("it is closed", || running.handle.stats().timed_out_write == 1);
        assert!(start.elapsed() >= ms(800), "{:?}", start.elapsed());
        running.stop();
        stuffed.elapsed()
    };
    guard(move || expect_took(Duration::ZERO..ms(900), once));
}

/// Eight clients that send without ever reading, on four workers: another client is served all the while, and
/// they are closed by the write timeout.
#[test]
fn clients_that_never_read_are_closed_and_delay_no_other() {
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
        drop(client);
        wait_until("the end is counted", || running.handle.stats().open == 0);
        let stats = running.handle.stats();
        assert_eq!((stats.too_long, stats.finished), (1, 0));
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

/// A timeout of 0 switches that timeout off, and no other: a silent client is still served when the time of a request has
/// passed for another client, and so is one in the middle of a request when the idle time has.
#[test]
fn a_timeout_of_zero_is_none() {
    guard(|| {
        let args = ["--tcp", "upper-lines=127.0.0.1:0", "--write-timeout", "0"];
        for (off, other) in [("--idle-timeout", "--request-timeout"), ("--request-timeout", "--idle-timeout")] {
            let daemon = Daemon::serve(&[&args[..], &[off, "0", other, "300ms"]].concat());
            let [silent, mut half] = [daemon.client(), daemon.client()];
            half.send("half a ");
            let (mut closed, mut stays) = if off == "--idle-timeout" { (half, silent) } else { (silent, half) };
            closed.expect_gone();
            stays.send("line\n");
            stays.expect(if off == "--idle-timeout" { "LINE\n" } else { "HALF A LINE\n" });
        }
    });
}

/// The same for a stream handler, whose client keeps it waiting for the first byte of a request, for the rest of it, and
/// for room to write.
#[test]
fn a_stream_handler_waits_without_limit_where_that_is_zero() {
    guard(|| {
        let (waits, begun) = mpsc::channel();
        let handler = Streams::new(move |client| {
            let mut line = String::new();
            for _ in 0..3 {
                waits.send(()).unwrap();
                client.read_line(&mut line)?;
                client.write_all(b"x")?;
            }
            client.write_all(&vec![b'y'; 16 << 20])
        });
        let running = Running::start(Server::builder(handler).limits(limits(0, 0, 0)));
        let timed = Running::start(Server::builder(Echo).limits(limits(100, 100, 100)));
        let mut client = running.client();
        for part in ["on", "e\ntwo\n", "th"] {
            client.send(part);
            while begun.try_recv().is_ok() {}
            // A tenth of a second, as other clients see it.
            timed.client().expect_gone();
        }
        client.send("ree\n");
        timed.client().expect_gone();
        assert_eq!(client.rest().len(), 3 + (16 << 20));
        running.stop();
        timed.stop();
    });
}
