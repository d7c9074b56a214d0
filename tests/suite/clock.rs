//! The wall clock: it stamps lines and answers `time`, and no deadline depends on it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::logging::Folder;
use crate::support::{Client, Daemon, STATIC_PROGRAM, command, guard, skip};

/// Where Debian, its kin and others have the library that shows a program another wall clock.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The wall clock jumps back and forth by years, and beyond 2038, under a waiting client, a client in the middle of a request, and
/// the grace time: each deadline comes when it is due by the clock that never jumps, neither before nor long after.
#[test]
fn a_jump_of_the_wall_clock_changes_no_deadline() {
    guard(|| {
        if cfg!(target_env = "musl") {
            skip(STATIC_PROGRAM);
        }
        let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
        let library = library.unwrap_or_else(|| skip("libfaketime is not installed"));
        let folder = Folder::new("clock");
        let wall = folder.file("wall");
        let jump = |offset: &str| std::fs::write(&wall, offset).unwrap();
        jump("+0");
        let mut program = command();
        program.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &wall);
        // Only the wall clock is another, and each look at it looks into the file.
        program.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        program.args(["serve", "--tcp", "upper-lines=127.0.0.1:0", "--log-file", &folder.file("log")]);
        program.args(["--idle-timeout", "2", "--request-timeout", "2", "--grace", "2"]);
        let mut daemon = Daemon::spawn(&mut program);
        daemon.started();
        for offset in ["+20y", "-9y"] {
            let due = |start: Instant| {
                let took = start.elapsed();
                assert!((2..10).contains(&took.as_secs()), "{offset}: {took:?}");
            };
            let (mut idle, start) = (Client::connect(daemon.address()), Instant::now());
            idle.echo(b"HERE\n");
            jump(offset);
            idle.expect_end();
            due(start);
            jump("+0");
            let (mut slow, start) = (Client::connect(daemon.address()), Instant::now());
            slow.send("no newline");
            jump(offset);
            slow.expect_end();
            due(start);
            jump("+0");
        }
        let (mut client, start) = (Client::connect(daemon.address()), Instant::now());
        client.echo(b"HERE\n");
        daemon.signal(Signal::SIGTERM);
        client.expect(b"SHUTDOWN\n");
        jump("-9y");
        daemon.wait_for(", closing server in 1 second...");
        jump("+20y");
        daemon.wait_ok();
        assert!((2..10).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        // The clock of the stamps did jump.
        let stamps = std::fs::read_to_string(folder.file("log")).unwrap();
        let mut years: Vec<&str> = stamps.lines().filter_map(|line| line.get(..4)).collect();
        years.sort_unstable();
        years.dedup();
        assert!(years.len() >= 3, "{years:?}");
    });
}

/// In the sources too: nothing but the local time looks at the wall clock.
#[test]
fn only_the_local_time_reads_the_wall_clock() {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut readers = vec![];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains("SystemTime") {
                readers.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(readers, ["localtime.rs"]);
}
