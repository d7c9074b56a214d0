//! What a server reports to the embedding program: ready, drain, and the pings of the watchdog, which stop when the
//! workers stand still while work waits.

use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastorders::{Builder, Connection, Error, Flow, Server, Service, Streams};

use crate::support::{Client, HANG, Running, guard};

/// How often the servers of these tests ping.
const INTERVAL: Duration = Duration::from_millis(10);
/// A ping that has not come within this time does not come.
const SILENCE: Duration = Duration::from_millis(500);

/// A service whose every call waits until it is let go.
struct Stuck {
    entered: Mutex<mpsc::Sender<()>>,
    leave: Mutex<Receiver<()>>,
}

impl Service for Stuck {
    type Session = ();
    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }
    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let held = input.bytes().contains(&b'!');
        output.push(input.bytes());
        input.consume(input.bytes().len());
        if held {
            self.entered.lock().unwrap().send(()).unwrap();
            self.leave.lock().unwrap().recv().unwrap();
        }
        Ok(Flow::Continue)
    }
}

/// A running server of that service, with its pings, and what reports and ends the calls.
struct Scene {
    server: Running,
    pings: Receiver<()>,
    entered: Receiver<()>,
    leave: mpsc::Sender<()>,
}

impl Scene {
    fn start(workers: usize) -> Scene {
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel();
        let service = Stuck { entered: Mutex::new(enter), leave: Mutex::new(left) };
        let (builder, pings) = watched(Server::builder(service).workers(workers));
        Scene { server: Running::start(builder), pings, entered, leave }
    }

    /// A client whose request holds a worker.
    fn holder(&self) -> Client {
        let mut client = self.server.client();
        client.send("!");
        self.entered.recv_timeout(HANG / 2).unwrap();
        client
    }
}

fn watched(builder: Builder) -> (Builder, Receiver<()>) {
    let (ping, pings) = mpsc::channel();
    (builder.watchdog(INTERVAL, move || ping.send(()).unwrap_or(())), pings)
}

#[track_caller]
fn expect_pings(pings: &Receiver<()>) {
    while pings.try_recv().is_ok() {}
    for _ in 0..10 {
        pings.recv_timeout(HANG / 2).expect("a ping");
    }
}

#[track_caller]
fn expect_silence(pings: &Receiver<()>) {
    // A ping or two may be under way.
    let count = (0..10).take_while(|_| pings.recv_timeout(SILENCE) != Err(RecvTimeoutError::Timeout)).count();
    assert!(count < 10, "it goes on");
}

/// With every worker stuck in the service the watchdog pings for as long as no client waits, falls silent when one
/// does, and pings again when the workers are free.
#[test]
fn stuck_workers_silence_the_watchdog_while_work_waits() {
    guard(|| {
        let scene = Scene::start(2);
        expect_pings(&scene.pings);
        let holders = [scene.holder(), scene.holder()];
        expect_pings(&scene.pings);
        let mut waiting = scene.server.client();
        waiting.send("hello");
        expect_silence(&scene.pings);
        holders.iter().for_each(|_| scene.leave.send(()).unwrap());
        waiting.expect("hello");
        expect_pings(&scene.pings);
        drop(scene.leave);
        scene.server.stop();
    });
}

/// One free worker is enough, however many are stuck.
#[test]
fn one_worker_that_moves_keeps_the_watchdog_going() {
    guard(|| {
        let scene = Scene::start(2);
        let _holder = scene.holder();
        let mut other = scene.server.client();
        other.echo(b"hello");
        expect_pings(&scene.pings);
        other.echo(b"hello");
        drop(scene.leave);
        scene.server.stop();
    });
}

/// With the only worker stuck no worker watches the parked connections: a client of those that speaks waits for a
/// worker, even though the ready queue is empty.
#[test]
fn an_unwatched_parked_client_silences_the_watchdog() {
    guard(|| {
        let scene = Scene::start(1);
        let mut parked = scene.server.client();
        parked.echo(b"hello");
        let _holder = scene.holder();
        expect_pings(&scene.pings);
        parked.send("hello");
        expect_silence(&scene.pings);
        scene.leave.send(()).unwrap();
        parked.expect("hello");
        expect_pings(&scene.pings);
        drop(scene.leave);
        scene.server.stop();
    });
}

/// A stream handler whose client is silent holds its worker up to a timeout. Another client waits meanwhile, but the
/// server is not stuck: else any client could have it killed by a watchdog.
#[test]
fn a_silent_client_of_a_stream_handler_does_not_silence_the_watchdog() {
    guard(|| {
        let lines = Streams::new(|client| {
            let mut line = String::new();
            while client.read_line(&mut line)? > 0 {
                io::Write::write_all(client, line.as_bytes())?;
                line.clear();
            }
            Ok(())
        });
        let (builder, pings) = watched(Server::builder(lines).workers(1));
        let server = Running::start(builder);
        let mut holder = server.client();
        holder.echo(b"hello\n");
        let mut waiting = server.client();
        waiting.send("hello\n");
        expect_pings(&pings);
        drop(holder);
        waiting.expect("hello\n");
        drop(waiting);
        server.stop();
    });
}

/// The hooks are called once each and in their order, ready before any client and drain before the notice. One
/// that panics ends nothing.
#[test]
fn the_hooks_run_once_each_and_may_panic() {
    guard(|| {
        let calls = Arc::new(Mutex::new(vec![]));
        let note = |what: &'static str| {
            let calls = calls.clone();
            move || calls.lock().unwrap().push(what)
        };
        let builder = Server::builder(lastorders::builtin::Echo)
            .on_ready(note("ready"))
            .on_ready(|| panic!("on purpose"))
            .on_ready(note("ready too"))
            .on_drain(|| panic!("on purpose"))
            .on_drain(note("drain"))
            .watchdog(INTERVAL, || panic!("on purpose"));
        let server = Running::start(builder);
        let mut client = Client::greeted(server.address);
        assert_eq!(*calls.lock().unwrap(), ["ready", "ready too"]);
        server.handle.shutdown();
        client.expect("SHUTDOWN");
        assert_eq!(*calls.lock().unwrap(), ["ready", "ready too", "drain"]);
        drop(client);
        server.report();
    });
}

/// A watchdog that would spin, or cannot be, is refused with its range.
#[test]
fn an_impossible_interval_is_refused() {
    for (interval, shown) in [(Duration::ZERO, "0"), (Duration::from_secs(86_401), "86401")] {
        let builder = Server::builder(lastorders::builtin::Echo).listen("127.0.0.1:0").unwrap();
        match builder.watchdog(interval, || {}).build() {
            Err(error @ Error::Limit { .. }) => {
                assert_eq!(
                    error.to_string(),
                    format!("watchdog {shown} is out of range; choose 0.001 to 86400 seconds")
                );
            }
            other => panic!("{:?}", other.err()),
        }
    }
}
