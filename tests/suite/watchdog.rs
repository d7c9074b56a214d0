//! What a server tells whoever embeds it: ready, drain, and the beats of the watchdog, which fall silent when the
//! workers stand still while work waits.

use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lastorders::{Builder, Connection, Error, Flow, Server, Service, Streams};

use crate::support::{Client, HANG, Running, guard};

/// How often the servers of these tests beat.
const BEAT: Duration = Duration::from_millis(10);
/// A beat that has not come within this time does not come.
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

/// A running server of that service, with its beats, and what tells and ends the calls.
struct Scene {
    server: Running,
    beats: Receiver<()>,
    entered: Receiver<()>,
    leave: mpsc::Sender<()>,
}

impl Scene {
    fn start(workers: usize) -> Scene {
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel();
        let service = Stuck { entered: Mutex::new(enter), leave: Mutex::new(left) };
        let (builder, beats) = watched(Server::builder(service).workers(workers));
        Scene { server: Running::start(builder), beats, entered, leave }
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
    let (beat, beats) = mpsc::channel();
    (builder.watchdog(BEAT, move || beat.send(()).unwrap_or(())), beats)
}

#[track_caller]
fn expect_beats(beats: &Receiver<()>) {
    while beats.try_recv().is_ok() {}
    for _ in 0..10 {
        beats.recv_timeout(HANG / 2).expect("a beat");
    }
}

#[track_caller]
fn expect_silence(beats: &Receiver<()>) {
    // A beat or two may be under way.
    let heard = (0..10).take_while(|_| beats.recv_timeout(SILENCE) != Err(RecvTimeoutError::Timeout)).count();
    assert!(heard < 10, "it goes on");
}

/// With every worker stuck in the service the watchdog beats for as long as nobody waits, falls silent when
/// somebody does, and beats again when the workers are free.
#[test]
fn stuck_workers_silence_the_watchdog_while_work_waits() {
    guard(|| {
        let scene = Scene::start(2);
        expect_beats(&scene.beats);
        let holders = [scene.holder(), scene.holder()];
        expect_beats(&scene.beats);
        let mut waiting = scene.server.client();
        waiting.send("hello");
        expect_silence(&scene.beats);
        holders.iter().for_each(|_| scene.leave.send(()).unwrap());
        waiting.expect("hello");
        expect_beats(&scene.beats);
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
        expect_beats(&scene.beats);
        other.echo(b"hello");
        drop(scene.leave);
        scene.server.stop();
    });
}

/// With the only worker stuck nobody watches over the parked connections: a client of those that speaks waits for a
/// worker, even though the ready queue is empty.
#[test]
fn a_parked_client_that_nobody_watches_silences_the_watchdog() {
    guard(|| {
        let scene = Scene::start(1);
        let mut parked = scene.server.client();
        parked.echo(b"hello");
        let _holder = scene.holder();
        expect_beats(&scene.beats);
        parked.send("hello");
        expect_silence(&scene.beats);
        scene.leave.send(()).unwrap();
        parked.expect("hello");
        expect_beats(&scene.beats);
        drop(scene.leave);
        scene.server.stop();
    });
}

/// A stream handler whose client is silent holds its worker up to a timeout. Another client waits meanwhile, but the
/// server is not stuck: else anybody could have it killed by a watchdog.
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
        let (builder, beats) = watched(Server::builder(lines).workers(1));
        let server = Running::start(builder);
        let mut holder = server.client();
        holder.echo(b"hello\n");
        let mut waiting = server.client();
        waiting.send("hello\n");
        expect_beats(&beats);
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
        let heard = Arc::new(Mutex::new(vec![]));
        let note = |what: &'static str| {
            let heard = heard.clone();
            move || heard.lock().unwrap().push(what)
        };
        let builder = Server::builder(lastorders::builtin::Echo)
            .on_ready(note("ready"))
            .on_ready(|| panic!("on purpose"))
            .on_ready(note("ready too"))
            .on_drain(|| panic!("on purpose"))
            .on_drain(note("drain"))
            .watchdog(BEAT, || panic!("on purpose"));
        let server = Running::start(builder);
        let mut client = Client::greeted(server.address);
        assert_eq!(*heard.lock().unwrap(), ["ready", "ready too"]);
        server.handle.shutdown();
        client.expect("SHUTDOWN");
        assert_eq!(*heard.lock().unwrap(), ["ready", "ready too", "drain"]);
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
