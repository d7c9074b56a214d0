//! Log lines: their form, the file's cap and its rotation, a file that fails and comes back, the system log.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::sinks::SystemLog;
use crate::support::{Client, Daemon, command, group, guard, need_root, wait_until};

/// A folder for one test's files, gone with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("lastorders-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().into()
    }

    /// The daemon's command line with a copy of its program in the folder, which every user may run.
    pub fn command(&self) -> Command {
        let tested = command();
        let mut words: Vec<_> = [tested.get_program()].into_iter().chain(tested.get_args()).collect();
        let program = self.file("program");
        // Not by this process: what it has open for writing, even in a child that has yet to become its program, cannot run.
        let copied = Command::new("cp").arg(words.pop().unwrap()).arg(&program).status();
        assert!(copied.is_ok_and(|status| status.success()));
        words.push(program.as_ref());
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The texts of a log file's lines, each of which must have the exact form.
#[track_caller]
pub fn texts(file: &str) -> Vec<String> {
    assert!(file.is_empty() || file.ends_with('\n'), "torn: {file:?}");
    file.lines().map(|line| text(line).unwrap_or_else(|| panic!("no log line: {line:?}")).to_string()).collect()
}

/// What follows `2026-11-21 01:38:47+01:00 [INFO] ` in a line of that form.
fn text(line: &str) -> Option<&str> {
    let (stamp, rest) = line.split_at_checked(26)?;
    let stamp = stamp.replace('-', "+").replacen('+', "-", 2);
    let shape: String = stamp.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    let (level, text) = rest.strip_prefix('[')?.split_once("] ")?;
    let known = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level);
    (shape == "0000-00-00 00:00:00+00:00 " && known).then_some(text)
}

/// The texts that the console has shown, in the same form.
fn console(daemon: &Daemon) -> Vec<String> {
    texts(&daemon.log.iter().map(|line| format!("{line}\n")).collect::<String>())
}

/// Clients that come, are served, and go: at least two lines each.
pub fn visits(address: SocketAddr, count: usize) {
    for _ in 0..count {
        Client::greeted(address);
    }
}

pub fn stop(daemon: &mut Daemon) {
    daemon.signal(Signal::SIGTERM);
    daemon.wait_ok();
}

/// A client comes and goes: the file has what the console has, each line in the exact form, in local time.
#[test]
fn lines_have_their_form_in_local_time() {
    guard(|| {
        let folder = Folder::new("form");
        let path = folder.file("log");
        let args = ["--tcp", "echo=127.0.0.1:0"];
        // Options come from the environment as well.
        let mut daemon = command();
        daemon.arg("serve").args(args).env("LASTORDERS_LOG_FILE", &path).env("TZ", "<+0530>-5:30");
        let mut daemon = Daemon::spawn(&mut daemon);
        let line = daemon.wait_for("Server started on 127.0.0.1:");
        assert!(line.contains("+05:30 [INFO] PID:"), "{line}");
        stop(&mut daemon);
        let file = read(&path);
        assert_eq!(texts(&file), console(&daemon));
        let numbers: Vec<u64> = file[11..19].split(':').map(|number| number.parse().unwrap()).collect();
        let shown = numbers[0] * 3_600 + numbers[1] * 60 + numbers[2];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 19_800;
        assert!((now + 86_400 - shown) % 86_400 < 60, "{file}");
    });
}

/// Four clients at once keep coming and going: neither file passes the cap, and the two together are the last lines
/// that the console has shown, all of them and in order. The file is named by a link, and both stay where it leads.
#[test]
fn rotation_keeps_the_cap_and_every_line_between_the_two_files() {
    guard(|| {
        let folder = Folder::new("rotation");
        let path = folder.file("log");
        std::os::unix::fs::symlink(&path, folder.file("link")).unwrap();
        let mut daemon = Daemon::echo(&["--log-file", &folder.file("link"), "--log-size", "16K"]);
        let address = daemon.address();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        visits(address, 10);
                        for name in [&path, &format!("{path}.1")] {
                            let size = fs::metadata(name).map_or(0, |file| file.len());
                            assert!(size <= 16 * 1024, "{name} has {size} bytes");
                        }
                    }
                });
            }
        });
        stop(&mut daemon);
        let (old, new) = (read(format!("{path}.1")), read(&path));
        assert!(old.len() > 15 * 1024 && old.len() <= 16 * 1024, "{}", old.len());
        let kept = texts(&(old + &new));
        let shown = console(&daemon);
        assert!(shown.len() > 800 && kept.len() < shown.len());
        assert_eq!(kept, shown[shown.len() - kept.len()..]);
    });
}

/// The file is moved away and SIGUSR2 sent: lines go on in a new file of the name. Where that is not possible they
/// go on in the old one, and without a log file the signal is harmless.
#[test]
fn sigusr2_opens_the_file_again() {
    guard(|| {
        let folder = Folder::new("reopen");
        let (path, moved) = (folder.file("logs/log"), folder.file("logs/moved"));
        fs::create_dir(folder.file("logs")).unwrap();
        let mut daemon = Daemon::echo(&["--log-file", &path]);
        fs::rename(&path, &moved).unwrap();
        visits(daemon.address(), 1);
        daemon.wait_for("Closing connection from");
        assert!(!Path::new(&path).exists(), "not before it was asked for");
        daemon.signal(Signal::SIGUSR2);
        daemon.wait_for("Log file opened again");
        visits(daemon.address(), 1);
        daemon.wait_for("Closing connection from");
        let (before, after) = (texts(&read(&moved)), texts(&read(&path)));
        assert_eq!([before, after.clone()].concat(), console(&daemon));
        assert_eq!(after[0], "Log file opened again");

        fs::rename(folder.file("logs"), folder.file("gone")).unwrap();
        daemon.signal(Signal::SIGUSR2);
        daemon.wait_for("cannot open log file");
        visits(daemon.address(), 1);
        stop(&mut daemon);
        let rest = texts(&read(folder.file("gone/log")));
        assert_eq!(rest, console(&daemon)[console(&daemon).len() - rest.len()..]);

        let mut daemon = Daemon::echo(&[]);
        daemon.signal(Signal::SIGUSR2);
        daemon.wait_for("No log file to open again");
        visits(daemon.address(), 1);
        stop(&mut daemon);
    });
}

/// The power went in the middle of a line: the next one begins on a line of its own.
#[test]
fn a_torn_line_of_a_last_life_stays_alone() {
    guard(|| {
        let folder = Folder::new("torn");
        let path = folder.file("log");
        fs::write(&path, "2026-11-21 01:38:47+01:00 [INFO] Starting conn").unwrap();
        let mut daemon = Daemon::echo(&["--log-file", &path]);
        stop(&mut daemon);
        assert_eq!(texts(&read(&path))[1..], console(&daemon));
    });
}

/// The file is deleted: the next line makes a new one, rather than to fill a disk unseen.
#[test]
fn a_deleted_file_comes_back() {
    guard(|| {
        let folder = Folder::new("deleted");
        let path = folder.file("log");
        let mut daemon = Daemon::echo(&["--log-file", &path]);
        fs::remove_file(&path).unwrap();
        visits(daemon.address(), 1);
        stop(&mut daemon);
        assert!(texts(&read(&path))[0].starts_with("Starting connection from"));
    });
}

/// The old file's name is taken by a folder, so nothing can be renamed to it: the cap is kept all the same.
#[test]
fn the_cap_is_kept_when_the_file_cannot_be_renamed() {
    guard(|| {
        let folder = Folder::new("unnamed");
        let path = folder.file("log");
        fs::create_dir(format!("{path}.1")).unwrap();
        let mut daemon = Daemon::echo(&["--log-file", &path, "--log-size", "16K"]);
        visits(daemon.address(), 150);
        stop(&mut daemon);
        let file = read(&path);
        assert!(file.len() <= 16 * 1024, "{}", file.len());
        assert!(texts(&file)[0].contains("emptied, it cannot become"), "{file}");
    });
}

/// A file system mounted for one test.
struct Mount(String);

impl Mount {
    fn tmpfs(path: String) -> Mount {
        need_root();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "lastorders", &path]).output();
        assert!(mount.as_ref().is_ok_and(|output| output.status.success()), "{mount:?}");
        Mount(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

/// The file system is full for a while: the server serves on, says on the console that it cannot write, and once there
/// is room again the file has every line up to a gap, and every line after it. The gap says how many lines it is.
#[test]
fn a_full_file_system_costs_lines_and_they_are_counted() {
    guard(|| {
        let folder = Folder::new("full");
        let mount = Mount::tmpfs(folder.file(""));
        let path = folder.file("log");
        let mut daemon = Daemon::echo(&["--log-file", &path]);
        let mut filler = fs::File::create(folder.file("filler")).unwrap();
        while filler.write(&[0; 1024]).is_ok_and(|count| count > 0) {}
        // The backlog holds 16 KiB, and these are over 40.
        visits(daemon.address(), 300);
        daemon.wait_for("Log lines wait or are lost");
        filler.set_len(0).unwrap();
        wait_until("the file is written to again", || {
            visits(daemon.address(), 1);
            read(&path).contains("were lost here")
        });
        stop(&mut daemon);

        let mut shown = console(&daemon);
        let told = shown.iter().position(|text| text.contains("No space left on device")).unwrap();
        shown.remove(told);
        expect_one_gap(texts(&read(&path)), &shown);
        drop(mount);
    });
}

/// Asserts that a sink that was blocked for a while has every line but for one gap, which says how many it lacks.
#[track_caller]
pub fn expect_one_gap(mut got: Vec<String>, shown: &[String]) {
    let gap = got.iter().position(|text| text.contains("were lost here")).expect("a gap");
    let lost: usize = got.remove(gap).split(' ').next().unwrap().parse().unwrap();
    assert!(lost > 0);
    assert_eq!(got, [&shown[..gap], &shown[gap + lost..]].concat());
}

/// A log file that never takes anything, and one that the shell limits to a few blocks: the server serves on.
#[test]
fn a_file_that_takes_nothing_never_stops_the_server() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--log-file", "/dev/full"]);
        visits(daemon.address(), 20);
        stop(&mut daemon);
        let told = daemon.log.iter().filter(|line| line.contains("cannot write to /dev/full")).count();
        assert_eq!(told, 1, "{:#?}", daemon.log);

        let folder = Folder::new("limit");
        let (inner, mut limited) = (command(), Command::new("sh"));
        // 16 KiB: an emulator itself writes a file of some KiB, its copy of /proc/self/maps.
        limited.args(["-c", "ulimit -f 32; exec \"$@\"", "sh"]).arg(inner.get_program()).args(inner.get_args());
        limited.args(["serve", "--tcp", "echo=127.0.0.1:0", "--log-file", &folder.file("log")]);
        let mut daemon = Daemon::spawn(limited.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        visits(daemon.started(), 200);
        daemon.wait_for("Log lines wait or are lost");
        // Each of its threads comes to try again: the kernel sends SIGXFSZ to the one that wrote.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2_500) {
            visits(daemon.address(), 1);
        }
        stop(&mut daemon);
    });
}

/// What a server sends to the client, and a file name that an error tells of, have newlines and escape sequences in
/// them: no line of the log begins with them.
#[test]
fn no_line_can_be_forged() {
    guard(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut client = Daemon::spawn(command().args(["client", &address, "--every", "60"]));
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"x\n2026-11-21 01:38:47+01:00 [INFO] forged\r\x1b[2J\xc2\x9b").unwrap();
        let line = client.wait_for("Received");
        assert!(line.contains(r"x\n2026-11-21 01:38:47+01:00 [INFO] forged\r\u{1b}[2J\u{9b}"), "{line}");

        let folder = Folder::new("forged");
        let path = folder.file("a\n2026-11-21 01:38:47+01:00 [INFO] forged\u{1b}[2J");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut daemon = Daemon::echo(&["--log-file", &path]);
        stop(&mut daemon);
        let told = |line: &String| line.contains(r"/a\n2026-11-21 01:38:47+01:00 [INFO] forged\u{1b}[2J: ");
        assert!(daemon.log.iter().any(told), "{:#?}", daemon.log);
        assert!(daemon.log.iter().all(|line| !line.contains("forged") || told(line)));
    });
}

/// A log file that cannot be opened is exit code 1 with its path and a way out, a bad size exit code 2.
#[test]
fn what_cannot_be_logged_to_is_said_at_start() {
    guard(|| {
        let folder = Folder::new("start");
        let pipe = folder.file("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (args, code, part) in [
            // There is no reader, and a wait for one would not end.
            (["--log-file", &pipe], 1, "/pipe: No such device or address"),
            (["--log-file", "/nowhere/log"], 1, "/nowhere/log: No such file or directory (os error 2); make its"),
            (["--log-file", "/tmp"], 1, "cannot open log file /tmp: Is a directory (os error 21); choose a file"),
            (["--log-size", "lots"], 2, "--log-size \"lots\": expected a size from 16K to 4G"),
        ] {
            let output = command().arg("serve").args(args).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(part), "{said}");
        }
    });
}

/// With `--syslog`, a datagram for each line, as facility daemon and with the level; what looks like a format is text.
#[test]
fn lines_go_to_the_system_log() {
    guard(|| {
        let system = SystemLog::start();
        let mut daemon = Daemon::echo(&["--syslog", "--multicast", &group("239.1.1.3"), "--interface", "lo"]);
        visits(daemon.address(), 1);
        let group = lastorders::Group::new(daemon.addresses[1], "lo".parse().ok()).unwrap();
        group.send(b"%n%s%99999d", 0).unwrap();
        daemon.wait_for("Received: %n%s%99999d from");
        daemon.signal(Signal::SIGUSR1);
        stop(&mut daemon);
        let mut received = vec![];
        let mut bytes = [0; 4096];
        while received.len() < daemon.log.len() {
            let count = system.socket.recv(&mut bytes).unwrap();
            received.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
        let ident = format!(" lastorders[{}]: ", daemon.pid());
        for (line, shown) in received.iter().zip(&daemon.log) {
            let (level, text) = shown.split_once("] ").unwrap();
            let priority = if level.ends_with("WARN") { "<28>" } else { "<30>" };
            assert!(line.starts_with(priority), "{line}");
            assert_eq!(line.split_once(&ident).map(|(_, text)| text), Some(text));
        }
        assert!(daemon.log.iter().any(|line| line.contains("[WARN] ")));
    });
}
