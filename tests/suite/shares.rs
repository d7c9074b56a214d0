//! `--per-client`: no address has more than its share of connections, and no other has to wait for that.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lastorders::builtin::Echo;
use lastorders::{Server, WhenFull};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket};

use crate::fork::{newest, pids, stat};
use crate::support::{Client, Daemon, HANG, Running, command, guard, wait_until};
use crate::vitals::spent;

/// Connects to an IPv4 address from 127.0.0.`host`, if the backlog has room.
fn try_from(host: u8, address: SocketAddr) -> Option<Client> {
    let SocketAddr::V4(address) = address else { panic!("not an IPv4 address") };
    let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, host, 0)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(address)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HANG / 2)).unwrap();
    Some(Client(stream))
}

fn from(host: u8, address: SocketAddr) -> Client {
    try_from(host, address).expect("connect")
}

fn greeted_from(host: u8, address: SocketAddr) -> Client {
    let mut client = from(host, address);
    client.echo(b"hello world");
    client
}

fn refused_from(host: u8, address: SocketAddr) {
    assert_eq!(from(host, address).rest(), b"BUSY\n");
}

/// In every mode, with every slot taken or not: two connections of an address are served, a third is told `BUSY`, and
/// another address is served as ever.
#[test]
fn an_address_has_its_share_and_no_more() {
    guard(|| {
        for when_full in [WhenFull::Wait, WhenFull::Shed, WhenFull::Reject] {
            let running = Running::start(Server::builder(Echo).connections(5).per_client(2).when_full(when_full));
            let mut clients = [2, 2, 3, 3].map(|host| greeted_from(host, running.address));
            refused_from(2, running.address);
            refused_from(3, running.address);
            let mut other = greeted_from(4, running.address);
            clients.iter_mut().for_each(|client| client.echo(b"left alone"));
            other.echo(b"left alone");
            let stats = running.handle.stats();
            assert_eq!((stats.over_share, stats.refused, stats.shed, stats.open), (2, 2, 0, 5), "{stats}");
            running.stop();
        }
    });
}

/// A client that closes one connection and opens the next at once is never refused, on threads and in processes,
/// although different threads see its end and its beginning; nor is one that has all of its share in use.
#[test]
fn a_client_that_leaves_may_come_again_at_once() {
    guard(|| {
        for args in [&["--per-client", "1"][..], &["--per-client", "1", "--fork"]] {
            let daemon = Daemon::echo(args);
            for _ in 0..200 {
                drop(greeted_from(2, daemon.address()));
            }
        }
    });
}

/// `shed`: with every slot taken, a client over the share is refused, and no other is closed for it; one within it gets
/// in.
#[test]
fn no_client_is_shed_for_one_over_the_share() {
    guard(|| {
        let builder = Server::builder(Echo).connections(2).per_client(1).when_full(WhenFull::Shed);
        let running = Running::start(builder);
        let mut clients = [2, 3].map(|host| greeted_from(host, running.address));
        wait_until("both are parked", || running.handle.stats().parked == 2);
        refused_from(3, running.address);
        clients.iter_mut().for_each(|client| client.echo(b"left alone"));
        assert_eq!((running.handle.stats().shed, running.handle.stats().over_share), (0, 1));
        wait_until("both are parked", || running.handle.stats().parked == 2);
        greeted_from(4, running.address);
        assert_eq!(running.handle.stats().shed, 1);
        running.stop();
    });
}

/// IPv6 clients are counted too, apart from those of IPv4.
#[test]
fn an_ipv6_client_has_a_share_of_its_own() {
    guard(|| {
        let daemon = Daemon::serve(&["--tcp", "echo=127.0.0.1:0", "--tcp", "echo=[::1]:0", "--per-client", "1"]);
        let _first = Client::greeted(daemon.addresses[0]);
        let _second = Client::greeted(daemon.addresses[1]);
        assert_eq!(Client::connect(daemon.addresses[1]).rest(), b"BUSY\n");
    });
}

/// One address with its whole share in use connects as fast as it can, from several threads, while another asks and
/// comes anew all the time: that one is never refused nor kept waiting, the log has a line a second, the server
/// rests as soon as it is left alone, and stops with a notice to every client. With processes the same.
#[test]
fn a_hammering_client_disturbs_no_other() {
    guard(|| {
        for args in [&["--when-full", "wait"][..], &["--when-full", "shed"], &["--when-full", "reject"], &["--fork"]] {
            let mut daemon = Daemon::echo(&[&["--per-client", "3"], args].concat());
            let address = daemon.address();
            let mut own: Vec<Client> = (0..3).map(|_| greeted_from(2, address)).collect();
            let (over, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let hammers: Vec<_> = (0..3)
                .map(|_| {
                    let (over, refused) = (over.clone(), refused.clone());
                    std::thread::spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            if let Some(mut client) = try_from(2, address) {
                                assert_eq!(client.rest(), b"BUSY\n");
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    })
                })
                .collect();
            wait_until("the hammers hit", || refused.load(Ordering::Relaxed) > 20);
            let (mut other, start, mut longest) = (greeted_from(3, address), Instant::now(), 0);
            let before = refused.load(Ordering::Relaxed);
            while start.elapsed().as_millis() < 700 || refused.load(Ordering::Relaxed) < before + 20 {
                let asked = Instant::now();
                other.echo(b"still served");
                greeted_from(4, address);
                longest = longest.max(asked.elapsed().as_millis());
            }
            over.store(true, Ordering::Relaxed);
            hammers.into_iter().for_each(|hammer| hammer.join().unwrap());
            assert!(longest < 2_000, "{longest} ms");
            own.iter_mut().for_each(|client| client.echo(b"mine"));
            let before = spent(daemon.pid());
            std::thread::park_timeout(Duration::from_millis(500));
            let spun = spent(daemon.pid()) - before;
            assert!(spun.as_millis() < 100, "{spun:?} of half a second");
            daemon.signal(Signal::SIGTERM);
            for client in own.iter_mut().chain([&mut other]) {
                assert_eq!(client.rest(), b"SHUTDOWN");
            }
            drop((own, other));
            daemon.wait_ok();
            let lines = daemon.log.iter().filter(|line| line.contains("has its share of 3 connections")).count();
            assert!((1..=20).contains(&lines), "{lines}: {:#?}", daemon.log);
        }
    });
}

/// A client that waits for a share when the server is asked to stop gets the notice like every other.
#[test]
fn a_client_that_waits_for_a_share_gets_the_notice() {
    guard(|| {
        let running = Running::start(Server::builder(Echo).per_client(1));
        let mut first = greeted_from(2, running.address);
        let mut waiting = from(2, running.address);
        running.handle.shutdown();
        let told = waiting.rest();
        // It may have waited long enough to be refused before.
        assert!(told == b"SHUTDOWN" || told == b"BUSY\n", "{told:?}");
        assert_eq!(first.rest(), b"SHUTDOWN");
        drop(first);
        running.report();
    });
}

/// With processes: those of an address are counted, and no child of another's keeps a refused client's socket open.
#[test]
fn processes_are_counted_by_address() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--fork", "--per-client", "1"]);
        let first = greeted_from(2, daemon.address());
        // It waits for its share while a child for another client is made.
        let mut second = from(2, daemon.address());
        let _other = greeted_from(3, daemon.address());
        assert_eq!(second.rest(), b"BUSY\n");
        assert_eq!(stat(&mut daemon, "over_share"), 1);
        drop(first);
        greeted_from(2, daemon.address());
    });
}

/// With processes: a child that is made while a client waits for a share does not keep that one's connection open
/// beyond its end.
#[test]
fn a_waiting_client_is_closed_in_other_children() {
    guard(|| {
        for round in 0.. {
            let daemon = Daemon::echo(&["--fork", "--per-client", "1", "--idle-timeout", "3600"]);
            let first = greeted_from(2, daemon.address());
            let mut waiting = from(2, daemon.address());
            let _other = greeted_from(3, daemon.address());
            let before = pids(&daemon);
            drop(first);
            waiting.send("hello world");
            // On a slow machine its time may be over too soon.
            if waiting.recv() != b"hello world" {
                assert!(round < 20, "never let in");
                continue;
            }
            kill(newest(&daemon, &before), Signal::SIGKILL).unwrap();
            assert_eq!(waiting.recv(), b"");
            break;
        }
    });
}

/// `--check` counts the table, and a limit out of range is refused by name; 0 is none.
#[test]
fn the_table_is_in_the_budget() {
    guard(|| {
        let check = |args: &[&str]| command().args(["serve", "--check", "--connections", "16384"]).args(args).output();
        let tables = |args: &[&str]| {
            let output = check(args).unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("tables: ")?.strip_suffix(" KiB"));
            line.expect("a line").parse::<u64>().unwrap()
        };
        let more = tables(&["--per-client", "4"]) - tables(&["--per-client", "0"]);
        assert!((2_048..=2_049).contains(&more), "{more}");
        let output = check(&["--per-client", "16385"]).unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2)
                && text.contains("--per-client \"16385\": expected a whole number from 0 to 16384"),
            "{text}"
        );
    });
}
