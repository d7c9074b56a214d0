//! Signals in a program with several servers, one after another or at once.

use std::process::Command;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;

use lastorders::builtin::Echo;
use lastorders::{Builder, Server, Trigger};
use nix::sys::signal::{Signal, raise};

use crate::support::{Client, Running, guard};

/// Runs the rest of a test in a process of its own, of which the signals are. True there.
fn alone(test: &str) -> bool {
    const MARK: &str = "SUITE_SIGNALS_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let mut process = Command::new(std::env::current_exe().unwrap());
    let output = process.args(["--exact", test, "--nocapture"]).env(MARK, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{:?}: {said}", output.status);
    false
}

fn echo() -> Builder {
    Server::builder(Echo).listen("127.0.0.1:0").unwrap()
}

/// Of two servers at once one handles signals. The other one is refused by name, or built without, and a signal stops
/// the first alone.
#[test]
fn one_server_of_a_process_handles_signals() {
    if !alone("signals::one_server_of_a_process_handles_signals") {
        return;
    }
    guard(|| {
        let first = Running::start(echo().handle_signals());
        let second = |builder: Builder| builder.build().map(drop).unwrap_err().to_string();
        for builder in [echo().handle_signals(), echo().on_signal(Signal::SIGWINCH as i32, || {}).unwrap()] {
            let said = second(builder);
            assert!(said.contains("another server of this process handles signals"), "{said}");
        }
        let quiet = Running::start(echo());
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(first.report().trigger, Trigger::Signal(Signal::SIGTERM as i32));
        Client::greeted(quiet.address);
        quiet.stop();
        // A server that never ran, and one that could not be built, are no obstacle either.
        drop(echo().handle_signals().build().unwrap());
        let twice = echo().handle_signals();
        let taken = Running::start(echo());
        assert!(twice.listen(taken.address).unwrap().build().is_err());
        drop(echo().handle_signals().build().unwrap());
        taken.stop();
    });
}

/// A signal that came when no server was there, or that the last one did not read any more, stops the next one neither at
/// once nor later; one that comes while a server is built, or before it runs, does.
#[test]
fn a_signal_of_the_past_does_not_stop_the_next_server() {
    if !alone("signals::a_signal_of_the_past_does_not_stop_the_next_server") {
        return;
    }
    guard(|| {
        let first = Running::start(echo().handle_signals());
        first.stop();
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            // The handler has run when this returns, which kill(2) does not promise.
            raise(signal).unwrap();
        }
        let next = Running::start(echo().handle_signals());
        Client::greeted(next.address);
        raise(Signal::SIGINT).unwrap();
        assert_eq!(next.report().trigger, Trigger::Signal(Signal::SIGINT as i32));

        let built = echo().handle_signals().build().unwrap();
        raise(Signal::SIGTERM).unwrap();
        assert_eq!(Running::run(built).report().trigger, Trigger::Signal(Signal::SIGTERM as i32));
    });
}

/// Servers that handle no signals are built all the time in another thread: to the one that does, the signals are free.
#[test]
fn a_server_without_signals_takes_none_while_it_is_built() {
    if !alone("signals::a_server_without_signals_takes_none_while_it_is_built") {
        return;
    }
    guard(|| {
        // The handlers' pipe is there from now on.
        drop(echo().handle_signals().build().unwrap());
        let (stop, stopped) = mpsc::channel::<()>();
        let others = thread::spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                drop(echo().build().unwrap());
            }
        });
        for _ in 0..2_000 {
            drop(echo().handle_signals().build().unwrap());
        }
        drop(stop);
        others.join().unwrap();
    });
}
