//! write(2) that fails: the log, and the self-pipe.

use std::fs::{self, File};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::tracer::{Tracer, need_tracer, scratch};
use crate::support::{Client, Daemon, command, guard, os_error, wait_until};
use crate::vitals::Patient;

/// Connects until the log in that file says that lines were lost, which it does once it can be written to again.
fn expect_confession(patient: &Patient, log: &Path) {
    wait_until("the log owns up to lost lines", || {
        drop(Client::greeted(patient.address()));
        fs::read_to_string(log).unwrap().contains("log lines were lost here")
    });
}

/// The disk under the log file is full, or broken: the console says so once, every client is served, and afterwards
/// the file says how many lines are missing.
#[test]
fn a_log_file_that_cannot_be_written_stops_no_service() {
    guard(|| {
        need_tracer();
        let log = scratch("log");
        let mut patient = Patient::start(2, &["--log-file", log.to_str().unwrap()]);
        for error in [Errno::ENOSPC, Errno::EIO] {
            let _ = fs::write(&log, "");
            let mut tracer = Tracer::inject(patient.pid(), "write", &format!("error={error:?}"), Some(&log));
            drop(Client::greeted(patient.address()));
            let line = patient.daemon.wait_for("Log lines wait or are lost: cannot write to ");
            assert!(line.contains(&os_error(error)), "{line}");
            for _ in 0..300 {
                drop(Client::greeted(patient.address()));
            }
            // One try a second, not one for each line.
            assert!(tracer.hits() < 100, "{}", tracer.hits());
            drop(tracer);
            expect_confession(&patient, &log);
        }
        patient.expect_recovered("log file");
        patient.expect_good_end();
        fs::remove_file(&log).unwrap();
    });
}

/// The same for standard error.
#[test]
fn a_console_that_cannot_be_written_stops_no_service() {
    guard(|| {
        need_tracer();
        let log = scratch("stderr");
        let started = |args: &[&str]| {
            let stderr = File::options().create(true).append(true).open(&log).unwrap();
            let mut program = command();
            program.args(["serve", "--tcp", "echo=127.0.0.1:0"]).args(args).stderr(stderr);
            Daemon::silent(&mut program, log.to_str().unwrap())
        };
        let patient = Patient::admit(2, &[], started);
        for error in ["ENOSPC", "EIO", "EPIPE"] {
            let _ = fs::write(&log, "");
            let mut tracer = Tracer::inject(patient.pid(), "write", &format!("error={error}"), Some(&log));
            for _ in 0..300 {
                drop(Client::greeted(patient.address()));
            }
            assert!((1..100).contains(&tracer.hits()), "{error}: {}", tracer.hits());
            drop(tracer);
            expect_confession(&patient, &log);
        }
        patient.expect_recovered("standard error");
        patient.expect_good_end();
        fs::remove_file(&log).unwrap();
    });
}

/// The self-pipe does not take the signal: it is acted on all the same.
#[test]
fn a_signal_that_the_pipe_does_not_take_is_not_lost() {
    guard(|| {
        need_tracer();
        let mut patient = Patient::start(2, &[]);
        let mut client = Client::greeted(patient.address());
        // The server rests, so the first thing that the accept loop writes is the signal.
        let mut tracer = Tracer::inject(patient.pid(), "write", "error=EAGAIN:when=1..2", None);
        patient.daemon.signal(Signal::SIGTERM);
        assert_eq!(client.rest(), b"SHUTDOWN");
        assert_eq!(tracer.hits(), 2);
        drop((client, tracer));
        patient.daemon.wait_ok();
    });
}
