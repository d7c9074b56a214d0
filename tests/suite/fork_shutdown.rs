//! The end of a forking server: each client gets one notice, and no child outlives its parent.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::time::Instant;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::fork::{forking, newest, pids, process, stat};
use crate::shutdown::expect_notices;
use crate::support::{Client, Daemon, command, expect_took, guard, ms, wait_until};

const STOPPING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];

/// Each of the four signals: a client that was echoed and a silent one get the notice alone, then the end of
/// stream; what they send then is discarded; when they leave, the server exits at once with status 0.
#[test]
fn every_stopping_signal_gives_the_notice_alone() {
    guard(|| {
        for signal in STOPPING {
            let mut daemon = forking(&["--grace", "30"]);
            let mut client = Client::greeted(daemon.address());
            let mut silent = daemon.client();
            daemon.wait_for(&format!("Starting connection from {}", silent.0.local_addr().unwrap()));
            let start = Instant::now();
            daemon.signal(signal);
            for client in [&mut client, &mut silent] {
                assert_eq!(client.recv(), b"SHUTDOWN");
                client.expect_end();
                client.send("too late");
            }
            daemon.wait_for(&format!("{signal} received, closing server in 30 seconds..."));
            drop((client, silent));
            daemon.wait_ok();
            assert!(start.elapsed() < ms(15_000), "{:?} of a grace of 30 s", start.elapsed());
            assert!(daemon.log.iter().any(|line| line.contains("Server is shutting down...")));
            daemon.expect_last("2 notified, 2 left, 0 closed, 0 workers abandoned");
        }
    });
}

/// Ctrl-C reaches the children too, and must count for one: the notice comes once, and the grace goes on.
#[test]
fn a_signal_to_the_whole_group_is_one_signal() {
    guard(|| {
        for signal in STOPPING {
            let args = ["serve", "--fork", "--grace", "30", "--tcp", "echo=127.0.0.1:0"];
            let mut daemon = Daemon::spawn(command().args(args).process_group(0));
            daemon.started();
            let mut clients: Vec<Client> = (0..4).map(|_| Client::greeted(daemon.address())).collect();
            killpg(Pid::from_raw(daemon.pid() as i32), signal).unwrap();
            for client in &mut clients {
                assert_eq!(client.recv(), b"SHUTDOWN");
                client.expect_end();
            }
            daemon.wait_for("closing server in 30 seconds...");
            drop(clients);
            daemon.wait_ok();
            daemon.expect_last("4 notified, 4 left, 0 closed");
        }
    });
}

/// A stopping signal or SIGUSR1 to a child alone does nothing: what it asks for is the parent's to order.
#[test]
fn a_child_ignores_the_signals_of_its_parent() {
    guard(|| {
        let mut daemon = forking(&[]);
        let mut client = Client::greeted(daemon.address());
        let child = newest(&daemon, &HashSet::new());
        for signal in STOPPING.iter().chain([&Signal::SIGUSR1]) {
            kill(child, *signal).unwrap();
            client.echo(b"still here");
        }
        assert_eq!(stat(&mut daemon, "open"), 1);
        assert!(daemon.log.iter().all(|line| !line.contains("received")), "{:?}", daemon.log);
    });
}

/// A child that does not even run, for it is stopped, is killed when the grace ends; its client, told nothing,
/// is told apart from one that was told and stayed.
#[test]
fn a_stuck_child_is_killed_when_the_grace_ends() {
    let once = || {
        let mut daemon = forking(&["--grace", "0.5"]);
        let mut stays = Client::greeted(daemon.address());
        let before = pids(&daemon);
        let mut stuck = Client::greeted(daemon.address());
        kill(newest(&daemon, &before), Signal::SIGSTOP).unwrap();
        let children = pids(&daemon);
        let start = Instant::now();
        daemon.signal(Signal::SIGTERM);
        stays.expect("SHUTDOWN");
        daemon.wait_ok();
        let took = start.elapsed();
        stuck.expect_gone();
        daemon.expect_last("1 notified, 0 left, 2 closed, 0 workers abandoned");
        assert!(children.iter().all(|pid| process(pid.as_raw()).is_none()), "reaped before the exit");
        took
    };
    guard(move || expect_took(ms(500)..ms(1_400), once));
}

/// The second signal ends the grace time; a third one ends the server at once, and leaves no child either.
#[test]
fn further_signals_end_the_grace() {
    guard(|| {
        for signals in [2, 3] {
            let mut daemon = forking(&["--grace", "3000"]);
            let mut client = Client::greeted(daemon.address());
            daemon.signal(Signal::SIGTERM);
            client.expect("SHUTDOWN");
            let children = pids(&daemon);
            for signal in &[Signal::SIGINT, Signal::SIGHUP][..signals - 1] {
                daemon.signal(*signal);
            }
            daemon.wait_ok();
            daemon.expect_last("SIGTERM: 1 notified, 0 left, 1 closed");
            let gone = |pid: &Pid| process(pid.as_raw()).is_none_or(|process| process.state == 'Z');
            wait_until("no child is left", || children.iter().all(gone));
        }
    });
}

/// A client that connects during the grace gets the notice and is closed, and so does one beyond the limit.
#[test]
fn a_late_client_gets_the_notice() {
    guard(|| {
        let mut daemon = forking(&["--max-children", "2", "--grace", "30"]);
        let mut first = Client::greeted(daemon.address());
        daemon.signal(Signal::SIGTERM);
        first.expect("SHUTDOWN");
        let mut late = [daemon.client(), daemon.client()];
        for client in &mut late {
            assert_eq!(client.rest(), b"SHUTDOWN");
        }
        drop((first, late));
        daemon.wait_ok();
        daemon.expect_last("2 notified, 2 left, 0 closed");
    });
}

/// SIGKILL of the parent, while its children serve or drain: they are gone, and the address is free.
#[test]
fn no_child_outlives_a_killed_parent() {
    guard(|| {
        for draining in [false, true] {
            let mut daemon = forking(&["--grace", "3000"]);
            let address = daemon.address();
            let mut clients: Vec<Client> = (0..8).map(|_| Client::greeted(address)).collect();
            if draining {
                daemon.signal(Signal::SIGTERM);
                clients.iter_mut().for_each(|client| client.expect("SHUTDOWN"));
            }
            let children = pids(&daemon);
            assert_eq!(children.len(), 8);
            daemon.signal(Signal::SIGKILL);
            daemon.wait();
            clients.iter_mut().for_each(Client::expect_gone);
            // The process that adopts them may take its time to reap; a zombie holds nothing.
            let gone = |pid: &Pid| process(pid.as_raw()).is_none_or(|process| process.state == 'Z');
            wait_until("no child is left", || children.iter().all(gone));
            let mut next = Daemon::serve(&["--fork", "--tcp", &format!("echo={address}")]);
            Client::greeted(address);
            next.signal(Signal::SIGTERM);
            next.wait_ok();
        }
    });
}

/// Without a grace time, and when a second signal comes at once, every client reads the notice by itself and
/// then the end of stream.
#[test]
fn every_client_gets_the_notice_however_short_the_shutdown_is() {
    guard(|| {
        for (grace, signals) in [("0", &[Signal::SIGTERM][..]), ("3000", &[Signal::SIGTERM, Signal::SIGINT])] {
            for _ in 0..5 {
                expect_notices(&mut forking(&["--grace", grace]), signals);
            }
        }
    });
}
