//! Datagrams: the time service of the daemon, and the library's own, beside TCP on the same workers.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use lastorders::builtin::Echo;
use lastorders::config::DATAGRAM;
use lastorders::{Answer, Builder, Datagram, Datagrams, Reply, ServerHandle, Stats};
use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, HANG, Running, guard, wait_until};

const UNKNOWN: &str = "{\"error\": \"unknown request\"}";
const INVALID: &str = "{\"error\": \"invalid JSON\"}";

/// A sender that fails its test rather than wait for ever.
fn sender(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(HANG / 2)).unwrap();
    socket
}

#[track_caller]
fn ask(socket: &UdpSocket, request: impl AsRef<[u8]>) -> String {
    socket.send(request.as_ref()).unwrap();
    receive_text(socket)
}

#[track_caller]
fn receive_text(socket: &UdpSocket) -> String {
    let mut bytes = [0; 2 * DATAGRAM];
    let count = socket.recv(&mut bytes).expect("a reply");
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

fn echo() -> impl Datagram {
    Datagrams::new(|packet, _, reply| {
        reply.push(packet);
        Ok(Answer::Reply)
    })
}

/// Waits for figures of the counters: a reply is counted just after it is sent.
#[track_caller]
fn counted<T: PartialEq + std::fmt::Debug>(handle: &ServerHandle, read: impl Fn(&Stats) -> T, figures: T) {
    wait_until(&format!("{figures:?} counted"), || read(&handle.stats()) == figures);
}

fn run(builder: Builder) -> Running {
    Running::run(builder.build().expect("build"))
}

/// A request for the time, however it is written, gets the time in exactly its form.
#[test]
fn the_time_has_its_exact_form() {
    guard(|| {
        let daemon = Daemon::serve(&["--udp", "time=127.0.0.1:0"]);
        let socket = sender(daemon.address());
        for request in ["{\"type\": \"time\"}", " {\"id\":[1,{}],\"\\u0074ype\":\"time\"}\r\n"] {
            let reply = ask(&socket, request);
            let time = reply.strip_prefix("{\"time\": \"").and_then(|rest| rest.strip_suffix("\"}")).expect(&reply);
            let shape: String = time.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
            assert_eq!(shape, "0000-00-00 00:00:00.000000");
            assert!(reply.len() <= 128);
        }
    });
}

/// Other JSON, no JSON, nothing at all, too much by one byte or by as much as UDP carries: each gets its error,
/// and the longest that is allowed its answer. An error of such a server gets none.
#[test]
fn garbage_gets_its_error() {
    guard(|| {
        let daemon = Daemon::serve(&["--udp", "time=127.0.0.1:0"]);
        let socket = sender(daemon.address());
        let deep = "[".repeat(DATAGRAM);
        let padded = |length: usize| format!("{:<length$}", "{\"type\": \"time\"}");
        for (request, reply) in [
            ("{\"type\": \"date\"}", UNKNOWN),
            ("[\"time\"]", UNKNOWN),
            ("7", UNKNOWN),
            ("", INVALID),
            ("hello world", INVALID),
            ("{\"type\": \"time\"} x", INVALID),
            (&deep, INVALID),
            (&padded(DATAGRAM), "{\"time\": "),
            (&padded(DATAGRAM + 1), INVALID),
            (&padded(65_507), INVALID),
        ] {
            let reply_text = ask(&socket, request);
            assert!(reply_text.starts_with(reply), "{request:.40}: {reply_text}");
        }
        assert_eq!(ask(&socket, b"\"\xff\""), INVALID);
        for error in [UNKNOWN, INVALID] {
            socket.send(error.as_bytes()).unwrap();
            assert!(ask(&socket, padded(16)).starts_with("{\"time\": "), "no reply came before this one");
        }
    });
}

/// Many senders at many sockets at once, each waiting for its reply before it goes on: each gets its own
/// replies, and none is forgotten in a socket.
#[test]
fn many_senders_get_their_own_replies() {
    guard(|| {
        let builder = (0..3).fold(Builder::new().datagram(echo()), |builder, _| builder.bind("127.0.0.1:0").unwrap());
        let server = builder.build().unwrap();
        let addresses: Vec<_> = server.addresses().collect();
        let running = Running::run(server);
        let senders: Vec<_> = (0..24)
            .map(|number| {
                let address = addresses[number % addresses.len()];
                thread::spawn(move || {
                    let socket = sender(address);
                    for round in 0..200 {
                        let text = format!("{number}/{round}");
                        assert_eq!(ask(&socket, &text), text);
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        counted(&running.handle, |stats| (stats.datagrams, stats.replies, stats.replies_dropped), (4_800, 4_800, 0));
        running.stop();
    });
}

/// Datagrams that arrived before the workers started, far more than one turn takes, are all answered, in order
/// and without a further one to wake a worker.
#[test]
fn what_waits_in_the_socket_is_answered_in_turns() {
    guard(|| {
        let server = Builder::new().datagram(echo()).bind("127.0.0.1:0").unwrap().workers(1).build().unwrap();
        let socket = sender(server.addresses().next().unwrap());
        for number in 0..150 {
            socket.send(format!("{number}").as_bytes()).unwrap();
        }
        let running = Running::run(server);
        for number in 0..150 {
            assert_eq!(receive_text(&socket), number.to_string());
        }
        running.stop();
    });
}

/// The longest datagram goes to a closure and back; a longer one is ignored, and an empty one is answered with
/// an empty one.
#[test]
fn a_closure_gets_whole_datagrams_only() {
    guard(|| {
        let running = run(Builder::new().datagram(echo()).bind("127.0.0.1:0").unwrap());
        let socket = sender(running.address);
        socket.send(&[b'x'; DATAGRAM + 1]).unwrap();
        assert_eq!(ask(&socket, [b'y'; DATAGRAM]), "y".repeat(DATAGRAM));
        assert_eq!(ask(&socket, ""), "");
        counted(&running.handle, |stats| (stats.datagrams, stats.oversized, stats.replies), (3, 1, 2));
        running.stop();
    });
}

/// One worker, a flood of datagrams at one side and of TCP requests at the other: both sides are answered.
#[test]
fn datagrams_and_connections_share_one_worker() {
    guard(|| {
        let builder = Builder::new().service(Echo).listen("127.0.0.1:0").unwrap();
        let server = builder.datagram(echo()).bind("127.0.0.1:0").unwrap().workers(1).build().unwrap();
        let udp = server.addresses().nth(1).unwrap();
        let running = Running::run(server);
        let (stop, stopped) = mpsc::channel::<()>();
        let flood = thread::spawn(move || {
            let socket = sender(udp);
            socket.set_nonblocking(true).unwrap();
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let _ = socket.send(b"flood");
                let _ = socket.recv(&mut [0; 16]);
            }
        });
        let mut client = Client::greeted(running.address);
        (0..200).for_each(|_| client.echo(b"through the flood"));
        drop(stop);
        flood.join().unwrap();

        let socket = sender(udp);
        let mut stuffed = running.client();
        stuffed.stuff();
        (0..200).for_each(|_| assert_eq!(ask(&socket, "beside it"), "beside it"));
        running.stop();
    });
}

/// A reply to a port that is closed by now comes back as an error, which is counted; the socket goes on, and
/// the next datagram is answered.
#[test]
fn receive_errors_do_not_stop_the_socket() {
    guard(|| {
        let (holding, held) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (holding, released) = (Mutex::new(holding), Mutex::new(released));
        let holder = Datagrams::new(move |packet, _, reply| {
            if packet == b"hold" {
                let _ = holding.lock().unwrap().send(());
                let _ = released.lock().unwrap().recv();
            }
            reply.push(packet);
            Ok(Answer::Reply)
        });
        // Only a connected socket is told of such errors (udp(7)).
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (server_address, address) = (socket.local_addr().unwrap(), peer.local_addr().unwrap());
        socket.connect(address).unwrap();
        let running = run(Builder::new().datagram(holder).socket(socket));
        peer.connect(server_address).unwrap();
        peer.send(b"hold").unwrap();
        held.recv().unwrap();
        drop(peer);
        release.send(()).unwrap();
        counted(&running.handle, |stats| stats.receive_errors, 1);
        let peer = UdpSocket::bind(address).unwrap();
        peer.set_read_timeout(Some(HANG / 2)).unwrap();
        peer.connect(server_address).unwrap();
        assert_eq!(ask(&peer, "and now?"), "and now?");
        running.stop();
    });
}

/// A service that panics, and one that fails, costs the datagram; the worker, the socket and the counters go on.
#[test]
fn a_failing_service_costs_one_datagram() {
    struct Moody;
    impl Datagram for Moody {
        fn receive(&self, packet: &[u8], _: SocketAddr, reply: &mut Reply) -> io::Result<Answer> {
            match packet {
                b"panic" => panic!("as asked for"),
                b"fail" => Err(io::ErrorKind::Other.into()),
                b"silence" => Ok(Answer::Silence),
                _ => {
                    reply.push(packet);
                    Ok(Answer::Reply)
                }
            }
        }
    }
    guard(|| {
        let running = run(Builder::new().datagram(Moody).bind("127.0.0.1:0").unwrap().workers(1));
        let socket = sender(running.address);
        for mood in ["panic", "fail", "silence"] {
            socket.send(mood.as_bytes()).unwrap();
            assert_eq!(ask(&socket, "well?"), "well?");
        }
        counted(&running.handle, |stats| (stats.datagrams, stats.datagrams_failed, stats.replies), (6, 2, 3));
        assert_eq!(running.handle.stats().panics, 0, "that one counts connections");
        running.stop();
    });
}

/// With datagrams alone there is no client to wait for: the daemon exits at once.
#[test]
fn a_server_of_datagrams_alone_stops_at_once() {
    guard(|| {
        let mut daemon = Daemon::serve(&["--udp", "time=127.0.0.1:0", "--grace", "50"]);
        assert_eq!(ask(&sender(daemon.address()), "{}"), UNKNOWN);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
        daemon.expect_last("SIGTERM: 0 notified, 0 left, 0 closed, 0 workers abandoned");
    });
}

/// While connections have their grace, datagrams are answered; when it is over the port is free again, though a
/// handle of the server lives on.
#[test]
fn datagrams_are_answered_until_the_end_of_the_grace() {
    guard(|| {
        let builder = Builder::new().service(Echo).listen("127.0.0.1:0").unwrap();
        let server = builder.datagram(echo()).bind("127.0.0.1:0").unwrap().grace(Duration::from_secs(50));
        let server = server.build().unwrap();
        let udp = server.addresses().nth(1).unwrap();
        let running = Running::run(server);
        let mut client = Client::greeted(running.address);
        running.handle.shutdown();
        client.expect("SHUTDOWN");
        let socket = sender(udp);
        assert_eq!(ask(&socket, "still there?"), "still there?");
        drop(client);
        let handle = running.handle.clone();
        running.report();
        UdpSocket::bind(udp).expect("the port is free");
        counted(&handle, |stats| stats.replies, 1);
    });
}

/// The shutdown begins while a datagram socket waits in the ready queue, behind one whose service holds the only
/// worker: the client that waits there too gets the notice, and the datagram is answered once the worker is free.
#[test]
fn a_queued_socket_keeps_its_datagrams_when_the_shutdown_begins() {
    guard(|| {
        let gate = Arc::new(Barrier::new(2));
        let (entered, stuck) = mpsc::channel();
        let entered = Mutex::new(entered);
        let waits = gate.clone();
        let holder = Datagrams::new(move |_, _, _| {
            let _ = entered.lock().unwrap().send(());
            waits.wait();
            Ok(Answer::Silence)
        });
        let builder = Builder::new().service(Echo).listen("127.0.0.1:0").unwrap().workers(1);
        let builder = builder.datagram(holder).bind("127.0.0.1:0").unwrap();
        let server = builder.datagram(echo()).bind("127.0.0.1:0").unwrap().grace(Duration::from_secs(50));
        let server = server.build().unwrap();
        let addresses: Vec<_> = server.addresses().collect();
        // The worker finds both at its first look, and serves the one that was sent to first.
        sender(addresses[1]).send(b"x").unwrap();
        let socket = sender(addresses[2]);
        socket.send(b"in the queue").unwrap();
        let running = Running::run(server);
        stuck.recv().unwrap();
        let mut client = running.client();
        wait_until("the client is admitted", || running.handle.stats().accepted == 1);
        running.handle.shutdown();
        client.expect("SHUTDOWN");
        gate.wait();
        assert_eq!(receive_text(&socket), "in the queue");
        client.expect_end();
        drop(client);
        assert_eq!(running.report().abandoned, 0);
    });
}

/// A worker that is held up by one socket's service leaves the other sockets to the rest, and at the end the
/// server does not wait for it for ever; when it comes back it closes the socket.
#[test]
fn a_stuck_datagram_service_is_abandoned() {
    guard(|| {
        let gate = Arc::new(Barrier::new(2));
        let (entered, stuck) = mpsc::channel();
        let entered = Mutex::new(entered);
        let waits = gate.clone();
        let holder = Datagrams::new(move |_, _, _| {
            let _ = entered.lock().unwrap().send(());
            waits.wait();
            Ok(Answer::Silence)
        });
        let builder = Builder::new().datagram(echo()).bind("127.0.0.1:0").unwrap();
        let server = builder.datagram(holder).bind("127.0.0.1:0").unwrap().workers(2).build().unwrap();
        let holding = server.addresses().nth(1).unwrap();
        let running = Running::run(server);
        sender(holding).send(b"x").unwrap();
        stuck.recv().unwrap();
        assert_eq!(ask(&sender(running.address), "beside it"), "beside it");
        let _handle = running.handle.clone();
        assert_eq!(running.stop().abandoned, 1);
        gate.wait();
        wait_until("it closes its socket", || UdpSocket::bind(holding).is_ok());
    });
}

/// The sockets are announced in the order of the command line, whatever their kind.
#[test]
fn sockets_are_announced_in_the_order_of_the_options() {
    guard(|| {
        let args = ["--udp", "time=127.0.0.1:0", "--tcp", "echo=127.0.0.1:0", "--udp", "time=127.0.0.1:0"];
        let daemon = Daemon::serve(&args);
        let names: Vec<_> = daemon.log.iter().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(names, ["(time)", "(echo)", "(time)"]);
        assert_eq!(ask(&sender(daemon.addresses[0]), "{}"), UNKNOWN);
        Client::greeted(daemon.addresses[1]);
        assert_eq!(ask(&sender(daemon.addresses[2]), "{}"), UNKNOWN);
    });
}

/// An address without a service of its kind before it is refused by name.
#[test]
fn an_address_needs_a_service_of_its_kind() {
    for (builder, kind) in [
        (Builder::new().datagram(echo()).listen("127.0.0.1:0").unwrap(), "a TCP service"),
        (Builder::new().service(Echo).bind("127.0.0.1:0").unwrap(), "a datagram service"),
    ] {
        let error = builder.build().err().unwrap().to_string();
        assert!(error.contains(kind), "{error}");
    }
}
