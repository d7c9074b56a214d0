//! Signals in any number and at any moment: nothing is lost, nothing is taken for more than it is, and a program that
//! asks the server to stop does so from its first instruction to its last.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, command, guard, wait_until};

/// Ten thousand signals that ask for log lines while clients are served, and one that stops the server: it is
/// taken for one, clients have their notice and their grace.
#[test]
fn a_storm_of_signals_is_no_reason_to_stop() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--grace", "50"]);
        let mut client = Client::greeted(daemon.address());
        for round in 0..10_000 {
            daemon.signal(if round % 2 == 0 { Signal::SIGUSR1 } else { Signal::SIGUSR2 });
            if round % 1_000 == 0 {
                client.echo(b"in the storm");
            }
        }
        client.echo(b"after the storm");
        daemon.signal(Signal::SIGTERM);
        daemon.wait_for("SIGTERM received, closing server in 50 seconds...");
        client.expect(b"SHUTDOWN");
        // The signals that came before are over, and none of them cut the grace short.
        daemon.wait_for("Server interrupted, notifying all clients...");
        daemon.wait_for("SIGTERM received, closing server in 49 seconds...");
        drop(client);
        daemon.wait_ok();
        daemon.expect_last("SIGTERM: 1 notified, 1 left, 0 closed");
    });
}

/// A thousand signals to stop, of all four kinds, while a client stays: the first three are obeyed, the rest
/// change nothing, and the exit code is that of a server that stopped as asked.
#[test]
fn a_storm_of_signals_to_stop_ends_cleanly() {
    guard(|| stop_in_a_storm(&["--grace", "50"]));
}

/// The same with a process for the client.
#[test]
fn a_forking_server_ends_cleanly_in_a_storm() {
    guard(|| stop_in_a_storm(&["--grace", "50", "--fork"]));
}

fn stop_in_a_storm(args: &[&str]) {
    let mut daemon = Daemon::echo(args);
    let mut client = Client::greeted(daemon.address());
    let stopping = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];
    for round in 0..1_000 {
        // Its process entry stays until it is waited for, so this never meets a stranger.
        daemon.signal(stopping[round % 4]);
    }
    daemon.wait_ok();
    client.expect_gone();
}

/// SIGTERM at random moments from the start of the process to the end of its shutdown: it ends with 0, or, before
/// it can handle signals, by SIGTERM itself; either way in time and with no file of it left behind.
/// LASTORDERS_MOMENTS is how many, LASTORDERS_SEED makes them the same again.
#[test]
fn a_signal_to_stop_ends_the_server_at_every_moment() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let (moments, mut seed) = (number("LASTORDERS_MOMENTS").unwrap_or(40), number("LASTORDERS_SEED").unwrap_or(1));
    println!("{moments} moments, seed {seed}");
    // A guard for each: there may be many.
    for moment in 0..moments {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = seed >> 33;
        guard(move || one_moment(moment, random));
    }
}

fn one_moment(moment: u64, random: u64) {
    let file = |kind: &str| std::env::temp_dir().join(format!("lastorders-moment-{}.{kind}", std::process::id()));
    let (control, pid) = (file("sock"), file("pid"));
    let mut program = command();
    program.args(["serve", "--tcp", "echo=127.0.0.1:0", "--udp", "time=127.0.0.1:0", "--grace", "50"]);
    program.arg("--control").arg(&control).arg("--pid-file").arg(&pid);
    let start = Instant::now();
    let mut daemon = Daemon::spawn(&mut program);
    let mut clients = vec![];
    if moment % 4 == 3 {
        // One that does not leave: only the second signal ends its grace.
        clients.push(Client::connect(daemon.started()));
    }
    // Start-up takes a few milliseconds, and so does a shutdown.
    let delay = |micros: u64| {
        let until = Instant::now() + Duration::from_micros(micros);
        wait_until("the moment", || Instant::now() >= until);
    };
    delay(random % 12_000);
    daemon.signal(Signal::SIGTERM);
    if moment % 2 == 1 {
        delay(random / 12_000 % 2_000);
        // Another one: the same, while it is pending still, would be no second.
        daemon.signal(Signal::SIGINT);
    }
    let status = daemon.wait();
    let ended = (status.code(), status.signal());
    let signalled = [(None, Some(Signal::SIGTERM as i32)), (None, Some(Signal::SIGINT as i32))];
    let started = daemon.log.iter().any(|line| line.contains("Server started"));
    assert!(
        ended == (Some(0), None) || signalled.contains(&ended) && !started,
        "{moment}: {status}: {:#?}",
        daemon.log
    );
    for file in [control, pid] {
        assert!(!file.exists(), "{moment}: {} is left: {:#?}", file.display(), daemon.log);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{moment}: there is no client to wait for");
}
