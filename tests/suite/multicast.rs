//! Multicast: daemons and a sender on one machine, and interfaces that come late, go, and come back.

use std::process::Command;

use lastorders::{Answer, Builder, Datagrams, Group};

use crate::network::{ip, own_network};
use crate::support::{self, Daemon, EMULATED_INTERFACES, Running, command, guard, skip};

/// QEMU's user emulation passes IP_PKTINFO on as a big-endian program has written it.
fn need_interface_numbers() {
    let emulator = command().get_program().to_string_lossy().into_owned();
    if ["qemu-s390x", "qemu-ppc"].contains(&&*emulator) {
        skip(EMULATED_INTERFACES);
    }
}

/// `lastorders send`, which must succeed in silence.
#[track_caller]
fn send(args: &[&str]) {
    if args.contains(&"--interface") {
        need_interface_numbers();
    }
    let output = command().arg("send").args(args).output().expect("start the sender");
    assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
}

/// Two daemons on one group and port both receive what one sender sends, on the loopback interface by name and by
/// address.
#[test]
fn two_daemons_receive_from_one_sender_on_loopback() {
    guard(|| {
        let mut first = Daemon::serve(&["--multicast", &support::group("239.1.1.1"), "--interface", "lo"]);
        let group = first.address().to_string();
        let mut second = Daemon::serve(&["--multicast", &group, "--interface", "127.0.0.1"]);
        for (interface, text) in [("lo", "Hello, multicast group!"), ("127.0.0.1", "it's \"me\" again")] {
            send(&[&group, text, "--interface", interface]);
            for daemon in [&mut first, &mut second] {
                daemon.wait_for(&format!("Received: {text} from "));
            }
        }
    });
}

/// Without an interface the route to the group decides, for those who listen and for the sender alike.
#[test]
fn without_an_interface_the_route_decides() {
    guard(|| {
        own_network();
        plug();
        ip("route add 239.0.0.0/8 dev lan");
        for group in ["239.1.1.1", "[ff05::5007]"] {
            let mut daemons = vec![Daemon::serve(&["--multicast", &support::group(group)])];
            let group = daemons[0].address().to_string();
            daemons.push(Daemon::serve(&["--multicast", &group]));
            send(&[&group, "Hello, multicast group!"]);
            for daemon in &mut daemons {
                daemon.wait_for("Received: Hello, multicast group! from ");
            }
        }
    });
}

/// What a sender puts into its message stays on one line of the log: control characters, bytes that are not
/// text, and what would look like a line of the server's.
#[test]
fn no_message_can_forge_a_log_line() {
    guard(|| {
        let mut daemon = Daemon::serve(&["--multicast", &support::group("239.1.1.2"), "--interface", "lo"]);
        let group = Group::new(daemon.address(), "lo".parse().ok()).unwrap();
        group.send(b"x\nINFO  PID:1. Server started on 1.2.3.4:5 (echo)\r\x1b[2J\xff\xe2\x80\xa8\\", 0).unwrap();
        let line = daemon.wait_for("Received: x");
        let text = r"Received: x\nINFO  PID:1. Server started on 1.2.3.4:5 (echo)\r\u{1b}[2J\xFF\u{2028}\\ from ";
        assert!(line.contains(text), "{line}");
        group.send(&[b'x'; 5_000], 0).unwrap();
        daemon.wait_for("Received more than 4096 bytes from ");
    });
}

/// A socket that is bound to the group gets what is sent to the group, and nothing that is sent to another one,
/// or to the machine, on the same port.
#[test]
fn a_group_gets_nothing_else() {
    guard(|| {
        let (sender, packets) = std::sync::mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        let service = Datagrams::new(move |packet, _, _| {
            let _ = sender.lock().unwrap().send(packet.to_vec());
            Ok(Answer::Silence)
        });
        let lo = || "lo".parse().ok();
        let group = Group::new("239.1.1.3:0".parse().unwrap(), lo()).unwrap();
        let running = Running::run(Builder::new().datagram(service).join(group).build().unwrap());
        let port = running.address.port();
        let other = Group::new(format!("239.1.1.4:{port}").parse().unwrap(), lo()).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // Joined once the server runs, which its answer to this shows: it is sent until it is received.
        let group = Group::new(running.address, lo()).unwrap();
        let heard_first = loop {
            group.send(b"first", 0).unwrap();
            if let Ok(packet) = packets.recv_timeout(std::time::Duration::from_millis(20)) {
                break packet;
            }
        };
        assert_eq!(heard_first, b"first");
        other.send(b"to another group", 0).unwrap();
        socket.send_to(b"to the machine", ("127.0.0.1", port)).unwrap();
        group.send(b"last", 0).unwrap();
        let last = packets.iter().find(|packet| packet != b"first").unwrap();
        assert_eq!(last, b"last");
        running.stop();
    });
}

/// Gives the network of this thread the interface `lan`, up, with addresses.
fn plug() {
    ip("link add lan type veth peer name wall");
    ip("link set wall up");
    ip("addr add 10.7.0.1/24 dev lan");
    ip("link set lan up");
    ip("addr add fd07::1/64 dev lan nodad");
}

const GROUPS: [&str; 3] = ["239.1.1.1:5007", "[ff05::1:3]:5008", "[ff02::1:3]:5009"];

/// The socket of a group of one link cannot be bound to the group. All the same its service gets nothing that is sent to
/// the machine on the same port.
#[test]
fn a_group_of_a_link_gets_nothing_else() {
    guard(|| {
        own_network();
        plug();
        let group = GROUPS[2];
        let mut daemon = Daemon::spawn(command().args(["serve", "--multicast", group, "--interface", "lan"]));
        daemon.wait_for("Server started on ");
        let status = Command::new("bash").args(["-c", "echo to the machine > /dev/udp/fd07::1/5009"]).status();
        assert!(status.unwrap().success());
        send(&[group, "to the group", "--interface", "lan"]);
        daemon.wait_for("Received: to the group from ");
        assert!(daemon.log.iter().all(|line| !line.contains("to the machine")), "{:?}", daemon.log);
    });
}

/// The interface is not there at start, then comes, goes, comes back as another one, and goes down and up: each
/// time the groups are received again, and in between the daemon says once that they are not.
#[test]
fn groups_are_joined_again_when_the_interface_comes_back() {
    guard(|| {
        own_network();
        let mut command = command();
        command.arg("serve").args(GROUPS.map(|group| format!("--multicast={group}"))).args(["--interface", "lan"]);
        let mut daemon = Daemon::spawn(&mut command);
        for group in ["239.1.1.1", "ff05::1:3", "ff02::1:3"] {
            daemon.wait_for(&format!("Cannot join {group} on lan now"));
        }
        daemon.wait_for("Server started on [ff02::1:3]:5009 (multicast)");
        for round in ["first", "second"] {
            plug();
            receive_all(&mut daemon, round);
            ip("link del lan");
            (0..3).for_each(|_| drop(daemon.wait_for("Cannot join ")));
        }
        plug();
        receive_all(&mut daemon, "third");
        ip("link set lan down");
        ip("link set lan up");
        ip("addr replace fd07::1/64 dev lan nodad");
        for group in GROUPS {
            send(&[group, "up again", "--interface", "10.7.0.1"]);
            daemon.wait_for("Received: up again from ");
        }
    });
}

#[track_caller]
fn receive_all(daemon: &mut Daemon, round: &str) {
    (0..3).for_each(|_| drop(daemon.wait_for("Joined ")));
    for group in GROUPS {
        let text = format!("{round} at {group}");
        send(&[group, &text, "--interface", "lan"]);
        daemon.wait_for(&format!("Received: {text} from "));
    }
}

/// Without an interface, and at first without a route: the group is joined where the route leads, once there is
/// one. Nothing but the route changes.
#[test]
fn a_group_is_joined_when_the_route_comes() {
    guard(|| {
        own_network();
        let mut daemon = Daemon::spawn(command().args(["serve", "--multicast", GROUPS[0]]));
        daemon.wait_for("Cannot join 239.1.1.1 now");
        ip("route add 239.0.0.0/8 dev lo");
        daemon.wait_for("Joined 239.1.1.1");
        send(&[GROUPS[0], "by the route"]);
        daemon.wait_for("Received: by the route from ");
    });
}

/// The interface is taken away and another one of its name put there at once, before the daemon has looked: the
/// group is joined on the new one.
#[test]
fn a_group_follows_an_interface_that_is_swapped() {
    guard(|| {
        need_interface_numbers();
        own_network();
        plug();
        let mut daemon = Daemon::spawn(command().args(["serve", "--multicast", GROUPS[0], "--interface=lan"]));
        daemon.wait_for("Server started on ");
        ip("link del lan");
        plug();
        let (received, stop) = std::sync::mpsc::channel::<()>();
        let sender = std::thread::spawn(move || {
            // Nothing shows when the new membership stands, if the old one was never missed.
            while stop.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                send(&[GROUPS[0], "swapped", "--interface", "lan"]);
            }
        });
        daemon.wait_for("Received: swapped from 10.7.0.1:");
        drop(received);
        sender.join().unwrap();
    });
}

/// A group that cannot be sent to is an error with its reason, not a success.
#[test]
fn a_sender_says_what_is_wrong() {
    guard(|| {
        need_interface_numbers();
        for (args, code, parts) in [
            (&["10.0.0.1:5007", "x"][..], 2, &["10.0.0.1:5007", "not a multicast address"][..]),
            (&["239.1.1.1:5007"], 2, &["a group and a message"]),
            (&["239.1.1.1:5007", "x", "--ttl", "256"], 2, &["--ttl \"256\"", "0 to 255"]),
            (
                &["239.1.1.1:5007", "x", "--interface", "no-such-if"],
                1,
                &["239.1.1.1:5007", "no interface has the name or address no-such-if", "lo"],
            ),
            (&["239.1.1.1:5007", &"x".repeat(65_508), "--interface", "lo"], 1, &["(os error 90)"]),
        ] {
            let output = command().arg("send").args(args).output().expect("start the sender");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    });
}
