//! A log file that several processes write to, and rotate.

use std::fs::{self, File};
use std::thread;

use lastorders::Group;
use nix::fcntl::{Flock, FlockArg};

use crate::faults::tracer::{Tracer, need_tracer};
use crate::logging::{Folder, read, stop, texts, visits};
use crate::support::{Daemon, HANG, group, guard, guard_within, wait_until};

/// Two servers that share a small log file.
struct Sharing {
    _folder: Folder,
    path: String,
    servers: [Daemon; 2],
}

impl Sharing {
    fn new(name: &str, group: &str) -> Sharing {
        let folder = Folder::new(name);
        let path = folder.file("log");
        let start = |group: &str| {
            let args = ["--multicast", group, "--interface", "lo", "--log-file", &path, "--log-size", "16K"];
            Daemon::serve(&args)
        };
        let first = start(group);
        let second = start(&first.address().to_string());
        Sharing { _folder: folder, path, servers: [first, second] }
    }

    /// Both log each message at the same moment, and an even number of lines fits, so that both find the file full:
    /// whichever of them rotates it, the last messages are all there, twice.
    #[track_caller]
    fn expect_every_line(&self, rounds: u32) {
        let (old, padding) = (format!("{}.1", self.path), "x".repeat(1_050));
        let group = Group::new(self.servers[0].address(), "lo".parse().ok()).unwrap();
        let kept = |round: u32| (read(&old) + &read(&self.path)).matches(&format!("Received: {round} ")).count();
        for round in 0..rounds {
            group.send(format!("{round} {padding}").as_bytes(), 0).unwrap();
            // A look while one of the servers renames the file may miss what is in it.
            wait_until("both have logged it", || kept(round) == 2);
            for before in round.saturating_sub(3)..round {
                assert_eq!(kept(before), 2, "message {before} after {round}");
            }
        }
    }
}

/// Two servers come to the end of their log file together, over and over, and lose no line.
#[test]
fn two_servers_that_rotate_one_file_lose_no_line() {
    // Each message has a limit of its own; all of them take a minute where others use the processors.
    guard_within(5 * HANG, || Sharing::new("shared", &group("239.1.1.5")).expect_every_line(400));
}

/// One of them gets the lock when the other one has rotated the file already, or has renamed it and not made the new one
/// yet. It renames nothing then.
#[test]
fn a_server_that_comes_too_late_to_rotate_loses_no_line() {
    guard(|| {
        need_tracer();
        let sharing = Sharing::new("late", &group("239.1.1.6"));
        let [first, second] = sharing.servers.each_ref().map(Daemon::pid);
        // The first one opens the full file after 0.1 s, and the new one 0.1 s after it has renamed that.
        let _slow = Tracer::inject(first, "openat", "delay_enter=100000", Some(sharing.path.as_ref()));
        for delay in ["delay_enter=300000", "delay_enter=150000"] {
            let mut late = Tracer::inject(second, "flock", delay, None);
            sharing.expect_every_line(30);
            assert!(late.hits() > 0);
        }
    });
}

/// Another process has locked the file, and keeps the lock: no line waits for it or is lost, and the file grows to twice
/// its cap before it is rotated all the same. The lock is on the old file then, and the cap holds again.
#[test]
fn a_lock_that_stays_delays_a_rotation_and_no_line() {
    guard(|| {
        let folder = Folder::new("kept-lock");
        let path = folder.file("log");
        let mut daemon = Daemon::echo(&["--log-file", &path, "--log-size", "16K"]);
        let _held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
        let size = |name: &str| fs::metadata(name).map_or(0, |file| file.len());
        let old = format!("{path}.1");
        wait_until("it is rotated", || {
            visits(daemon.address(), 1);
            size(&old) > 0
        });
        assert!((32 * 1024..33 * 1024).contains(&size(&old)), "{}", size(&old));
        wait_until("it is rotated again", || {
            visits(daemon.address(), 1);
            size(&old) < 32 * 1024
        });
        assert!((15 * 1024..=16 * 1024).contains(&size(&old)), "{}", size(&old));
        stop(&mut daemon);
        let kept = texts(&(read(&old) + &read(&path)));
        let shown: Vec<_> = daemon.log.iter().map(|line| line.split_once("] ").unwrap().1).collect();
        assert_eq!(kept, shown[shown.len() - kept.len()..]);
    });
}

/// Four servers write to one small file as fast as they can, so that each often looks at the path just when another one has
/// moved the file and made no new one yet: to none of them has the file failed.
#[test]
fn servers_that_rotate_one_file_quickly_never_find_it_broken() {
    guard(|| {
        let folder = Folder::new("quick");
        let path = folder.file("log");
        let mut servers: [Daemon; 4] =
            std::array::from_fn(|_| Daemon::echo(&["--log-file", &path, "--log-size", "16K", "--log-level", "debug"]));
        thread::scope(|scope| {
            for server in &servers {
                let address = server.address();
                scope.spawn(move || visits(address, 2_000));
            }
        });
        for server in &mut servers {
            stop(server);
            let failed: Vec<_> = server.log.iter().filter(|line| line.contains("cannot write to")).collect();
            assert_eq!(failed, [""; 0]);
        }
    });
}
