//! Socket activation: the daemon started with sockets that are bound already (sd_listen_fds(3)).

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, HANG, command, guard, started_on};

/// The daemon, started as systemd would: `first` is descriptor 3, `second` 4, and LISTEN_PID its own number.
fn activated(first: impl Into<OwnedFd>, second: Option<OwnedFd>, names: &str, args: &[&str]) -> Command {
    let program = command();
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$; exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args()).arg("serve").args(args);
    shell.env("LISTEN_FDS", if second.is_some() { "2" } else { "1" }).env("LISTEN_FDNAMES", names);
    shell.stdin(Stdio::from(first.into())).stderr(Stdio::piped());
    match second {
        Some(second) => shell.stdout(Stdio::from(second)),
        None => shell.stdout(Stdio::null()),
    };
    shell
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Starts it where it must not, and returns the last line that it writes.
#[track_caller]
fn refusal(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    text.lines().last().unwrap_or_default().into()
}

/// A client that connects before the daemon is there is served once it is; each socket gets the service that it
/// is named after, the default one is not bound beside them, and the shutdown is as ever.
#[test]
fn inherited_sockets_are_served_by_the_service_they_are_named_after() {
    guard(|| {
        let (tcp, address) = listener();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let time = udp.local_addr().unwrap();
        let mut early = Client::connect(address);
        early.send("HELLO\n");
        let mut daemon =
            Daemon::spawn(&mut activated(tcp, Some(udp.into()), "lastorders-upper-lines.socket:time", &[]));
        early.expect("HELLO\n");
        early.send("to upper\n");
        early.expect("TO UPPER\n");

        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.set_read_timeout(Some(HANG / 2)).unwrap();
        asker.send_to(br#"{"type": "time"}"#, time).unwrap();
        let mut reply = [0; 256];
        let (count, from) = asker.recv_from(&mut reply).unwrap();
        assert!(count > 0 && from == time);

        daemon.wait_for(&format!("Server started on {address} (upper-lines)"));
        daemon.wait_for(&format!("Server started on {time} (time)"));
        daemon.signal(Signal::SIGTERM);
        assert_eq!(early.rest(), b"SHUTDOWN\n");
        drop(early);
        daemon.wait_ok();
        let started = daemon.log.iter().filter(|line| line.contains("Server started on"));
        assert_eq!(started.count(), 2, "{:#?}", daemon.log);
    });
}

/// Sockets from the command line are served beside inherited ones, after them; two of one kv share a store.
#[test]
fn inherited_sockets_stand_beside_those_of_the_command_line() {
    guard(|| {
        let (tcp, address) = listener();
        let args = ["--tcp", "kv=127.0.0.1:0"];
        let mut daemon = Daemon::spawn(&mut activated(tcp, None, "kv.socket", &args));
        daemon.wait_for(&format!("Server started on {address} (kv)"));
        let line = daemon.wait_for("(kv)");
        let other = started_on(&line);
        let (mut one, mut two) = (Client::connect(address), Client::connect(other));
        one.expect("READY\n");
        two.expect("READY\n");
        one.send("SET a 1\n");
        one.expect("OK\n");
        two.send("GET a\n");
        two.expect("1\n");
    });
}

/// A process per connection works on an inherited socket too.
#[test]
fn a_forking_server_serves_an_inherited_socket() {
    guard(|| {
        let (tcp, address) = listener();
        let mut daemon = Daemon::spawn(&mut activated(tcp, None, "echo", &["--fork"]));
        Client::greeted(address);
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// Variables that are for another process are not even looked at.
#[test]
fn sockets_for_another_process_are_left_alone() {
    guard(|| {
        let mut command = command();
        command.args(["serve", "--tcp", "echo=127.0.0.1:0"]);
        command.env("LISTEN_PID", "1").env("LISTEN_FDS", "many").env("LISTEN_FDNAMES", ":::");
        let mut daemon = Daemon::spawn(&mut command);
        daemon.wait_for("Server started on 127.0.0.1:");
        daemon.signal(Signal::SIGTERM);
        daemon.wait_ok();
    });
}

/// What cannot be served is refused in one line that names the descriptor and what would be right.
#[test]
fn sockets_that_cannot_be_served_are_refused_by_number_and_name() {
    guard(|| {
        let expect = |command: Command, code, parts: &[&str]| {
            let line = refusal(command, code);
            assert!(line.starts_with("lastorders: ") && parts.iter().all(|part| line.contains(part)), "{line}");
        };
        let tcp = || listener().0;
        expect(activated(tcp(), None, "lastorders.socket", &[]), 1, &["descriptor 3", "FileDescriptorName=echo"]);
        expect(activated(tcp(), None, "time", &[]), 1, &["descriptor 3", "\"time\"", "ListenDatagram="]);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        expect(activated(udp, None, "echo", &[]), 1, &["descriptor 3", "\"echo\"", "ListenStream="]);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        expect(activated(tcp(), Some(udp.into()), "echo:time", &["--fork"]), 2, &["--fork", "datagrams"]);
        let (listening, address) = listener();
        let connected = TcpStream::connect(address).unwrap();
        expect(activated(listening, Some(connected.into()), "echo:kv", &[]), 1, &["4 (\"kv\")", "Accept=no"]);
        let path = std::env::temp_dir().join(format!("lastorders-activation-{}", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        expect(activated(unix, None, "echo", &[]), 1, &["3 (\"echo\")", "IPv4 or IPv6"]);
        let file = std::fs::File::open("/dev/null").unwrap();
        expect(activated(file, None, "echo", &[]), 1, &["3 (\"echo\")", "not a socket"]);
    });
}

/// Variables that make no sense are a usage error that shows them.
#[test]
fn garbled_variables_are_refused() {
    guard(|| {
        for (name, value) in [("LISTEN_FDS", "three"), ("LISTEN_FDS", "33"), ("LISTEN_FDNAMES", "echo:kv")] {
            let mut command = activated(listener().0, None, "echo", &[]);
            command.env(name, value);
            let line = refusal(command, 2);
            assert!(line.contains(&format!("{name} {value:?}: expected ")), "{line}");
        }
        let mut absent = activated(listener().0, Some(listener().0.into()), "echo:kv:upper", &[]);
        absent.env("LISTEN_FDS", "3");
        let line = refusal(absent, 1);
        assert!(line.contains("descriptor 5 (\"upper\")"), "{line}");
    });
}
