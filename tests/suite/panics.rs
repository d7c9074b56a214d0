//! A service that panics costs its connection, and nothing else.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};

use lastorders::{CloseReason, Connection, Flow, Server, Service};
use log::{LevelFilter, Log, Metadata, Record};

use crate::support::{Client, Running, guard, wait_until};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the lines that speak of panics.
struct Keep;

impl Log for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        if record.level() == log::Level::Error {
            LINES.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

pub fn keep_lines() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Keep).unwrap();
        log::set_max_level(LevelFilter::Error);
        // The default hook would print a thousand backtraces.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name() != Some("worker") {
                hook(info);
            }
        }));
    });
}

/// Echo that panics at every tenth request.
#[derive(Default)]
struct Tenth(AtomicUsize);

impl Service for Tenth {
    type Session = String;
    fn open(&self, _: &mut Connection) -> io::Result<String> {
        Ok("session".into())
    }
    fn serve(&self, connection: &mut Connection, session: &mut String) -> io::Result<Flow> {
        assert_eq!(session, "session");
        if self.0.fetch_add(1, Ordering::Relaxed) % 10 == 9 {
            panic!("the tenth");
        }
        let (input, output) = connection.split();
        let taken = output.push(input.bytes());
        input.consume(taken);
        Ok(Flow::Continue)
    }
}

/// 10,000 requests, every tenth of which panics: all workers still work, the others are served, and the burst
/// of panics is one line in the log.
#[test]
fn every_tenth_request_panics() {
    guard(|| {
        keep_lines();
        let running = Running::start(Server::builder(Tenth::default()));
        let mut client = running.client();
        let mut lost = 0;
        for _ in 0..10_000 {
            client.send("hello world");
            match client.recv().len() {
                0 => {
                    lost += 1;
                    client = running.client();
                }
                count => assert_eq!(count, 11),
            }
        }
        assert_eq!(lost, 1_000);
        wait_until("all are counted", || running.handle.stats().panics == 1_000);
        drop(client);
        // Had one worker been lost with each panic, none would be left to serve this.
        let mut others: Vec<Client> = (0..4).map(|_| running.client()).collect();
        others.iter_mut().for_each(|client| client.echo(b"still served"));
        let lines = LINES.lock().unwrap().clone();
        let ours = lines.iter().filter(|line| line.contains("the tenth"));
        assert_eq!(ours.count(), 1, "{lines:?}");
        drop(others);
        running.stop();
    });
}

/// Panics in every other call of a service are caught as well.
#[test]
fn open_shutdown_and_close_may_panic_too() {
    struct Bad;
    impl Service for Bad {
        type Session = ();
        fn open(&self, connection: &mut Connection) -> io::Result<()> {
            assert!(connection.peer().ip().is_loopback());
            connection.output().push(b"hello");
            Ok(())
        }
        fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
            let input = connection.input();
            input.consume(input.bytes().len() + 1);
            Ok(Flow::Continue)
        }
        fn shutdown(&self, _: &mut Connection, (): &mut ()) -> io::Result<Flow> {
            panic!("shutdown")
        }
        fn close(&self, (): (), _: &CloseReason) {
            panic!("close")
        }
    }
    guard(|| {
        keep_lines();
        let running = Running::start(Server::builder(Bad));
        let mut one = running.client();
        one.expect("hello");
        one.send("x");
        one.expect_gone();
        let mut two = running.client();
        two.expect("hello");
        running.handle.shutdown();
        two.expect_gone();
        let report = running.report();
        assert_eq!((report.closed, report.abandoned), (0, 0));
    });
}
