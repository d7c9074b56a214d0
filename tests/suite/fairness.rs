//! No client is starved: silent clients cost nothing, floods take turns, connect storms do not hide the parked.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lastorders::Server;
use lastorders::builtin::Echo;
use nix::sys::signal::Signal;

use crate::faults::tracer::{Tracer, need_tracer};
use crate::support::{Client, Daemon, Running, guard, wait_until};

/// Many more silent clients than workers: each of four busy ones gets all of its answers.
#[test]
fn silent_clients_cost_no_worker() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).connections(300));
        let silent: Vec<TcpStream> = (0..290).map(|_| TcpStream::connect(running.address).unwrap()).collect();
        let address = running.address;
        let busy: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(move || {
                    let mut client = Client::connect(address);
                    (0..500).for_each(|_| client.echo(b"hello world"));
                })
            })
            .collect();
        for client in busy {
            client.join().unwrap();
        }
        wait_until("all are parked", || running.handle.stats().parked >= 290);
        drop(silent);
        running.stop();
    });
}

/// Four hundred clients have spoken and are silent now: none of them keeps a buffer.
#[test]
fn silent_clients_cost_no_buffer() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--connections", "512", "--idle-timeout", "600"]);
        let memory = |daemon: &Daemon| -> usize {
            let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let speak = || {
            let mut client = daemon.client();
            client.echo(&[b'x'; 4_000]);
            client
        };
        let few: Vec<Client> = (0..100).map(|_| speak()).collect();
        let before = memory(&daemon);
        let many: Vec<Client> = (0..412).map(|_| speak()).collect();
        let grown = memory(&daemon).saturating_sub(before);
        assert!(grown < 1_024, "412 clients cost {grown} KiB; their buffers would be 3,296");
        drop((few, many));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// Sixteen times as many busy clients as workers: all get the same number of answers.
#[test]
fn many_busy_clients_are_all_served() {
    guard(|| {
        let running = Running::start(Server::builder(Echo));
        let mut clients: Vec<Client> = (0..64).map(|_| running.client()).collect();
        for _ in 0..50 {
            clients.iter_mut().for_each(|client| client.send(b"hello world"));
            clients.iter_mut().for_each(|client| client.expect(b"hello world"));
        }
        assert_eq!(running.handle.stats().served, 64 * 50);
        running.stop();
    });
}

/// Eight clients that always have more to say, on one worker, while another asks now and then: it gets its
/// answers, though the ready queue never empties.
#[test]
fn floods_take_turns_with_a_parked_client() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).workers(1));
        let over = Arc::new(AtomicBool::new(false));
        let address = running.address;
        let mut quiet = Client::greeted(address);
        let floods: Vec<_> = (0..8)
            .flat_map(|_| {
                let client = Client::connect(address);
                let (mut half, over) = (Client(client.0.try_clone().unwrap()), over.clone());
                let sends = std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        half.send([b'x'; 16_384]);
                    }
                    half.finish();
                });
                let mut client = client;
                [sends, std::thread::spawn(move || while !client.recv().is_empty() {})]
            })
            .collect();
        wait_until("the floods are on", || running.handle.stats().served > 1_000);
        (0..100).for_each(|_| quiet.echo(b"hello world"));
        over.store(true, Ordering::Relaxed);
        for flood in floods {
            flood.join().unwrap();
        }
        running.stop();
    });
}

/// New connections arrive without pause while a parked client asks: it is not overlooked.
#[test]
fn a_connect_storm_does_not_hide_the_parked() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).workers(1));
        let over = Arc::new(AtomicBool::new(false));
        let address = running.address;
        let mut quiet = Client::greeted(address);
        let storm = {
            let over = over.clone();
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let clients: Vec<_> = (0..32).map(|_| TcpStream::connect(address).unwrap()).collect();
                    drop(clients);
                }
            })
        };
        (0..200).for_each(|_| quiet.echo(b"hello world"));
        over.store(true, Ordering::Relaxed);
        storm.join().unwrap();
        running.stop();
    });
}

/// An idle daemon with silent clients makes no system call until a deadline comes.
#[test]
fn an_idle_server_makes_no_system_call() {
    guard(|| {
        need_tracer();
        let mut daemon = Daemon::echo(&["--connections", "128", "--idle-timeout", "600"]);
        let clients: Vec<Client> = (0..100).map(|_| Client::greeted(daemon.address())).collect();
        let tracer = Tracer::attach(daemon.pid(), &[]);
        // Attaching interrupts every thread's call, which shows; then the trace must come to rest.
        let (mut last, mut resting) = (String::new(), 0);
        wait_until("the trace comes to rest", || {
            let now = tracer.trace();
            resting = if now == last && !now.is_empty() { resting + 1 } else { 0 };
            last = now;
            resting > 300
        });
        let before = tracer.trace();
        std::thread::park_timeout(std::time::Duration::from_secs(2));
        let after = tracer.trace();
        drop(tracer);
        assert_eq!(before, after);
        drop(clients);
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        daemon.wait_ok();
    });
}
