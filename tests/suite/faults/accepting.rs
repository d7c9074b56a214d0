//! accept4(2) and poll(2) that fail: the accept loop.

use std::time::Duration;

use super::tracer::{Tracer, need_tracer};
use crate::support::{Client, guard, os_error};
use crate::vitals::{Patient, spent};
use nix::errno::Errno;

/// What a fault may cost of the processor while it lasts, strace's stops included.
const IDLE: Duration = Duration::from_millis(200);

/// Whatever accept4 says for as long as it does, those who are in are served, who waits is not lost, the log says
/// why, and nothing spins.
#[test]
fn an_accept_that_keeps_failing_is_waited_out() {
    guard(|| {
        need_tracer();
        let mut patient = Patient::start(2, &[]);
        let mut first = Client::greeted(patient.address());
        use Errno::{ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
        for error in [EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM, ECONNABORTED] {
            let mut tracer = Tracer::inject(patient.pid(), "accept4", &format!("error={error:?}"), None);
            let before = spent(patient.pid());
            let mut waiting = patient.daemon.client();
            waiting.send("hello world");
            patient.daemon.wait_for(&os_error(error));
            patient.daemon.expect_last("Cannot accept on ");
            first.echo(b"still served");
            let (used, hits) = (spent(patient.pid()) - before, tracer.hits());
            assert!(used < IDLE && (1..200).contains(&hits), "{error:?}: {hits} calls took {used:?}");
            drop(tracer);
            waiting.expect("hello world");
        }
        drop(first);
        patient.expect_recovered("accept4");
        patient.expect_good_end();
    });
}

/// A few failures of the kind that says something about one client only cost no other client anything: there is no
/// pause after them.
#[test]
fn a_client_lost_in_accept_does_not_delay_the_next() {
    guard(|| {
        need_tracer();
        let patient = Patient::start(2, &[]);
        for error in ["ECONNABORTED", "EPROTO", "EPERM", "EACCES", "EIO", "ENETDOWN", "EHOSTUNREACH", "ETIMEDOUT"] {
            let before = patient.figures().of("accept_retried");
            let mut tracer = Tracer::inject(patient.pid(), "accept4", &format!("error={error}:when=1..3"), None);
            drop(Client::greeted(patient.address()));
            assert_eq!(tracer.hits(), 3, "{error}");
            drop(tracer);
            // The control socket was not asked meanwhile: all three were the listener's.
            assert_eq!(patient.figures().of("accept_retried") - before, 3, "{error}");
        }
        // Retried so deep that this test cannot see it.
        let tracer = Tracer::inject(patient.pid(), "accept4", "error=EINTR:when=1..50", None);
        drop(Client::greeted(patient.address()));
        drop(tracer);
        assert_eq!(patient.figures().of("accept_exhausted"), 0);
        patient.expect_recovered("accept4");
        patient.expect_good_end();
    });
}

/// A listener that is broken for good ends the server: the clients get the notice, and the exit code is 1.
#[test]
fn a_broken_listener_ends_the_server_with_notice() {
    guard(|| {
        need_tracer();
        let mut patient = Patient::start(2, &[]);
        let mut first = Client::greeted(patient.address());
        // musl's accept4 calls accept then.
        let tracer = Tracer::inject(patient.pid(), "accept4,?accept", "error=EINVAL:when=1..2", None);
        let _second = patient.daemon.client();
        assert_eq!(first.rest(), b"SHUTDOWN");
        drop((first, tracer));
        let status = patient.daemon.wait();
        assert_eq!(status.code(), Some(1), "{:#?}", patient.daemon.log);
        patient.daemon.expect_last("any more: Invalid argument");
    });
}

/// poll(2) is interrupted, or has no memory, again and again: every client is served all the same, and nothing spins.
#[test]
fn a_poll_that_fails_stops_nothing() {
    guard(|| {
        need_tracer();
        let patient = Patient::start(2, &[]);
        let mut first = Client::greeted(patient.address());
        for fault in ["error=EINTR:when=1..50", "error=ENOMEM"] {
            let mut tracer = Tracer::inject(patient.pid(), "?poll,?ppoll", fault, None);
            let before = spent(patient.pid());
            for _ in 0..3 {
                drop(Client::greeted(patient.address()));
            }
            first.echo(b"still served");
            assert!(patient.figures().of("open") >= 1);
            let used = spent(patient.pid()) - before;
            assert!(used < IDLE && tracer.hits() < 200, "{fault}: {} calls took {used:?}", tracer.hits());
        }
        drop(first);
        patient.expect_recovered("poll");
        patient.expect_good_end();
    });
}
