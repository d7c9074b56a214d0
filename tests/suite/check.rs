//! `--check`: everything that a start does up to serving, done and undone, beside a running server or without one.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Output;

use lastorders::Group;
use nix::unistd::geteuid;

use crate::logging::{Folder, read};
use crate::support::{self, Client, Daemon, command, guard, wait_until};

fn check(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command().args(["serve", "--check"]).args(args).output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// The budget is printed, and its sizes add up to the total.
#[test]
fn the_budget_adds_up() {
    guard(|| {
        for args in [
            &["--workers", "8", "--buffer", "8192"][..],
            &["--buffer", "65", "--connections", "7"],
            &["--fork", "--max-children", "3", "--buffer", "1001"],
        ] {
            let (code, text) = check(&[&["--tcp", "echo=127.0.0.1:0"], args].concat());
            assert_eq!(code, Some(0), "{text}");
            let sizes = text.lines().filter_map(|line| line.strip_suffix(" KiB")?.split_once(": "));
            let mut sizes: Vec<(&str, u64)> = sizes.map(|(name, size)| (name, size.parse().unwrap())).collect();
            assert_eq!(
                sizes.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
                ["program", "stacks", "buffers", "tables", "worst-case memory"]
            );
            let (_, total) = sizes.pop().unwrap();
            assert_eq!(sizes.iter().map(|(_, size)| size).sum::<u64>(), total, "{text}");
            assert!(text.contains("descriptors: ") && !text.contains("note: "), "{text}");
        }
        let (_, text) = check(&["--tcp", "echo=127.0.0.1:0", "--workers", "8", "--buffer", "8192"]);
        assert!(text.contains("stacks: 1024 KiB") && text.contains("buffers: 2192 KiB"), "{text}");
    });
}

/// What fits leaves no file behind that was not there, and no file that was there is changed: a pid file and a control
/// socket of a server that is gone are still there.
#[test]
fn a_check_leaves_no_trace() {
    guard(|| {
        let folder = Folder::new("trace");
        let [log, pid, control] = ["log", "pid", "control"].map(|name| folder.file(name));
        let args = ["--tcp=echo=127.0.0.1:0", "--log-file", &log, "--pid-file", &pid, "--control", &control];
        let names = || fs::read_dir(folder.file("")).unwrap().count();
        let (code, text) = check(&args);
        assert_eq!((code, names(), text.contains("note: ")), (Some(0), 0, false), "{text}");
        // A link to the log file that is to be made stays a link to none.
        std::os::unix::fs::symlink("elsewhere", &log).unwrap();
        let (code, text) = check(&args);
        assert_eq!((code, names()), (Some(0), 1), "{text}");
        fs::remove_file(&log).unwrap();

        fs::write(&log, "a line\n").unwrap();
        fs::write(&pid, "999999999\n").unwrap();
        drop(UnixListener::bind(&control).unwrap());
        let (code, text) = check(&args);
        assert_eq!((code, names(), text.contains("note: ")), (Some(0), 3, false), "{text}");
        assert_eq!([read(&log), read(&pid)], ["a line\n", "999999999\n"]);
        assert!(UnixStream::connect(&control).is_err());
        if geteuid().is_root() {
            std::os::unix::fs::chown(folder.file(""), Some(65_534), Some(65_534)).unwrap();
            [&log, &pid, &control].iter().for_each(|path| fs::remove_file(path).unwrap());
            let (code, text) = check(&[&args[..], &["--user", "65534:65534"]].concat());
            assert_eq!((code, names()), (Some(0), 0), "{text}");
        }
    });
}

/// Beside a server with the same options, what that server has in use is a note, and it goes on as if nothing were.
#[test]
fn a_running_server_is_not_disturbed() {
    guard(|| {
        let folder = Folder::new("beside");
        let [log, pid, control] = ["log", "pid", "control"].map(|name| folder.file(name));
        let free = [TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(), {
            UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
        }];
        let [tcp, udp] = [format!("echo=127.0.0.1:{}", free[0]), format!("time=127.0.0.1:{}", free[1])];
        let [group, link] = ["239.1.1.7", "[ff02::5007]"].map(support::group);
        let args = [
            &["--tcp", &tcp, "--udp", &udp, "--multicast", &group, "--multicast", &link, "--interface", "lo"][..],
            &["--log-file", &log, "--pid-file", &pid, "--control", &control],
        ]
        .concat();
        let mut daemon = Daemon::serve(&args);
        wait_until("the pid file is written", || read(&pid) == format!("{}\n", daemon.pid()));
        let mut client = Client::greeted(daemon.address());
        let logged = read(&log);
        for _ in 0..3 {
            let (code, text) = check(&args);
            assert_eq!(code, Some(0), "{text}");
            let notes: Vec<&str> = text.lines().filter(|line| line.starts_with("note: ")).collect();
            for part in [&tcp[5..], &udp[5..], pid.as_str(), control.as_str()] {
                assert!(notes.iter().any(|note| note.contains(part)), "{part}: {text}");
            }
        }
        assert_eq!((read(&log), read(&pid)), (logged, format!("{}\n", daemon.pid())));
        client.echo(b"as ever");
        Group::new(group.parse().unwrap(), "lo".parse().ok()).unwrap().send(b"once", 0).unwrap();
        daemon.wait_for("Received: once from ");
        let status = command().args(["control", "--socket", &control, "status"]).output().unwrap();
        assert_eq!(status.status.code(), Some(0));
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        drop(client);
        daemon.wait_ok();
        let times = daemon.log.iter().filter(|line| line.contains("Received: once")).count();
        assert_eq!(times, 1);
        assert!(fs::metadata(&pid).is_err() && fs::metadata(&control).is_err());
    });
}

/// What does not fit is exit code 1 with the reason of a start; an interface that is not there is a note, as a start only
/// warns of it; a user that is not there is a usage error.
#[test]
fn what_does_not_fit_is_an_error() {
    guard(|| {
        let folder = Folder::new("unfit");
        let [file, missing] = ["file", "missing/file"].map(|name| folder.file(name));
        fs::write(&file, "a text").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let [one, every] = [format!("--tcp=echo=127.0.0.1:{port}"), format!("--tcp=upper=0.0.0.0:{port}")];
        for (args, code, parts) in [
            (&["--tcp=echo=192.0.2.1:9999"][..], 1, &["192.0.2.1:9999", "an interface of this machine"][..]),
            (&["--tcp=echo=192.0.2.1:9999", "--bind-retry=60"], 0, &["note: ", "192.0.2.1:9999"]),
            (&["--tcp=echo=192.0.2.1:9999", "--freebind"], 0, &["descriptors"]),
            (&[&one, &every], 1, &["0.0.0.0:", "(upper)", "in use"]),
            (&["--log-file", &missing], 1, &["missing/file", "make its directory first"]),
            (&["--pid-file", &missing], 1, &["missing/file", "make its directory first"]),
            (&["--pid-file", &file], 1, &["not a pid file"]),
            (&["--control", &missing], 1, &["missing/file", "make its directory first"]),
            (&["--control", &file], 1, &["is not a socket"]),
            (&["--multicast=239.1.1.8:5007", "--interface=nosuch"], 0, &["note: ", "nosuch", "lo"]),
            (&["--user=no-such-user"], 2, &["no-such-user"]),
            (&["--workers=0"], 2, &["--workers \"0\""]),
        ] {
            let (status, text) = check(args);
            assert_eq!(status, Some(code), "{args:?}: {text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{args:?}: {text}");
        }
        assert_eq!(read(&file), "a text");
    });
}
