//! When every slot is taken: wait, shed, reject; and when descriptors run out.

use std::net::TcpStream;
use std::time::Duration;

use lastorders::builtin::Echo;
use lastorders::{Flow, Limits, Lines, Server, WhenFull};
use nix::errno::Errno;

use crate::support::{Client, Daemon, Running, guard, os_error, prlimit, wait_until};
use crate::vitals::descriptors;

fn two_slots(when_full: WhenFull) -> Running {
    Running::start(Server::builder(Echo).connections(2).when_full(when_full))
}

/// `wait`: the third client is connected by the kernel, and served when one of the two leaves.
#[test]
fn wait_serves_the_next_client_when_one_leaves() {
    guard(|| {
        let running = two_slots(WhenFull::Wait);
        let first = Client::greeted(running.address);
        let mut second = Client::greeted(running.address);
        let mut third = running.client();
        third.send("hello");
        second.echo(b"still served");
        assert_eq!(running.handle.stats().accepted, 2);
        drop(first);
        third.expect("hello");
        let stats = running.handle.stats();
        assert_eq!((stats.accepted, stats.open_max, stats.left), (3, 2, 1));
        running.stop();
    });
}

/// `shed`: the client that has been idle longest gets the notice and is closed, and the new one is served at once, with an
/// idle timeout or without one.
#[test]
fn shed_closes_the_longest_idle_client() {
    guard(|| {
        for idle_timeout in [Duration::from_secs(30), Duration::ZERO] {
            let limits = Limits { connections: 2, when_full: WhenFull::Shed, idle_timeout, ..Limits::default() };
            let running = Running::start(Server::builder(Echo).limits(limits));
            let mut oldest = Client::greeted(running.address);
            let mut other = Client::greeted(running.address);
            wait_until("both are parked", || running.handle.stats().parked == 2);
            // Deadlines are in milliseconds: the next activity must fall into a later one.
            std::thread::park_timeout(Duration::from_millis(5));
            oldest.echo(b"not the longest idle any more");
            wait_until("both are parked", || running.handle.stats().parked == 2);
            let mut third = Client::greeted(running.address);
            assert_eq!(other.rest(), b"SHUTDOWN");
            oldest.echo(b"kept");
            third.echo(b"kept too");
            assert_eq!(running.handle.stats().shed, 1);
            running.stop();
        }
    });
}

/// `shed` waits while no client is idle, and sheds as soon as one is.
#[test]
fn shed_waits_for_an_idle_client() {
    guard(|| {
        let shout = Lines::new(|line, reply| {
            reply.push(line);
            reply.push(b"!\n");
            Ok(Flow::Continue)
        });
        let running = Running::start(Server::builder(shout).connections(2).when_full(WhenFull::Shed));
        // Each is in the middle of a request.
        let mut first = running.client();
        first.send("fir");
        let mut second = running.client();
        second.send("sec");
        wait_until("both are parked", || running.handle.stats().parked == 2);
        let mut third = running.client();
        third.send("third\n");
        first.send("st\n");
        assert_eq!(first.rest(), b"first!\nSHUTDOWN\n");
        third.expect("third!\n");
        second.send("ond\n");
        second.expect("second!\n");
        running.stop();
    });
}

/// `reject`: the third client is told `BUSY` and closed, the others are left alone.
#[test]
fn reject_says_busy() {
    guard(|| {
        let running = two_slots(WhenFull::Reject);
        let mut first = Client::greeted(running.address);
        let second = Client::greeted(running.address);
        for _ in 0..3 {
            assert_eq!(running.client().rest(), b"BUSY\n");
        }
        first.echo(b"left alone");
        assert_eq!(running.handle.stats().refused, 3);
        drop(second);
        wait_until("a slot is free", || running.handle.stats().open == 1);
        Client::greeted(running.address);
        running.stop();
    });
}

/// A hundred clients at once on a queue of one and a single slot more than it: all are served in the end.
#[test]
fn a_tiny_queue_loses_no_client() {
    guard(|| {
        let limits = Limits { queue: 1, connections: 2, workers: 1, ..Limits::default() };
        let running = Running::start(Server::builder(Echo).limits(limits));
        let address = running.address;
        let clients: Vec<_> = (0..100).map(|_| std::thread::spawn(move || drop(Client::greeted(address)))).collect();
        for client in clients {
            client.join().unwrap();
        }
        wait_until("all have left", || running.handle.stats().left == 100);
        running.stop();
    });
}

/// The daemon runs out of descriptors: it says so, spins not, and serves the waiting client when it can.
#[test]
fn running_out_of_descriptors_is_survived() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--connections", "512"]);
        let mut first = Client::greeted(daemon.address());
        let open = descriptors(daemon.pid());
        // Two more may be opened; the rest waits.
        prlimit(daemon.pid(), &format!("nofile={}:4096", open + 2));
        let mut clients: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(daemon.address()).unwrap()).collect();
        let refusal = daemon.wait_for(" refused: ");
        assert!(refusal.contains(&os_error(Errno::EMFILE)), "{refusal}");
        daemon.wait_for("Cannot accept on ");
        first.echo(b"still served");
        // What they hold is freed by closing the first ones; those that were told BUSY are gone already.
        let last = clients.pop().unwrap();
        drop(clients);
        let mut last = Client(last);
        last.0.set_read_timeout(Some(crate::support::HANG / 2)).unwrap();
        let told = {
            last.send("hello");
            last.recv()
        };
        assert!(told == b"hello" || told == b"BUSY\n", "{told:?}");
        // The server may have yet to see that the others have left.
        wait_until("a client is served again", || {
            let mut client = daemon.client();
            client.send("hello");
            client.recv() == b"hello"
        });
        drop((first, last));
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        daemon.wait_ok();
    });
}
