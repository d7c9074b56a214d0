//! `--pid-file`: one server a file, which is written and removed by its own server alone.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::Signal;

use crate::background::{Background, said};
use crate::faults::tracer::{need_strace, scratch};
use crate::logging::{Folder, read};
use crate::support::{Client, Daemon, command, guard, wait_until};

/// Echo with that pid file, on its way.
fn start(path: &str) -> Daemon {
    Daemon::spawn(command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--pid-file", path]))
}

/// In the foreground a pid file is kept as well. One that is stale is replaced: of a process that is gone, of one
/// that got the number later, or emptied.
#[test]
fn a_stale_pid_file_is_replaced() {
    guard(|| {
        let folder = Folder::new("stale-pid");
        let path = folder.file("pid");
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        for stale in [format!("{}\n", gone.id()), format!("{}", std::process::id()), String::new(), "\n".into()] {
            fs::write(&path, &stale).unwrap();
            let mut daemon = Daemon::echo(&["--pid-file", &path]);
            assert_eq!(read(&path), format!("{}\n", daemon.pid()), "in place of {stale:?}");
            daemon.signal(Signal::SIGTERM);
            daemon.wait_ok();
            assert_eq!(fs::read_dir(folder.file("")).unwrap().count(), 0);
        }
        // Killed, it leaves one behind: that is no obstacle either.
        let daemon = Daemon::echo(&["--pid-file", &path]);
        drop(daemon);
        assert!(fs::exists(&path).unwrap());
        let mut daemon = Daemon::echo(&["--pid-file", &path]);
        // Replaced by a person: not ours to remove.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
        assert_eq!(read(&path), "1\n");
    });
}

/// The file of a server that runs is left to it, and so is a file that is no pid file.
#[test]
fn what_is_not_a_stale_pid_file_stays() {
    guard(|| {
        let server = Background::new("live-pid");
        let address = server.echo(&[]);
        let pid = server.pid().unwrap();
        let output =
            command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--pid-file", &server.file("pid")]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let reason = format!("/pid: the server with process id {pid} has it; stop that, or choose another path");
        assert!(said(&output).contains(&reason), "{}", said(&output));
        assert_eq!(server.pid(), Some(pid));
        Client::greeted(address);
        server.stop();
        assert!(!fs::exists(server.file("pid")).unwrap());

        let folder = Folder::new("precious");
        for (name, text) in
            [("text", "precious"), ("long", "1                                          "), ("zero", "0")]
        {
            let path = folder.file(name);
            fs::write(&path, text).unwrap();
            let output = command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--pid-file", &path]).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{name}");
            assert!(said(&output).contains("is not a pid file"), "{}", said(&output));
            assert_eq!(read(&path), text);
        }
        std::os::unix::fs::symlink(folder.file("text"), folder.file("link")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.file("pipe")).status().unwrap().success());
        for name in ["link", "pipe", ""] {
            let path = folder.file(name);
            let output = command().args(["serve", "--tcp", "echo=127.0.0.1:0", "--pid-file", &path]).output().unwrap();
            assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
            assert!(said(&output).contains("cannot write the pid file"), "{}", said(&output));
        }
    });
}

/// Two servers start at the same moment with one file, which is missing, stale or empty: one of them serves and has its
/// number there, the other one says why not.
#[test]
fn of_two_starts_with_one_file_one_is_refused() {
    guard(|| {
        let folder = Folder::new("two-starts");
        let path = folder.file("pid");
        for round in 0..30 {
            match round % 3 {
                0 => drop(fs::remove_file(&path)),
                1 => fs::write(&path, format!("{}\n", i32::MAX)).unwrap(),
                _ => fs::write(&path, "").unwrap(),
            }
            let mut daemons = [start(&path), start(&path)];
            let serves = daemons.each_mut().map(|daemon| daemon.wait_for_or_end("Server started on ").is_some());
            let [first, second] = daemons;
            let (server, mut other) = match serves {
                [true, false] => (first, second),
                [false, true] => (second, first),
                both => panic!("round {round}: {both:?}"),
            };
            assert_eq!(read(&path), format!("{}\n", server.pid()), "round {round}");
            assert_eq!(other.wait().code(), Some(1));
            other.expect_last(" has it; stop that, or choose another path");
        }
    });
}

/// The lock decides, not the number: a server in another pid namespace has one that means nothing here.
#[test]
fn a_locked_file_is_refused_whatever_its_number() {
    guard(|| {
        let folder = Folder::new("locked");
        let path = folder.file("pid");
        for (text, whose) in
            [(format!("{}\n", i32::MAX), "the server with process id 2147483647"), (String::new(), "another server")]
        {
            fs::write(&path, &text).unwrap();
            let held = Flock::lock(File::open(&path).unwrap(), FlockArg::LockExclusiveNonblock).unwrap();
            let mut daemon = start(&path);
            assert_eq!(daemon.wait_for_or_end("Server started on "), None, "{text:?}");
            assert_eq!(daemon.wait().code(), Some(1));
            daemon.expect_last(&format!("/pid: {whose} has it; stop that, or choose another path"));
            assert_eq!(read(&path), text);
            drop(held);
        }
    });
}

/// A server ends, and removes its file, while the next one has opened that file and not locked it yet: the next one has
/// its number in the file that stands at the path then.
#[test]
fn a_file_that_is_replaced_before_it_is_locked_is_left() {
    guard(|| {
        need_strace();
        let folder = Folder::new("replaced");
        let (path, trace) = (folder.file("pid"), scratch("trace"));
        fs::write(&path, "").unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=?open,openat,flock", "-e", "inject=flock:delay_enter=500000:when=1"]);
        strace.arg("-o").arg(&trace).arg(command().get_program());
        strace.args(["serve", "--tcp", "echo=127.0.0.1:0", "--pid-file", &path]);
        let mut daemon = Daemon::spawn(strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        wait_until("it has opened the file", || read(&trace).contains(&path));
        fs::remove_file(&path).unwrap();
        daemon.wait_for("Server started on ");
        let pid = read(&path);
        assert!(daemon.log[0].contains(&format!("PID:{}.", pid.trim())), "{pid:?}: {:?}", daemon.log);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
        daemon.wait_ok();
        assert!(!fs::exists(&path).unwrap());
        fs::remove_file(&trace).unwrap();
    });
}

/// A forking server is killed: its children, who share its lock, are no obstacle to the next start.
#[test]
fn the_children_of_a_killed_server_keep_the_file_from_no_one() {
    guard(|| {
        let folder = Folder::new("orphaned");
        let path = folder.file("pid");
        for _ in 0..10 {
            let mut daemon = Daemon::echo(&["--fork", "--pid-file", &path]);
            let clients: Vec<_> = (0..50).map(|_| Client::greeted(daemon.address())).collect();
            daemon.child.kill().unwrap();
            daemon.child.wait().unwrap();
            let mut next = start(&path);
            assert!(next.wait_for_or_end("Server started on ").is_some(), "{:?}", next.log);
            drop((next, clients));
        }
    });
}

/// The pid file, the log file, its old file and the control socket are four files, by whatever names and links they are
/// given: two that would be one are a usage error that names both, and nothing is made.
#[test]
fn options_that_name_one_file_are_refused() {
    guard(|| {
        let background = Background::new("one-file");
        for (control, other) in [
            ("./pid", "--pid-file \"pid\""),
            ("log", "--log-file \"log\""),
            ("log.1", "the old file of --log-file \"log.1\""),
        ] {
            let output = background.start(&["--tcp", "echo=127.0.0.1:0", "--control", control]);
            let both = format!("--control \"{control}\" and {other}");
            let text = format!("lastorders: {both} are one file; choose another path for one of them\n");
            assert_eq!((said(&output), output.status.code()), (text, Some(2)));
            assert_eq!(fs::read_dir(background.file("")).unwrap().count(), 0);
        }
        let folder = Folder::new("links");
        let [first, second, hard, soft, dangling, there] =
            ["first", "second", "hard", "soft", "dangling", "there"].map(|name| folder.file(name));
        fs::write(&first, "").unwrap();
        fs::hard_link(&first, &hard).unwrap();
        symlink("first", &soft).unwrap();
        symlink("second", &dangling).unwrap();
        symlink(folder.file(""), &there).unwrap();
        symlink("loop", folder.file("loop")).unwrap();
        for (log, pid, code) in [
            (&first, &hard, 2),
            (&soft, &first, 2),
            (&dangling, &second, 2),
            (&folder.file("there/second"), &second, 2),
            (&first, &second, 0),
            (&soft, &dangling, 1),
            (&folder.file("loop"), &folder.file("loop"), 1),
            (&folder.file("missing/log"), &folder.file("missing/log"), 1),
        ] {
            let output = command().args(["serve", "--check", "--log-file", log, "--pid-file", pid]).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{log} {pid}: {}", said(&output));
        }
    });
}
