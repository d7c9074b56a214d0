//! The daemon as another user: what it gives up, and what it can still do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::background::{Background, run, runs, said};
use crate::logging::{Folder, read};
use crate::network::own_network;
use crate::support::{Client, Daemon, command, guard, need_root, wait_until};

/// The number of the user `nobody`, or of none.
const USER: u32 = 65_534;

/// Without the right to become another user the server does not go on, and the pid file that it has written is gone.
#[test]
fn a_user_that_cannot_be_changed_to_ends_the_start() {
    guard(|| {
        let folder = Folder::new("unable");
        let program = command();
        let words = [program.get_program()].into_iter().chain(program.get_args());
        let args = ["serve", "--tcp", "echo=127.0.0.1:0", "--user", "65533:65533", "--pid-file", &folder.file("pid")];
        let output = if geteuid().is_root() {
            chown(folder.file(""), Some(USER), Some(USER)).unwrap();
            // Still root by its number, which is what is easily taken for enough.
            Command::new("setpriv").args(["--bounding-set", "-setuid"]).args(words).args(args).output()
        } else {
            command().args(args).output()
        };
        let output = output.unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot run as --user 65533:65533: cannot ") && said.contains("as root"), "{said}");
        assert_eq!(fs::read_dir(folder.file("")).unwrap().count(), 0);
    });
}

/// As root on a port that only root may have: the process is the user's in every respect, in no other group, and
/// opens its log file, answers at its control socket and removes its files with the user's rights.
#[test]
fn the_server_runs_as_the_user() {
    guard(|| {
        // Its port 7 is free.
        own_network();
        let server = Background::new("user");
        chown(server.file(""), Some(USER), Some(USER)).unwrap();
        let args = ["--user", "65534:65533", "--control", "control", "--tcp", "echo=127.0.0.1:7"];
        let daemon = server.command(&args);
        // Root has groups to leave, as a login gives it some.
        let mut member = Command::new("setpriv");
        member.args(["--groups", "4,20", "--"]).arg(daemon.get_program()).args(daemon.get_args());
        member.current_dir(server.file("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = run(&mut member);
        assert_eq!((said(&output), output.status.code()), (String::new(), Some(0)));
        let address = server.address();
        assert_eq!(address.to_string(), "127.0.0.1:7");
        Client::greeted(address);
        let pid = server.pid().unwrap();
        let status = read(format!("/proc/{pid}/status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(field("Uid:"), ["65534"; 4]);
        assert_eq!(field("Gid:"), ["65533"; 4]);
        assert_eq!(field("Groups:"), [""; 0]);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        for (name, mode, user) in [("control", 0o600, USER), ("log", 0o640, USER), ("pid", 0o644, 0)] {
            let file = fs::metadata(server.file(name)).unwrap();
            assert_eq!((file.mode() & 0o777, file.uid()), (mode, user), "{name}");
        }
        fs::rename(server.file("log"), server.file("moved")).unwrap();
        server.signal(Signal::SIGUSR2);
        wait_until("the log goes on", || read(server.file("log")).contains("Log file opened again"));
        assert_eq!(fs::metadata(server.file("log")).unwrap().uid(), USER);
        let status = command().args(["control", "--socket", &server.file("control"), "status"]).output().unwrap();
        assert!(said(&status).contains("accepted 1\n"));
        server.stop();
        assert!(!fs::exists(server.file("pid")).unwrap() && !fs::exists(server.file("control")).unwrap());
    });
}

/// In a directory of root's: the server makes neither a log file nor a control socket there. It logs to a file of its own
/// there, and says in it what cannot be done later; it leaves the pid file empty, which is no obstacle to the next start.
#[test]
fn what_a_user_may_not_do_is_said() {
    guard(|| {
        need_root();
        let server = Background::new("root-owned");
        let user = ["--tcp", "echo=127.0.0.1:0", "--user", "65534:65534"];
        let refused = |args: &[&str], part: &str| {
            let output = server.start(&[&user[..], args].concat());
            assert_eq!(output.status.code(), Some(1), "{part}: {}", said(&output));
            assert!(said(&output).contains(part), "{}", said(&output));
        };
        refused(&[], "/log: Permission denied (os error 13); choose a file that the server's user may write to");
        assert_eq!(fs::read_dir(server.file("")).unwrap().count(), 0);
        fs::write(server.file("log"), "root's\n").unwrap();
        fs::set_permissions(server.file("log"), fs::Permissions::from_mode(0o644)).unwrap();
        refused(&[], "/log: Permission denied");
        assert_eq!(read(server.file("log")), "root's\n");
        for _ in 0..2 {
            fs::write(server.file("log"), "").unwrap();
            chown(server.file("log"), Some(USER), Some(USER)).unwrap();
            refused(&["--control", "control"], "/control: Permission denied");
            fs::write(server.file("log"), "").unwrap();
            let address = server.echo(&["--user", "65534:65534", "--fork"]);
            Client::greeted(address);
            fs::rename(server.file("log"), server.file("moved")).unwrap();
            server.signal(Signal::SIGUSR2);
            let said = || read(server.file("moved"));
            wait_until("it is said", || said().contains("log again: Permission denied"));
            assert!(said().contains("going on with the old one"), "{}", said());
            let pid = server.pid().unwrap();
            server.signal(Signal::SIGTERM);
            wait_until("the server is gone", || !runs(pid));
            assert!(said().contains("The pid file") && said().contains("was emptied"), "{}", said());
            assert_eq!(read(server.file("pid")), "");
        }
    });
}

/// The server's user has a directory, and in it a link to one of root's: nothing is made where the link leads, and no
/// socket there becomes the user's.
#[test]
fn a_link_to_a_directory_of_root_is_followed_with_the_rights_of_the_user() {
    guard(|| {
        need_root();
        let folder = Folder::new("linked");
        let (own, root) = (folder.file("own"), folder.file("root"));
        fs::create_dir(&own).unwrap();
        fs::create_dir(&root).unwrap();
        symlink(&root, folder.file("own/link")).unwrap();
        chown(&own, Some(USER), Some(USER)).unwrap();
        for option in ["--log-file", "--control"] {
            let path = folder.file("own/link/made");
            let args = ["serve", "--tcp", "echo=127.0.0.1:0", "--user", "65534:65534", option, &path];
            let mut daemon = Daemon::spawn(command().args(args));
            assert_eq!(daemon.wait_for_or_end("Server started on "), None, "{option}");
            assert_eq!(daemon.wait().code(), Some(1));
            daemon.expect_last("own/link/made: Permission denied");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        }
    });
}

/// A group of root's may write the log file, and the server's user is not in it: that is said at the start, and not when
/// the file is opened again.
#[test]
fn the_log_file_is_opened_without_the_groups_of_root() {
    guard(|| {
        need_root();
        let folder = Folder::new("groups");
        let path = folder.file("log");
        fs::write(&path, "").unwrap();
        chown(&path, None, Some(20)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let program = command();
        let mut member = Command::new("setpriv");
        member.args(["--groups", "20", "--"]).arg(program.get_program()).args(program.get_args());
        member.args(["serve", "--tcp", "echo=127.0.0.1:0", "--user", "65534:65534", "--log-file", &path]);
        let mut daemon = Daemon::spawn(member.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        assert_eq!(daemon.wait_for_or_end("Server started on "), None);
        assert_eq!(daemon.wait().code(), Some(1));
        daemon.expect_last("/log: Permission denied");
    });
}

/// While the server still waits for its address as root, it opens the log file again: the new file is the user's.
#[test]
fn a_log_file_that_is_opened_again_during_the_start_is_the_users() {
    guard(|| {
        need_root();
        let folder = Folder::new("early");
        chown(folder.file(""), Some(USER), Some(USER)).unwrap();
        let path = folder.file("log");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = format!("echo={}", taken.local_addr().unwrap());
        let mut daemon = Daemon::spawn(command().args(["serve", "--tcp", &echo, "--bind-retry", "60"]).args([
            "--user",
            "65534:65534",
            "--log-file",
            &path,
        ]));
        daemon.wait_for("Cannot listen on ");
        fs::rename(&path, folder.file("moved")).unwrap();
        daemon.signal(Signal::SIGUSR2);
        daemon.wait_for("Log file opened again");
        drop(taken);
        daemon.wait_for("Server started on ");
        assert_eq!(fs::metadata(&path).unwrap().uid(), USER);
        // And so it can be opened once more.
        daemon.signal(Signal::SIGUSR2);
        daemon.wait_for("Log file opened again");
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// The first lines of the start rotate a full log file: the new one is the user's, so that the user can rotate it again.
#[test]
fn a_log_file_that_a_warning_of_the_start_rotates_is_the_users() {
    guard(|| {
        need_root();
        let folder = Folder::new("early-rotation");
        let path = folder.file("log");
        fs::write(&path, "x".repeat(16 * 1024 - 1) + "\n").unwrap();
        for file in [folder.file(""), path.clone()] {
            chown(file, Some(USER), Some(USER)).unwrap();
        }
        let mut program = command();
        program.env("LASTORDERS_WORKER", "1").args(["serve", "--tcp", "echo=127.0.0.1:0", "--user", "65534:65534"]);
        let mut daemon = Daemon::spawn(program.args(["--log-file", &path, "--log-size", "16K"]));
        daemon.wait_for("Server started on ");
        assert_eq!(read(format!("{path}.1")).len(), 16 * 1024);
        assert_eq!(fs::metadata(&path).unwrap().uid(), USER);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}
