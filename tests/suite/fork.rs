//! The forking server: one process per connection, none of them left behind.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::time::Instant;

use lastorders::builtin::Echo;
use lastorders::{Connection, Error, Flow, Server, Service, WhenFull};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::logging::Folder;
use crate::support::{Client, Daemon, command, expect_took, guard, ms, need_root, prlimit, wait_until};

/// Echo in processes, on a free port.
pub fn forking(args: &[&str]) -> Daemon {
    Daemon::echo(&[&["--fork"], args].concat())
}

/// A process as /proc shows it: its id, its state and its parent.
pub struct Process {
    pid: Pid,
    pub state: char,
    parent: Pid,
}

/// What `/proc/pid/stat` says (proc(5)); the name before the state may hold anything, even brackets.
pub fn process(pid: i32) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some(Process { pid: Pid::from_raw(pid), state, parent: Pid::from_raw(words.next()?.parse().ok()?) })
}

/// The daemon's children, zombies too.
fn children(daemon: &Daemon) -> Vec<Process> {
    let parent = Pid::from_raw(daemon.pid() as i32);
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(process).filter(|process| process.parent == parent).collect()
}

pub fn pids(daemon: &Daemon) -> HashSet<Pid> {
    children(daemon).iter().map(|child| child.pid).collect()
}

/// The process that serves a client which is the newest one.
pub fn newest(daemon: &Daemon, before: &HashSet<Pid>) -> Pid {
    *pids(daemon).difference(before).next().expect("a new child")
}

/// How many sockets a process has.
fn sockets(process: Pid) -> usize {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// The last figures that SIGUSR1 logged, or will.
pub fn stat(daemon: &mut Daemon, name: &str) -> u64 {
    daemon.signal(Signal::SIGUSR1);
    let line = daemon.wait_for("accepted=");
    let mut pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).expect("the figure").1.parse().unwrap()
}

/// Three clients are echoed side by side, each by a process of its own, and each connection is logged and
/// counted by the parent.
#[test]
fn each_client_has_a_process() {
    guard(|| {
        let mut daemon = forking(&[]);
        let mut clients: Vec<Client> = (0..3).map(|_| Client::greeted(daemon.address())).collect();
        clients.iter_mut().for_each(|client| client.echo(b"again"));
        assert_eq!(children(&daemon).len(), 3);
        assert_eq!(stat(&mut daemon, "open"), 3);
        let peer = clients[0].0.local_addr().unwrap();
        drop(clients);
        daemon.wait_for("Closing connection from");
        wait_until("all children are reaped", || children(&daemon).is_empty());
        assert_eq!((stat(&mut daemon, "open"), stat(&mut daemon, "open_max")), (0, 3));
        assert_eq!((stat(&mut daemon, "accepted"), stat(&mut daemon, "left")), (3, 3));
        assert_eq!(stat(&mut daemon, "served"), 6);
        for word in ["Starting", "Closing"] {
            let line = format!("{word} connection from {peer} (echo)");
            assert_eq!(daemon.log.iter().filter(|text| text.ends_with(&line)).count(), 1, "{line}");
        }
    });
}

/// 1,000 connections, eight at a time: no child that has ended stays a zombie, then or afterwards.
#[test]
fn a_thousand_connections_leave_no_zombie() {
    guard(|| {
        let mut daemon = forking(&[]);
        let address = daemon.address();
        for round in 0..125 {
            let mut clients: Vec<Client> = (0..8).map(|_| Client::greeted(address)).collect();
            clients.iter_mut().for_each(Client::finish);
            clients.iter_mut().for_each(Client::expect_gone);
            if round % 25 == 0 {
                let dead: Vec<i32> =
                    children(&daemon).iter().filter(|c| c.state == 'Z').map(|c| c.pid.as_raw()).collect();
                wait_until("a zombie is reaped", || {
                    dead.iter().all(|pid| process(*pid).is_none_or(|process| process.state != 'Z'))
                });
            }
        }
        wait_until("all children are reaped", || children(&daemon).is_empty());
        assert_eq!((stat(&mut daemon, "accepted"), stat(&mut daemon, "left")), (1_000, 1_000));
        assert!(stat(&mut daemon, "open_max") <= 50);
    });
}

/// With all processes taken the next client waits in the backlog, and is served when one of the others leaves.
#[test]
fn the_limit_holds() {
    guard(|| {
        let mut daemon = forking(&["--max-children", "2"]);
        let mut clients = [Client::greeted(daemon.address()), Client::greeted(daemon.address())];
        let mut next = daemon.client();
        next.send("hello world");
        clients.iter_mut().for_each(|client| client.echo(b"still here"));
        // By then the listener could have been seen: the accept loop looks at signals and clients in one poll.
        assert_eq!((stat(&mut daemon, "open"), stat(&mut daemon, "accepted")), (2, 2));
        assert_eq!(children(&daemon).len(), 2);
        let [first, _second] = clients;
        drop(first);
        next.expect("hello world");
        assert_eq!((stat(&mut daemon, "open_max"), stat(&mut daemon, "accepted")), (2, 3));
    });
}

/// `--when-full reject`: with all processes taken a client gets BUSY.
#[test]
fn a_full_house_may_reject() {
    guard(|| {
        let mut daemon = forking(&["--max-children", "1", "--when-full", "reject"]);
        let _first = Client::greeted(daemon.address());
        assert_eq!(daemon.client().rest(), b"BUSY\n");
        assert_eq!(stat(&mut daemon, "refused"), 1);
    });
}

/// A child that is killed takes its own client along and no other.
#[test]
fn a_killed_child_costs_its_own_connection() {
    guard(|| {
        let mut daemon = forking(&[]);
        let mut other = Client::greeted(daemon.address());
        let before = pids(&daemon);
        let mut victim = Client::greeted(daemon.address());
        let peer = victim.0.local_addr().unwrap();
        kill(newest(&daemon, &before), Signal::SIGKILL).unwrap();
        victim.expect_gone();
        daemon.wait_for(&format!("Client {peer}: its process was ended by SIGKILL"));
        daemon.wait_for(&format!("Closing connection from {peer} (echo): killed by SIGKILL"));
        other.echo(b"unharmed");
        Client::greeted(daemon.address());
        assert_eq!(stat(&mut daemon, "killed"), 1);
        assert_eq!(pids(&daemon).intersection(&before).count(), 1);
    });
}

/// A child that a real-time signal ends is reaped as any other: its client is gone, and its place is free.
#[test]
fn a_child_that_a_real_time_signal_ends_is_reaped() {
    guard(|| {
        let mut daemon = forking(&["--max-children", "1"]);
        let mut victim = Client::greeted(daemon.address());
        let peer = victim.0.local_addr().unwrap();
        let child = newest(&daemon, &HashSet::new());
        let status = std::process::Command::new("sh").args(["-c", &format!("kill -34 {child}")]).status().unwrap();
        assert!(status.success());
        victim.expect_gone();
        // An emulator gives the signal another number.
        daemon.wait_for(&format!("Client {peer}: its process was ended by signal 3"));
        Client::greeted(daemon.address());
        assert_eq!(stat(&mut daemon, "killed"), 1);
    });
}

/// A client that says nothing, and one that reads nothing, are closed by their processes in time.
#[test]
fn deadlines_hold_in_children() {
    let once = || {
        let mut daemon = forking(&["--idle-timeout", "300ms", "--write-timeout", "400ms"]);
        let start = Instant::now();
        let mut silent = Client::greeted(daemon.address());
        silent.expect_end();
        let took = start.elapsed();
        daemon.wait_for(&format!("Client {} timed out", silent.0.local_addr().unwrap()));
        let start = Instant::now();
        let mut stuck = daemon.client();
        stuck.0.set_nonblocking(true).unwrap();
        let peer = stuck.0.local_addr().unwrap();
        wait_until("it is closed", || {
            let error = std::io::Write::write(&mut stuck.0, &[b'x'; 65_536]).err();
            error.is_some_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        });
        assert!(start.elapsed() >= ms(400), "{:?}", start.elapsed());
        daemon.wait_for(&format!("Client {peer} timed out"));
        assert_eq!((stat(&mut daemon, "timed_out_idle"), stat(&mut daemon, "timed_out_write")), (1, 1));
        took
    };
    guard(move || expect_took(ms(300)..ms(600), once));
}

/// No more processes are to be had: the client is told `BUSY`, the next ones wait, and are served when there are
/// processes again.
#[test]
fn a_failing_fork_is_told_and_survived() {
    // The limit does not bind root, and counts all processes of a user: so it needs one that has no other.
    guard(|| {
        need_root();
        let folder = Folder::new("failing-fork");
        let args = ["serve", "--fork", "--tcp", "echo=127.0.0.1:0"];
        let mut daemon = Daemon::spawn(folder.command().args(args).uid(54_321));
        daemon.started();
        prlimit(daemon.pid(), "nproc=1:100");
        assert_eq!(daemon.client().rest(), b"BUSY\n");
        daemon.wait_for("refused: Resource temporarily unavailable");
        let mut waits = daemon.client();
        prlimit(daemon.pid(), "nproc=100:100");
        waits.send("hello world");
        let answer = waits.recv();
        assert!(answer == b"hello world" || answer == b"BUSY\n", "{answer:?}");
        Client::greeted(daemon.address());
        assert!(stat(&mut daemon, "fork_failed") >= 1);
    });
}

/// The control socket answers while all processes are taken, outlives a child, and its `stop` drains them.
#[test]
fn the_control_socket_is_the_parents() {
    guard(|| {
        let path = std::env::temp_dir().join(format!("lastorders-fork-{}.sock", std::process::id()));
        let ask = |request: &str| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let mut daemon = forking(&["--max-children", "1", "--control", path.to_str().unwrap()]);
        drop(Client::greeted(daemon.address()));
        daemon.wait_for("Closing connection from");
        let mut client = Client::greeted(daemon.address());
        let status = ask("status\n");
        assert!(status.contains("open 1\n") && status.contains("left 1\n"), "{status}");
        let child = pids(&daemon).into_iter().next().unwrap();
        assert_eq!(sockets(child), 1);
        assert!(ask("stop\n").contains("stopping"));
        assert_eq!(client.rest(), b"SHUTDOWN");
        drop(client);
        daemon.wait_ok();
        daemon.expect_last("1 notified, 1 left, 0 closed");
        assert!(!path.exists());
    });
}

/// A client that connects just before `stop` on the control socket gets a process without that socket, too.
#[test]
fn a_child_of_the_shutdown_has_its_client_alone() {
    guard(|| {
        let path = std::env::temp_dir().join(format!("lastorders-late-{}.sock", std::process::id()));
        let mut daemon = forking(&["--grace", "50", "--control", path.to_str().unwrap()]);
        // Both are there when the server looks.
        daemon.signal(Signal::SIGSTOP);
        wait_until("it is stopped", || process(daemon.pid() as i32).is_some_and(|server| server.state == 'T'));
        let mut client = daemon.client();
        client.send("hello world");
        UnixStream::connect(&path).unwrap().write_all(b"stop\n").unwrap();
        daemon.signal(Signal::SIGCONT);
        client.expect("hello world");
        assert_eq!(client.rest(), b"SHUTDOWN");
        assert_eq!(sockets(pids(&daemon).into_iter().next().unwrap()), 1);
        drop(client);
        daemon.wait_ok();
    });
}

/// What cannot go together with processes is refused at start: out of range, or shedding, with exit code 2.
#[test]
fn bad_combinations_are_usage_errors() {
    guard(|| {
        for (args, parts) in [
            (&["--max-children", "0"][..], &["--max-children \"0\"", "1 to 1024"][..]),
            (&["--max-children", "1025"], &["--max-children \"1025\"", "1 to 1024"]),
            (&["--max-children", "many"], &["--max-children \"many\"", "1 to 1024"]),
            (&["--when-full", "shed"], &["--fork", "shedding", "choose wait or reject"]),
        ] {
            let tcp = ["serve", "--fork", "--tcp", "echo=127.0.0.1:0"];
            let output = command().args(tcp).args(args).output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{args:?}: {text}");
        }
    });
}

/// A service whose clients share state is refused by name.
#[test]
fn shared_state_is_refused() {
    struct Shared;
    impl Service for Shared {
        type Session = ();
        fn open(&self, _: &mut Connection) -> std::io::Result<()> {
            Ok(())
        }
        fn serve(&self, _: &mut Connection, (): &mut ()) -> std::io::Result<Flow> {
            Ok(Flow::Close)
        }
        fn shares_state(&self) -> bool {
            true
        }
    }
    let builder = || Server::builder(Echo).listen("127.0.0.1:0").unwrap().service(Shared).name("store");
    assert!(builder().build().is_ok());
    for error in [builder().forking(5).build().err(), builder().forking(5).budget().err()] {
        let text = error.unwrap().to_string();
        assert!(text.contains("the service store") && text.contains("own copy"), "{text}");
    }
    let shed = Server::builder(Echo).listen("127.0.0.1:0").unwrap().when_full(WhenFull::Shed).forking(5).build();
    assert!(matches!(shed.err(), Some(Error::Forking { .. })));
}

/// In a process with threads, such as this one, a forking server does not start.
#[test]
fn a_threaded_process_is_not_forked() {
    guard(|| {
        let server = Server::builder(Echo).listen("127.0.0.1:0").unwrap().forking(5).build().unwrap();
        match server.run() {
            Err(Error::Threaded(threads)) => assert!(threads > 1),
            other => panic!("{other:?}"),
        }
    });
}
