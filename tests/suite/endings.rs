//! What the log says of a connection's beginning and end, and of clients that get none.

use nix::libc::linger;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

use crate::support::{Client, Daemon, guard};

/// Expects the two lines of a connection, the second with its cause.
#[track_caller]
fn expect_lines(daemon: &mut Daemon, client: &Client, service: &str, cause: &str) {
    let peer = client.0.local_addr().unwrap();
    let line = daemon.wait_for(&format!("Closing connection from {peer}"));
    assert!(line.ends_with(&format!("Closing connection from {peer} ({service}){cause}")), "{line}");
    let begin = format!("Starting connection from {peer} ({service})");
    assert!(daemon.log.iter().any(|line| line.ends_with(&begin)), "{begin}: {:#?}", daemon.log);
}

/// A connection's lines name its service, and the last one why it was closed, unless it ended as it should.
#[test]
fn the_closing_line_says_why() {
    guard(|| {
        let timeouts = ["--idle-timeout", "1500ms", "--request-timeout", "200ms", "--buffer", "64"];
        let mut daemon = Daemon::serve(&[&["--tcp", "upper-lines=127.0.0.1:0"], &timeouts[..]].concat());
        let [mut silent, mut half, mut long, mut leaves] = std::array::from_fn(|_| daemon.client());
        leaves.finish();
        leaves.expect_end();
        expect_lines(&mut daemon, &leaves, "upper-lines", "");
        long.send([b'x'; 64]);
        long.finish();
        long.expect("ERROR: line too long\n");
        expect_lines(&mut daemon, &long, "upper-lines", ": line too long");
        half.send("half");
        half.expect_gone();
        expect_lines(&mut daemon, &half, "upper-lines", ": request timeout");
        silent.expect_gone();
        expect_lines(&mut daemon, &silent, "upper-lines", ": idle timeout");
        let mut last = daemon.client();
        last.send("last\n");
        last.expect("LAST\n");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(last.rest(), b"SHUTDOWN\n");
        last.finish();
        expect_lines(&mut daemon, &last, "upper-lines", "");

        let mut daemon = Daemon::echo(&["--write-timeout", "300ms", "--connections", "1", "--when-full", "shed"]);
        let mut stuck = daemon.client();
        stuck.stuff();
        expect_lines(&mut daemon, &stuck, "echo", ": write timeout");
        let resets = Client::greeted(daemon.address());
        setsockopt(&resets.0, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        let peer = resets.0.local_addr().unwrap();
        drop(resets);
        let line = daemon.wait_for(&format!("Closing connection from {peer}"));
        assert!(line.ends_with(" (echo): reset"), "{line}");
        let mut idle = Client::greeted(daemon.address());
        let mut last = Client::greeted(daemon.address());
        assert_eq!(idle.rest(), b"SHUTDOWN");
        expect_lines(&mut daemon, &idle, "echo", ": shed");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(last.rest(), b"SHUTDOWN");
        daemon.signal(Signal::SIGTERM);
        expect_lines(&mut daemon, &last, "echo", ": end of the grace time");
        daemon.wait_ok();
    });
}

/// Clients that are refused get a line a second, and the lines account for all of them.
#[test]
fn refusals_are_logged_a_line_a_second() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--connections", "1", "--when-full", "reject"]);
        let _first = Client::greeted(daemon.address());
        let (mut clients, mut lines, mut left_out) = (0, 0, 0);
        while left_out == 0 {
            let mut client = daemon.client();
            let refused = format!("Client {} refused: the server is full (", client.0.local_addr().unwrap());
            assert_eq!(client.rest(), b"BUSY\n");
            clients += 1;
            let seen = daemon.log.len();
            daemon.signal(Signal::SIGUSR1);
            daemon.wait_for("accepted=1 ");
            if let Some(line) = daemon.log[seen..].iter().find(|line| line.contains("refused: ")) {
                let (_, count) = line.split_once(&refused).unwrap();
                lines += 1;
                left_out = count.strip_suffix(" refusals before this one not logged)").unwrap().parse().unwrap();
            }
        }
        assert_eq!(lines + left_out, clients);
        assert!(lines >= 2 && left_out > 1, "{lines} lines, {left_out} left out");
        assert!(daemon.log.iter().all(|line| !line.contains("refused: ") || line.contains("WARN")));
    });
}
