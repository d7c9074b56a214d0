//! Shutdown: notice, grace, close; from signals and from the handle.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lastorders::builtin::Echo;
use lastorders::{Connection, Flow, Lines, Server, Service, Streams, Trigger};
use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, FullServer, Running, command, expect_took, guard, ms, wait_until};

/// Each of the four signals: a client that was echoed and is silent now gets the 8 bytes alone, then the end of
/// stream; when it leaves, the server exits at once with status 0.
#[test]
fn every_stopping_signal_gives_the_notice_alone() {
    guard(|| {
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
            let mut daemon = Daemon::echo(&["--grace", "30"]);
            let mut client = daemon.client();
            client.echo(b"hello world");
            let mut silent = daemon.client();
            daemon.wait_for(&format!("Starting connection from {}", silent.0.local_addr().unwrap()));
            daemon.signal(signal);
            for client in [&mut client, &mut silent] {
                assert_eq!(client.recv(), b"SHUTDOWN");
                client.expect_end();
            }
            daemon.wait_for(&format!("{signal} received, closing server in 30 seconds..."));
            drop((client, silent));
            daemon.wait_ok();
            assert!(daemon.log.iter().any(|line| line.contains("Server is shutting down...")));
            daemon.expect_last("2 notified, 2 left, 0 closed, 0 workers abandoned");
        }
    });
}

/// A client that gets a reply just when the server shuts down has time to read it by itself before the notice: who
/// compares each `recv` with the notice does not find the two glued together.
#[test]
fn the_notice_keeps_its_distance_from_a_reply() {
    /// Echo that notes when it last replied, and when it gave the notice.
    struct Noting(mpsc::Sender<Instant>);
    impl Service for Noting {
        type Session = ();
        fn open(&self, _: &mut Connection) -> std::io::Result<()> {
            Ok(())
        }
        fn serve(&self, connection: &mut Connection, session: &mut ()) -> std::io::Result<Flow> {
            self.0.send(Instant::now()).unwrap();
            Echo.serve(connection, session)
        }
        fn shutdown(&self, connection: &mut Connection, (): &mut ()) -> std::io::Result<Flow> {
            self.0.send(Instant::now()).unwrap();
            connection.output().push(self.notice());
            Ok(Flow::Close)
        }
    }
    guard(|| {
        for _ in 0..20 {
            let (note, noted) = mpsc::channel();
            let running = Running::start(Server::builder(Noting(note)));
            let mut client = running.client();
            client.echo(b"first");
            client.send(b"hello world");
            running.handle.shutdown();
            assert_eq!(client.rest(), b"hello worldSHUTDOWN");
            drop(client);
            let report = running.report();
            assert_eq!((report.trigger, report.notified, report.left, report.closed), (Trigger::Handle, 1, 1, 0));
            let times: Vec<Instant> = noted.iter().collect();
            let [.., reply, notice] = times[..] else { panic!("{times:?}") };
            assert!(notice - reply >= Duration::from_millis(20), "{:?}", notice - reply);
        }
    });
}

/// The handle drains a server with every slot taken, under load.
#[test]
fn the_handle_drains_a_full_server() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).connections(FullServer::SLOTS));
        let full = FullServer::fill(running.address);
        running.handle.shutdown();
        full.expect_notice();
        let report = running.report();
        assert_eq!((report.notified, report.left, report.closed), (8, 8, 0), "those in the backlog got no slot");
    });
}

/// Clients that still say something and leave in the same moment have left: what they said does not hide it.
#[test]
fn last_words_do_not_hide_the_end_of_a_client() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).grace(Duration::from_secs(3_000)));
        let mut clients: Vec<Client> = (0..100).map(|_| Client::greeted(running.address)).collect();
        running.handle.shutdown();
        for client in &mut clients {
            client.expect("SHUTDOWN");
        }
        for mut client in clients {
            client.send("last words");
            client.finish();
            client.expect_end();
        }
        assert_eq!(running.report().left, 100);
    });
}

/// No client is connected: the server exits at once, not when the grace ends.
#[test]
fn without_clients_the_exit_is_immediate() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--grace", "50"]);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// A client that ignores the notice is closed when the grace ends, and told apart in the report.
#[test]
fn a_client_that_stays_is_closed_when_the_grace_ends() {
    guard(|| {
        expect_took(ms(300)..ms(600), || {
            let running = Running::start(Server::builder(Echo).grace(ms(300)));
            let mut client = Client::greeted(running.address);
            running.handle.shutdown();
            client.expect("SHUTDOWN");
            let report = running.report();
            assert_eq!((report.notified, report.left, report.closed, report.abandoned), (1, 0, 1, 0));
            report.took
        });
    });
}

/// A client that neither reads nor closes, with replies piled up, cannot delay the exit beyond grace + 1 s.
#[test]
fn a_client_that_does_not_read_cannot_delay_the_exit() {
    guard(|| {
        expect_took(ms(1_000)..ms(2_000), || {
            let mut daemon = Daemon::echo(&["--grace", "1"]);
            let mut stuck = daemon.client();
            stuck.stuff();
            let mut other = Client::greeted(daemon.address());
            let start = Instant::now();
            daemon.signal(Signal::SIGTERM);
            other.expect("SHUTDOWN");
            daemon.wait_ok();
            daemon.expect_last("1 notified");
            start.elapsed()
        });
    });
}

/// The second signal ends the grace time.
#[test]
fn a_second_signal_ends_the_grace() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--grace", "3000"]);
        let mut client = Client::greeted(daemon.address());
        daemon.signal(Signal::SIGTERM);
        client.expect("SHUTDOWN");
        daemon.signal(Signal::SIGINT);
        daemon.wait_ok();
        daemon.expect_last("SIGTERM: 1 notified, 0 left, 1 closed");
    });
}

/// A worker that never returns is abandoned one second after the grace, and reported; a third signal would not
/// even wait for that.
#[test]
fn a_worker_that_never_returns_is_abandoned_and_reported() {
    guard(|| {
        expect_took(ms(1_000)..ms(1_900), || {
            let (started, waits) = mpsc::channel();
            let (release, held) = mpsc::channel::<()>();
            let held = std::sync::Mutex::new(held);
            let stuck = Streams::new(move |_| {
                started.send(()).unwrap();
                let _ = held.lock().unwrap().recv();
                Ok(())
            });
            let running = Running::start(Server::builder(stuck).workers(2).grace(Duration::ZERO));
            let mut client = running.client();
            client.send("x");
            waits.recv().unwrap();
            let report = running.stop();
            assert_eq!((report.abandoned, report.closed), (1, 1));
            drop(release);
            report.took
        });
    });
}

/// Requests that arrived before the notice are answered before it, however many there are in the pipe.
#[test]
fn pipelined_requests_are_answered_before_the_notice() {
    guard(|| {
        let upper = Lines::new(|line, reply| {
            reply.push(&line.to_ascii_uppercase());
            reply.push(b"\n");
            Ok(Flow::Continue)
        });
        let running = Running::start(Server::builder(upper));
        let mut client = running.client();
        let lines: String = (0..200).map(|index| format!("line {index}\n")).collect();
        client.send(&lines);
        client.expect("LINE 0\n");
        running.handle.shutdown();
        let rest = String::from_utf8(client.rest()).unwrap();
        assert_eq!(rest, lines.to_uppercase().replacen("LINE 0\n", "", 1) + "SHUTDOWN\n");
        running.report();
    });
}

/// A client that was accepted before the shutdown, but that no worker has seen yet, has its request answered; one
/// that has asked nothing has its notice at once, with every worker busy.
#[test]
fn a_queued_client_is_served_before_its_notice() {
    guard(|| {
        let (started, waits) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let slow = Lines::new(move |line, reply| {
            started.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            reply.push(line);
            Ok(Flow::Continue)
        });
        let running = Running::start(Server::builder(slow).workers(1));
        let mut first = running.client();
        first.send("first\n");
        waits.recv().unwrap();
        let mut queued = running.client();
        queued.send("queued\n");
        let mut silent = running.client();
        wait_until("both are queued", || running.handle.stats().queued == 2);
        running.handle.shutdown();
        assert_eq!(silent.rest(), b"SHUTDOWN\n");
        drop(release);
        assert_eq!(first.rest(), b"firstSHUTDOWN\n");
        assert_eq!(queued.rest(), b"queuedSHUTDOWN\n");
        drop((first, queued, silent));
        assert_eq!(running.report().notified, 3);
    });
}

/// nohup(1) ignores SIGHUP for the daemon, which goes on when its terminal is gone and stops at SIGTERM as ever.
#[test]
fn a_hang_up_that_nohup_ignores_stops_nothing() {
    guard(|| {
        let inner = command();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
        shell.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = Daemon::spawn(shell.args(["serve", "--tcp", "echo=127.0.0.1:0"]));
        daemon.wait_for("Server started on ");
        daemon.signal(Signal::SIGHUP);
        // In the order in which they came: the line would be before the counters.
        daemon.signal(Signal::SIGUSR1);
        daemon.wait_for("accepted=0");
        assert!(daemon.log.iter().all(|line| !line.contains("SIGHUP")), "{:?}", daemon.log);
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0));
    });
}

/// A client that connects while the server drains gets the notice and the end of stream.
#[test]
fn a_late_client_gets_the_notice() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).connections(2));
        let mut first = Client::greeted(running.address);
        running.handle.shutdown();
        first.expect("SHUTDOWN");
        // The second one gets a slot, the third finds none left and gets the notice all the same.
        let mut late = [running.client(), running.client()];
        for client in &mut late {
            client.send("hello world");
            assert_eq!(client.rest(), b"SHUTDOWN");
        }
        drop((first, late));
        running.report();
    });
}

/// A stream handler sees the shutdown as end of input, finishes its reply, and its client gets the notice.
#[test]
fn a_stream_handler_sees_the_shutdown_as_end_of_input() {
    guard(|| {
        let (started, waits) = mpsc::channel();
        let sum = Streams::new(move |client| {
            started.send(()).unwrap();
            let mut all = Vec::new();
            std::io::Read::read_to_end(client, &mut all)?;
            writeln!(client, "{} bytes", all.len())
        });
        let running = Running::start(Server::builder(sum));
        let mut client = running.client();
        client.send("12345");
        waits.recv().unwrap();
        running.handle.shutdown();
        assert_eq!(client.rest(), b"5 bytes\nSHUTDOWN");
        drop(client);
        assert_eq!(running.report().notified, 1);
    });
}

/// All workers held by stream handlers that do not look: parked clients get the notice all the same.
#[test]
fn busy_workers_do_not_delay_the_notice_of_parked_clients() {
    guard(|| {
        let (started, waits) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let busy = Streams::new(move |_| {
            started.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            Ok(())
        });
        let server = Server::builder(Echo).listen("127.0.0.1:0").unwrap().service(busy).listen("127.0.0.1:0").unwrap();
        let server = server.workers(1).build().unwrap();
        let busy_address = server.addresses().nth(1).unwrap();
        let running = Running::run(server);
        let mut parked = Client::greeted(running.address);
        let mut holder = Client::connect(busy_address);
        holder.send("x");
        waits.recv().unwrap();
        running.handle.shutdown();
        assert_eq!(parked.rest(), b"SHUTDOWN");
        let mut late = running.client();
        assert_eq!(late.rest(), b"SHUTDOWN");
        drop((parked, late, release));
        assert!(holder.rest().is_empty(), "its handler was not cut short: it has nothing to add");
        drop(holder);
        running.report();
    });
}

/// A service that keeps its clients is served until they leave.
#[test]
fn a_service_may_keep_its_clients_through_the_grace() {
    struct Keeper;
    impl Service for Keeper {
        type Session = ();
        fn open(&self, _: &mut Connection) -> std::io::Result<()> {
            Ok(())
        }
        fn serve(&self, connection: &mut Connection, session: &mut ()) -> std::io::Result<Flow> {
            Echo.serve(connection, session)
        }
        fn shutdown(&self, connection: &mut Connection, (): &mut ()) -> std::io::Result<Flow> {
            connection.output().push(b"soon");
            Ok(Flow::Continue)
        }
    }
    guard(|| {
        let running = Running::start(Server::builder(Keeper));
        let mut client = Client::greeted(running.address);
        running.handle.shutdown();
        client.expect("soon");
        client.echo(b"still here");
        client.echo(b"and here");
        drop(client);
        let report = running.report();
        assert_eq!((report.left, report.closed), (1, 0));
    });
}

/// Clients that wait in the kernel's backlog when the shutdown begins get the notice, not a reset.
#[test]
fn clients_in_the_backlog_get_the_notice_too() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).connections(1));
        let mut first = Client::greeted(running.address);
        let mut waiting: Vec<TcpStream> = (0..5).map(|_| TcpStream::connect(running.address).unwrap()).collect();
        running.handle.shutdown();
        first.expect("SHUTDOWN");
        for client in waiting.drain(..) {
            assert_eq!(Client(client).rest(), b"SHUTDOWN");
        }
        drop(first);
        running.report();
    });
}

/// Without a grace time, and when a second signal comes at once: every client reads the notice by itself and then the end
/// of stream, be it silent or one that asks without a pause.
#[test]
fn every_client_gets_the_notice_however_short_the_shutdown_is() {
    guard(|| {
        for signals in [&[Signal::SIGTERM][..], &[Signal::SIGTERM, Signal::SIGINT]] {
            for _ in 0..5 {
                let mut daemon = Daemon::echo(&["--grace", if signals.len() == 1 { "0" } else { "3000" }]);
                expect_notices(&mut daemon, signals);
            }
        }
    });
}

/// Ends a server of echo while 20 clients are silent and 20 ask without a pause.
pub fn expect_notices(daemon: &mut Daemon, signals: &[Signal]) {
    let mut silent: Vec<Client> = (0..20).map(|_| Client::greeted(daemon.address())).collect();
    let asking: Vec<Client> = (0..20).map(|_| Client::greeted(daemon.address())).collect();
    let asking: Vec<_> = asking.into_iter().map(|client| std::thread::spawn(|| ask_until_notice(client))).collect();
    silent.iter_mut().for_each(|client| client.echo(b"now"));
    signals.iter().for_each(|signal| daemon.signal(*signal));
    for client in &mut silent {
        assert_eq!(String::from_utf8_lossy(&client.rest()), "SHUTDOWN");
    }
    asking.into_iter().for_each(|client| client.join().unwrap());
    daemon.wait_ok();
    daemon.expect_last("40 notified");
}

/// Asks without a pause until the notice comes by itself, and then the end of stream.
fn ask_until_notice(mut client: Client) {
    let mut answered = Instant::now();
    loop {
        client.send("hello world");
        let received = client.recv();
        if received != b"hello world" {
            // A client that gets no processor in the 20 ms between reply and notice reads the two at once, or asks once
            // more when the server has closed already, and has a reset behind the notice.
            let is_late = answered.elapsed() >= Duration::from_millis(20);
            let received = String::from_utf8(received).unwrap();
            assert!(received == "SHUTDOWN" || is_late && received == "hello worldSHUTDOWN", "{received}");
            return match client.0.read(&mut [0; 64]) {
                Ok(0) => {}
                outcome => assert!(is_late && outcome.is_err(), "{outcome:?} behind the notice"),
            };
        }
        answered = Instant::now();
    }
}

/// A worker serves a client when the close is forced: the client gets its reply, and then the notice.
#[test]
fn a_client_that_a_worker_serves_gets_reply_and_notice_before_the_forced_close() {
    let once = || {
        let (started, waits) = mpsc::channel();
        let (release, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let slow = Lines::new(move |line, reply| {
            started.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            reply.push(line);
            Ok(Flow::Continue)
        });
        let running = Running::start(Server::builder(slow));
        let (mut served, mut silent) = (running.client(), running.client());
        served.send("line\n");
        waits.recv().unwrap();
        running.handle.close();
        assert_eq!(silent.rest(), b"SHUTDOWN\n");
        drop(release);
        assert_eq!(served.rest(), b"lineSHUTDOWN\n");
        let report = running.report();
        assert_eq!((report.notified, report.closed, report.abandoned), (2, 2, 0));
        report.took
    };
    // It does not wait the second that a worker which does not return gets.
    guard(move || expect_took(Duration::ZERO..ms(900), once));
}

/// A stream handler that replies without a pause, and to which the end of its input is an error: its client reads the
/// notice, by itself.
#[test]
fn the_client_of_a_stream_handler_gets_the_notice_by_itself() {
    guard(|| {
        for _ in 0..10 {
            let echo = Streams::new(|client| {
                loop {
                    let mut message = [0; 11];
                    client.read_exact(&mut message)?;
                    client.write_all(&message)?;
                }
            });
            let running = Running::start(Server::builder(echo));
            let client = Client::greeted(running.address);
            let asking = std::thread::spawn(|| ask_until_notice(client));
            running.handle.shutdown();
            asking.join().unwrap();
            assert_eq!(running.report().notified, 1);
        }
    });
}

/// A stream handler that writes without end, to a client that reads and to one that does not: the end of the grace time
/// ends the handler, and the client that reads gets the notice.
#[test]
fn a_stream_handler_that_writes_without_end_is_ended() {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let once = || {
        WRITTEN.store(0, Ordering::Relaxed);
        let endless = Streams::new(|client| {
            loop {
                client.write_all(b"endless ")?;
                WRITTEN.fetch_add(1, Ordering::Relaxed);
            }
        });
        let running = Running::start(Server::builder(endless).grace(Duration::ZERO));
        let mut stuck = running.client();
        stuck.send("x");
        let (mut before, mut same) = (0, 0);
        wait_until("the handler has no room to write", || {
            let written = WRITTEN.load(Ordering::Relaxed);
            same = if written == before { same + 1 } else { 0 };
            before = written;
            written > 0 && same == 200
        });
        let mut reads = running.client();
        reads.send("x");
        reads.expect("endless ");
        let reading = std::thread::spawn(move || reads.rest());
        let report = running.stop();
        assert_eq!((report.closed, report.abandoned), (2, 0));
        let received = reading.join().unwrap();
        assert!(received.ends_with(b"endless SHUTDOWN"), "{:?}", received.rchunks(30).next());
        report.took
    };
    guard(move || expect_took(Duration::ZERO..ms(900), once));
}
