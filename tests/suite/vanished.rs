//! Clients that vanish without a word, and the socket options by which the server finds out.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use lastorders::Server;
use lastorders::builtin::Echo;
use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{TcpKeepCount, TcpKeepIdle, TcpKeepInterval, TcpUserTimeout};
use nix::unistd::gettid;

use crate::faults::tracer::need_strace;
use crate::network::{ip, own_network};
use crate::support::{Client, Daemon, Running, command, guard, wait_until};

/// The kernel's keep-alive timer runs on a connection of the daemon (proc(5), /proc/net/tcp: timer 2, and when it
/// fires, in hundredths of a second).
#[test]
fn the_daemon_probes_silent_clients() {
    guard(|| {
        for args in [&["--idle-timeout", "3600"][..], &["--fork", "--idle-timeout", "3600"]] {
            let daemon = Daemon::echo(args);
            let client = Client::greeted(daemon.address());
            let ports = [daemon.address(), client.0.local_addr().unwrap()].map(|address| address.port());
            let [local, remote] = ports.map(|port| format!(":{port:04X}"));
            let timer = || {
                let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
                let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
                let row = rows.find(|row| row[1].ends_with(&local) && row[2].ends_with(&remote)).expect("a row");
                row[5].to_string()
            };
            // While the reply is not acknowledged, another timer runs.
            wait_until("the keep-alive timer runs", || timer().starts_with("02:"));
            let left = u32::from_str_radix(&timer()[3..], 16).unwrap();
            assert!((1..=3_001).contains(&left), "{left}");
        }
    });
}

/// A silent client whose network goes away frees its slot. The times are those of the daemon made short: what is set
/// on the listener is what each connection inherits.
#[test]
fn a_vanished_client_frees_its_slot() {
    guard(|| {
        own_network();
        let (sender, receiver) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let elsewhere = std::thread::spawn(move || {
            own_network();
            sender.send(gettid()).unwrap();
            wait.recv().unwrap();
            ip("addr add 10.0.0.2/24 dev there");
            ip("link set there up");
            let client = Client::greeted("10.0.0.1:7".parse().unwrap());
            ip("addr flush dev there");
            sender.send(gettid()).unwrap();
            wait.recv().unwrap();
            drop(client);
        });
        let thread = receiver.recv().unwrap();
        ip("link add here type veth peer name there");
        ip(&format!("link set there netns {thread}"));
        ip("addr add 10.0.0.1/24 dev here");
        ip("link set here up");
        let listener = TcpListener::bind("10.0.0.1:7").unwrap();
        let timers = listener.try_clone().unwrap();
        let builder = Server::builder(Echo)
            .limits(lastorders::Limits { idle_timeout: Duration::from_secs(3_600), ..lastorders::Limits::default() });
        let running = Running::run(builder.listener(listener).build().unwrap());
        setsockopt(&timers, TcpKeepIdle, &1).unwrap();
        setsockopt(&timers, TcpKeepInterval, &1).unwrap();
        setsockopt(&timers, TcpKeepCount, &2).unwrap();
        setsockopt(&timers, TcpUserTimeout, &3_000).unwrap();
        go.send(()).unwrap();
        receiver.recv().unwrap();
        wait_until("the slot is free", || running.handle.stats().open == 0);
        let stats = running.handle.stats();
        assert_eq!((stats.accepted, stats.resets), (1, 1), "{stats}");
        go.send(()).unwrap();
        elsewhere.join().unwrap();
        running.stop();
    });
}

/// A kernel without any of these options: the daemon says so once, and serves.
#[test]
fn options_that_the_kernel_lacks_are_one_warning() {
    guard(|| {
        need_strace();
        let serve = command();
        let mut strace = std::process::Command::new("strace");
        // The first call is the one for SO_REUSEADDR, which is not optional. The tracer is not the parent (-D).
        strace.args(["-D", "-f", "-o", "/dev/null", "-e", "inject=setsockopt:error=ENOPROTOOPT:when=2+"]);
        strace.arg(serve.get_program()).args(serve.get_args()).args(["serve", "--tcp", "echo=127.0.0.1:0"]);
        strace.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut daemon = Daemon::spawn(&mut strace);
        let warning = daemon.wait_for("The kernel refuses socket options");
        for name in ["TCP_NODELAY", "SO_KEEPALIVE", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"]
        {
            assert!(warning.contains(&format!("{name} (ENOPROTOOPT)")), "{warning}");
        }
        let address = daemon.started();
        (0..3).for_each(|_| drop(Client::greeted(address)));
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
        assert_eq!(daemon.log.iter().filter(|line| line.contains("socket option")).count(), 1, "{:#?}", daemon.log);
    });
}
