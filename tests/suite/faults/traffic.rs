//! recv, send, epoll_wait and epoll_ctl that fail: the workers.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};

use super::tracer::{Tracer, need_tracer};
use crate::support::{Client, HANG, guard, wait_until};
use crate::vitals::{Patient, spent};

/// What becomes of the client whose call is hit.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It notices nothing.
    Served,
    /// It has its answer with that to its next byte: the kernel said that there is nothing.
    ServedLater,
    /// The kernel has taken the first three bytes.
    Rest,
    /// It is new, and closed; the counter and the log say why.
    Refused(&'static str, &'static str),
    /// It is closed; the counter and the log say why.
    Closed(&'static str, &'static str),
}
use Fate::{Closed, Refused, Rest, Served, ServedLater};

const FAULTS: &[(&str, &str, Fate)] = &[
    ("recvfrom", "error=EINTR:when=1..5", Served),
    ("recvfrom", "error=EAGAIN:when=1", ServedLater),
    ("recvfrom", "error=ECONNRESET:when=1", Closed("resets", "reset connection")),
    ("recvfrom", "error=ETIMEDOUT:when=1", Closed("resets", "reset connection")),
    ("recvfrom", "error=ENOBUFS:when=1", Closed("errors", "(os error 105)")),
    ("recvfrom", "error=ENOMEM:when=1", Closed("errors", "(os error 12)")),
    ("sendto", "error=EINTR:when=1..5", Served),
    ("sendto", "error=EAGAIN:when=1", Served),
    ("sendto", "retval=3:when=1", Rest),
    ("sendto", "error=ECONNRESET:when=1", Closed("resets", "reset connection")),
    ("sendto", "error=EPIPE:when=1", Closed("pipes", "pipe broken")),
    ("sendto", "error=ENOBUFS:when=1", Closed("errors", "(os error 105)")),
    ("?epoll_wait,?epoll_pwait", "error=EINTR:when=1..50", Served),
    ("epoll_ctl", "error=ENOSPC:when=1", Refused("errors", "(os error 28)")),
    ("epoll_ctl", "error=ENOMEM:when=1", Refused("errors", "(os error 12)")),
];

/// Each fault costs at most the connection that it hits, which is counted under its cause and told of; the other
/// client is served by the same worker right after.
#[test]
fn a_call_that_fails_costs_its_connection_at_most() {
    guard(|| {
        need_tracer();
        let mut patient = Patient::start(1, &[]);
        for (call, fault, fate) in FAULTS {
            let mut other = Client::greeted(patient.address());
            let is_new = matches!(fate, Refused(..));
            let known = (!is_new).then(|| Client::greeted(patient.address()));
            let before = patient.figures();
            let mut tracer = Tracer::inject(patient.pid(), call, fault, None);
            // A new client is yet to be registered with the poller.
            let mut hit = known.unwrap_or_else(|| patient.daemon.client());
            hit.send("hello world");
            wait_until("the fault has hit", || tracer.hits() > 0);
            match fate {
                Served => hit.expect("hello world"),
                ServedLater => {
                    hit.send("!");
                    hit.expect("hello world!");
                }
                Rest => hit.expect("lo world"),
                Refused(_, text) | Closed(_, text) => {
                    hit.expect_gone();
                    patient.daemon.wait_for(text);
                }
            }
            drop(tracer);
            other.echo(b"served by the same worker");
            if let Closed(counter, _) | Refused(counter, _) = fate {
                assert_eq!(patient.figures().of(counter) - before.of(counter), 1, "{call} {fault}");
            } else {
                hit.echo(b"and again");
            }
            drop((hit, other));
            patient.expect_recovered(&format!("{call} {fault}"));
        }
        patient.expect_good_end();
    });
}

/// A call that fails for as long as one looks is not tried for as long: the client waits, and the processor rests.
#[test]
fn a_call_that_keeps_failing_is_not_spun_on() {
    guard(|| {
        need_tracer();
        let patient = Patient::start(2, &["--udp", "time=127.0.0.1:0"]);
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (call, error) in
            [("recvfrom", "EAGAIN"), ("sendto", "EAGAIN"), ("recvmsg", "ENOMEM"), ("epoll_ctl", "ENOMEM")]
        {
            let mut known = Client::greeted(patient.address());
            let mut tracer = Tracer::inject(patient.pid(), call, &format!("error={error}"), None);
            let before = spent(patient.pid());
            known.send("hello world");
            datagrams.send_to(b"time", patient.daemon.addresses[1]).unwrap();
            let mut fresh = patient.daemon.client();
            fresh.send("hello world");
            wait_until("the fault has hit", || tracer.hits() > 0);
            std::thread::park_timeout(Duration::from_millis(300));
            let (used, hits) = (spent(patient.pid()) - before, tracer.hits());
            assert!(used < Duration::from_millis(200) && hits < 300, "{call}: {hits} calls took {used:?}");
            drop(tracer);
            drop((known, fresh));
            patient.expect_recovered(call);
        }
        patient.expect_good_end();
    });
}

/// Datagrams: an error in place of one is counted, and the next one is answered; so is a reply that is not taken.
#[test]
fn a_datagram_socket_survives_every_error() {
    guard(|| {
        need_tracer();
        let patient = Patient::start(1, &["--udp", "time=127.0.0.1:0"]);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(patient.daemon.addresses[1]).unwrap();
        client.set_read_timeout(Some(HANG / 2)).unwrap();
        let ask = || client.send(b"time").unwrap();
        let answered = || assert!(client.recv(&mut [0; 512]).unwrap() > 0);
        ask();
        answered();
        for error in ["EINTR", "ECONNREFUSED", "ENOMEM", "ENOBUFS"] {
            let before = patient.figures().of("receive_errors");
            let mut tracer = Tracer::inject(patient.pid(), "recvmsg", &format!("error={error}:when=1..3"), None);
            ask();
            answered();
            assert_eq!(tracer.hits(), 3, "{error}");
            drop(tracer);
            assert_eq!(patient.figures().of("receive_errors") - before, 3, "{error}");
        }
        for error in ["EAGAIN", "EINTR", "ENOBUFS", "EPERM", "ECONNREFUSED"] {
            let before = patient.figures().of("replies_dropped");
            let tracer = Tracer::inject(patient.pid(), "sendto", &format!("error={error}:when=1"), None);
            ask();
            ask();
            answered();
            drop(tracer);
            assert_eq!(patient.figures().of("replies_dropped") - before, 1, "{error}");
        }
        patient.expect_recovered("datagrams");
        patient.expect_good_end();
    });
}

/// Urgent data makes recv(2) stop before it: a short count that does not mean that nothing more is there. What lies
/// behind it is served without the client having to say more.
#[test]
fn what_follows_urgent_data_is_served() {
    guard(|| {
        // At the end of the idle time the server looks again by itself.
        let patient = Patient::start(1, &["--idle-timeout", "600"]);
        let mut client = Client::greeted(patient.address());
        // All of it has arrived before the first recv.
        patient.daemon.signal(Signal::SIGSTOP);
        wait_until("every thread stands still", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", patient.pid())).unwrap();
            let mut stat = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
            stat.all(|stat| stat.rsplit(')').next().unwrap().trim_start().starts_with('T'))
        });
        client.send("before");
        send(client.0.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        client.send("behind");
        patient.daemon.signal(Signal::SIGCONT);
        // The urgent byte is no part of the stream (tcp(7)).
        client.expect("beforebehind");
        client.echo(b"and on");
        drop(client);
        patient.expect_good_end();
    });
}

/// epoll_wait(2) fails, and stays failing, as no manual says that it does: the workers do not spin, and serve again as
/// soon as it works.
#[test]
fn an_epoll_wait_that_keeps_failing_does_not_spin() {
    guard(|| {
        need_tracer();
        let patient = Patient::start(2, &[]);
        let mut client = patient.daemon.client();
        let mut tracer = Tracer::inject(patient.pid(), "?epoll_wait,?epoll_pwait", "error=EBADF", None);
        client.send(b"hello world");
        let start = Instant::now();
        wait_until("it has failed for a second", || tracer.hits() > 3 && start.elapsed() > Duration::from_secs(1));
        // One try in 50 ms: twice what that makes, for a machine that is slow to stop the time.
        let (tries, most) = (tracer.hits() as u128, start.elapsed().as_millis() / 25);
        assert!(tries <= most, "{tries} tries in {most} times 25 ms");
        drop(tracer);
        client.expect(b"hello world");
        drop(client);
        patient.expect_recovered("epoll_wait");
        patient.expect_good_end();
    });
}
