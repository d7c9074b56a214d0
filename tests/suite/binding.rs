//! Addresses that cannot be bound yet: waiting for them, giving up, being stopped meanwhile, and not waiting at all.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use lastorders::Builder;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::network::{add_address, own_network};
use crate::support::{Client, Daemon, command, guard, os_error};

/// The daemon, which is not waited for.
fn serve(args: &[&str]) -> Daemon {
    Daemon::spawn(command().arg("serve").args(args))
}

fn taken() -> (TcpListener, SocketAddr, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address, format!("echo={address}"))
}

/// `--bind-retry`: an address that is taken is served once it is free, and one line has said what is waited for.
#[test]
fn a_taken_address_is_waited_for() {
    guard(|| {
        let (taken, address, echo) = taken();
        let mut daemon = serve(&["--tcp", &echo, "--bind-retry", "60"]);
        let line = daemon.wait_for("yet: ");
        for part in [&address.to_string()[..], "(echo)", "in use", "trying again for 60 seconds"] {
            assert!(line.contains(part), "{line}");
        }
        drop(taken);
        daemon.wait_for(&format!("Server started on {address} (echo)"));
        Client::greeted(address);
        assert_eq!(daemon.log.iter().filter(|line| line.contains("yet: ")).count(), 1);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// A UDP address is waited for like one of TCP.
#[test]
fn a_taken_udp_address_is_waited_for() {
    guard(|| {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut daemon = serve(&["--udp", &format!("time={address}"), "--bind-retry=60"]);
        daemon.wait_for("yet: ");
        drop(taken);
        daemon.wait_for(&format!("Server started on {address} (time)"));
    });
}

/// When the time is over, the error says what could not be bound, why, and for how long it was tried.
#[test]
fn giving_up_is_an_error() {
    guard(|| {
        let (_taken, address, echo) = taken();
        for (echo, address, part) in
            [(&echo[..], address.to_string(), "another port"), ("echo=192.0.2.1:9", "192.0.2.1:9".into(), "interface")]
        {
            let mut daemon = serve(&["--tcp", echo, "--bind-retry", "0.3"]);
            assert_eq!(daemon.wait().code(), Some(1));
            daemon.expect_last(&format!("lastorders: cannot listen on {address} (echo), tried for 0.3 seconds: "));
            daemon.expect_last(part);
        }
    });
}

/// Without the option, or for an error that time does not mend, nothing is tried twice.
#[test]
fn what_time_does_not_mend_is_not_waited_for() {
    guard(|| {
        let (_taken, _, echo) = taken();
        for args in [&["--tcp", &echo][..], &["--tcp", "echo=[fe80::1]:9", "--bind-retry", "60"]] {
            let mut daemon = serve(args);
            assert_eq!(daemon.wait().code(), Some(1));
            assert_eq!(daemon.log.len(), 1, "{:#?}", daemon.log);
        }
    });
}

/// A signal to stop ends the waiting at once, with exit code 0; other signals do not.
#[test]
fn a_signal_ends_the_waiting() {
    guard(|| {
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            let (_taken, address, echo) = taken();
            let mut daemon = serve(&["--tcp", &echo, "--bind-retry", "86400"]);
            daemon.wait_for("yet: ");
            daemon.signal(Signal::SIGUSR1);
            daemon.signal(Signal::SIGUSR2);
            daemon.signal(signal);
            daemon.wait_ok();
            daemon.expect_last(&format!("Server stopped. {signal} received while waiting to listen on {address}"));
        }
    });
}

/// At boot: the address comes after the server, which serves it from then on.
#[test]
fn an_address_that_comes_late_is_waited_for() {
    guard(|| {
        own_network();
        for address in ["192.0.2.7:7", "[2001:db8::7]:7"] {
            let mut daemon = serve(&["--tcp", &format!("echo={address}"), "--bind-retry", "60"]);
            daemon.wait_for(&os_error(Errno::EADDRNOTAVAIL));
            add_address(address.parse().unwrap());
            daemon.wait_for("Server started on ");
            Client::greeted(address.parse().unwrap());
        }
    });
}

/// `--freebind`: the server starts without the addresses, and serves each as soon as it is there.
#[test]
fn an_address_that_comes_late_is_bound_before() {
    guard(|| {
        own_network();
        let (v4, v6) = ("192.0.2.8:7", "[2001:db8::8]:7");
        let sockets = ["--tcp", &format!("echo={v4},echo={v6}"), "--udp", &format!("time={v4},time={v6}")];
        let mut daemon = serve(&[&sockets[..], &["--freebind"]].concat());
        for _ in 0..4 {
            daemon.wait_for("Server started on ");
        }
        for address in [v4, v6] {
            add_address(address.parse().unwrap());
            Client::greeted(address.parse().unwrap());
            let asking = UdpSocket::bind(if address == v4 { "192.0.2.8:0" } else { "[2001:db8::8]:0" }).unwrap();
            asking.set_read_timeout(Some(crate::support::HANG / 2)).unwrap();
            asking.send_to(br#"{"type": "time"}"#, address).unwrap();
            assert!(asking.recv(&mut [0; 128]).unwrap() > 0);
        }
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// An address that is none is an error of the library's that names the value and what would be right.
#[test]
fn an_address_that_is_none_is_named() {
    for text in ["foo", "127.0.0.1", "[::1]", "127.0.0.1:99999"] {
        let both = [Builder::new().listen(text).err(), Builder::new().bind(text).err()];
        for error in both.map(|error| error.unwrap().to_string()) {
            assert!(
                error.starts_with(&format!("{text:?}: ")) && error.contains("127.0.0.1:9999 or [::1]:9999"),
                "{error}"
            );
        }
    }
}
