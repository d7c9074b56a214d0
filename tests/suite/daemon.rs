//! The daemon from a shell's point of view: options, errors, exit codes, log lines, and its client.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::logging::Folder;
use crate::network::own_network;
use crate::support::{Client, Daemon, HANG, command, guard, started_on};

fn run(args: &[&str]) -> Output {
    command().args(args).output().expect("run the daemon")
}

/// One line on standard error that contains all of `parts`, and this exit code.
#[track_caller]
fn expect_error(args: &[&str], code: i32, parts: &[&str]) {
    let output = run(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    let line = text.lines().last().unwrap_or_default();
    assert!(line.starts_with("lastorders: "), "{text}");
    for part in parts {
        assert!(line.contains(part), "{args:?}: no {part:?} in {line:?}");
    }
}

/// What is wrong with a command line is said in one line, with exit code 2.
#[test]
fn usage_errors_exit_with_2() {
    guard(|| {
        expect_error(&[], 2, &["no command", "serve"]);
        expect_error(&["sevre"], 2, &["sevre", "serve, client, control or send"]);
        expect_error(&["serve", "--wrokers", "3"], 2, &["--wrokers"]);
        expect_error(&["serve", "--workers", "65"], 2, &["--workers \"65\"", "1 to 64"]);
        expect_error(&["serve", "--queue=0"], 2, &["--queue \"0\"", "1 to 1024"]);
        expect_error(&["serve", "--connections", "16385"], 2, &["--connections \"16385\"", "1 to 16384"]);
        expect_error(&["serve", "--grace", "86401"], 2, &["--grace \"86401\"", "0 to 86400 seconds"]);
        expect_error(&["serve", "--tcp", "nope=127.0.0.1:1"], 2, &["nope", "echo"]);
        expect_error(&["serve", "--tcp", "echo=127.0.0.1:99999"], 2, &["127.0.0.1:99999", "echo=127.0.0.1:9999"]);
        expect_error(&["serve", "--fork", "--tcp", "kv=127.0.0.1:0"], 2, &["kv", "--fork"]);
        expect_error(&["serve", "--workers", "many"], 2, &["--workers \"many\"", "1 to 64"]);
        expect_error(&["serve", "--idle-timeout", "25h"], 2, &["--idle-timeout \"25h\"", "0 to 86400 seconds"]);
        expect_error(&["serve", "--per-client", "16385"], 2, &["--per-client \"16385\"", "0 to 16384"]);
        expect_error(&["serve", "--tcp", "time=127.0.0.1:1"], 2, &["time is a service of --udp"]);
        expect_error(&["serve", "--udp", "echo=127.0.0.1:1"], 2, &["echo is a service of --tcp"]);
        expect_error(&["serve", "--multicast", "239.1.1.1:0"], 2, &["239.1.1.1:0", "port 0"]);
        expect_error(&["control", "frobnicate"], 2, &["\"frobnicate\"", "status or stop"]);
        expect_error(&["control", "status", "--grace", "3"], 2, &["--grace", "option of stop, not of status"]);
        expect_error(&["control", "stop", "--json"], 2, &["--json", "option of status, not of stop"]);
        expect_error(&["send", "239.1.1.1:5007", "hi", "--interface", "nosuch"], 1, &["nosuch", "there are", "lo"]);
        expect_error(&["client"], 2, &["no address", "127.0.0.1:9999"]);
        let many = ["--tcp", "echo=127.0.0.1:0"].repeat(33);
        expect_error(&[&["serve"], &many[..]].concat(), 2, &["33", "32"]);
        expect_error(&["client", "::1", "--every", "18446744073709551615"], 2, &["--every", "500ms"]);
        expect_error(&["client", "::1", "--count", "0"], 2, &["--count \"0\"", "1 or more"]);
        expect_error(&["client", "::1", "--message", ""], 2, &["--message", "a text"]);
        expect_error(&["control", "status", "--json", "--metrics"], 2, &["--json", "--metrics"]);
        expect_error(&["client", "127.0.0.1"], 2, &["\"127.0.0.1\"", "ADDRESS:PORT"]);
    });
}

/// The environment: an empty value is as if unset, a flag is on or off or an error, and no byte is rewritten silently.
#[test]
fn variables_are_read_or_refused() {
    guard(|| {
        let check = |name: &str, value: &OsStr| command().args(["serve", "--check"]).env(name, value).output().unwrap();
        for value in ["", "0", "no", "off", "False"] {
            for name in ["LASTORDERS_FORK", "LASTORDERS_SYSLOG"] {
                let output = check(name, OsStr::new(value));
                assert_eq!(output.status.code(), Some(0), "{name}={value}");
            }
        }
        assert_eq!(check("LASTORDERS_GRACE", OsStr::new("")).status.code(), Some(0));
        for (name, value, parts) in [
            ("LASTORDERS_WORKERS", OsStr::new("99"), ["lastorders: LASTORDERS_WORKERS \"99\"", "1 to 64"]),
            ("LASTORDERS_FORK", OsStr::new("maybe"), ["LASTORDERS_FORK \"maybe\"", "yes"]),
            ("LASTORDERS_WORKERS", OsStr::from_bytes(b"4\xff"), ["LASTORDERS_WORKERS", "UTF-8"]),
            ("LASTORDERS_CONTROL", OsStr::from_bytes(b"/tmp/\xff"), ["LASTORDERS_CONTROL", "UTF-8"]),
            ("LASTORDERS_TCP", OsStr::new("echo=a\nb"), ["LASTORDERS_TCP", "\\n"]),
        ] {
            let output = check(name, value);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    });
}

/// An option that lacks what it is for is refused, and given by a variable it is a warning.
#[test]
fn an_option_without_effect_is_an_error_and_a_variable_a_warning() {
    guard(|| {
        let mut daemon = command();
        for (option, value, lacking) in [
            ("--interface", "lo", "--multicast"),
            ("--kv-entries", "8", "a service kv"),
            ("--kv-bytes", "64k", "a service kv"),
            ("--max-children", "9", "--fork"),
            ("--log-size", "64k", "--log-file"),
        ] {
            expect_error(&["serve", option, value], 2, &[option, "no effect", lacking]);
            daemon.env(option.replace("--", "LASTORDERS_").replace('-', "_").to_uppercase(), value);
        }
        let mut daemon = Daemon::spawn(daemon.args(["serve", "--tcp", "echo=127.0.0.1:0"]));
        for (variable, lacking) in [
            ("LASTORDERS_INTERFACE", "--multicast"),
            ("LASTORDERS_KV_ENTRIES", "a service kv"),
            ("LASTORDERS_KV_BYTES", "a service kv"),
            ("LASTORDERS_MAX_CHILDREN", "--fork"),
            ("LASTORDERS_LOG_SIZE", "--log-file"),
        ] {
            let line = daemon.wait_for(variable);
            assert!(line.contains("WARN") && line.contains(lacking), "{line}");
        }
        daemon.wait_for("Server started on ");
        // With what they are for, nothing is said.
        for args in [&["--tcp", "kv=127.0.0.1:0", "--kv-entries=8"][..], &["--fork", "--max-children=9"]] {
            assert_eq!(run(&[&["serve", "--check"], args].concat()).status.code(), Some(0), "{args:?}");
        }
    });
}

/// A variable that no option has is a warning with the nearest name, and the server starts.
#[test]
fn an_unknown_variable_is_a_warning() {
    guard(|| {
        let mut program = command();
        program.env("LASTORDERS_WROKERS", "2").env("LASTORDERS_ARGS", "for the init script");
        let mut daemon = Daemon::spawn(program.args(["serve", "--tcp", "echo=127.0.0.1:0"]));
        let line = daemon.wait_for("LASTORDERS_WROKERS");
        assert!(line.contains("WARN") && line.ends_with("LASTORDERS_WORKERS"), "{line}");
        daemon.wait_for("Server started on ");
        assert!(!daemon.log.iter().any(|line| line.contains("LASTORDERS_ARGS")), "{:?}", daemon.log);
    });
}

/// What cannot be started is said in one line, with exit code 1.
#[test]
fn start_errors_exit_with_1() {
    guard(|| {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        expect_error(
            &["serve", "--tcp", &format!("echo={address}")],
            1,
            &[&address, "(echo)", "in use", "another port"],
        );
        expect_error(&["serve", "--tcp", "echo=192.0.2.1:9"], 1, &["192.0.2.1:9", "interface"]);
    });
}

/// Limits beyond RLIMIT_NOFILE are refused with both numbers.
#[test]
fn limits_beyond_the_descriptor_limit_are_refused() {
    guard(|| {
        let program = command();
        let words = [program.get_program()].into_iter().chain(program.get_args());
        let output = std::process::Command::new("sh")
            .args(["-c", "ulimit -n 256; exec \"$@\"", "sh"])
            .args(words)
            .args(["serve", "--check", "--connections", "1000"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("file descriptors are needed") && text.contains("allows 256"), "{text}");
    });
}

/// A port that needs privileges is refused with advice. Root has them, so this steps down first.
#[test]
fn a_privileged_port_is_refused_with_advice() {
    guard(|| {
        // The ports that need none are set for each network, and are the usual ones in a new one.
        own_network();
        let folder = Folder::new("privileged");
        let output = folder.command().args(["serve", "--tcp", "echo=127.0.0.1:1"]).uid(65_534).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("127.0.0.1:1") && text.contains("1024"), "{text}");
    });
}

/// Help and version go to standard output, with exit code 0.
#[test]
fn help_and_version_are_printed() {
    guard(|| {
        for (args, part) in [
            (&["--help"][..], "lastorders serve"),
            (&["serve", "--help"], "--request-timeout SECONDS"),
            (&["client", "--help"], "--message TEXT"),
            (&["--version"], concat!("lastorders ", env!("CARGO_PKG_VERSION"))),
        ] {
            let output = run(args);
            assert_eq!(output.status.code(), Some(0));
            assert!(String::from_utf8(output.stdout).unwrap().contains(part), "{args:?}");
        }
    });
}

/// Several addresses, IPv4 and IPv6, each announced in order with the port that was bound; options from the
/// environment count, and those of the command line win.
#[test]
fn several_addresses_are_served_and_announced() {
    guard(|| {
        let v6 = TcpListener::bind("[::1]:0").is_ok();
        let second = if v6 { "echo=[::1]:0" } else { "echo=127.0.0.1:0" };
        let mut program = command();
        program.env("LASTORDERS_GRACE", "77").env("LASTORDERS_IDLE_TIMEOUT", "99");
        let mut daemon =
            Daemon::spawn(program.args(["serve", "--tcp", "echo=127.0.0.1:0", "--tcp", second, "--grace=66"]));
        for address in ["127.0.0.1:", if v6 { "[::1]:" } else { "127.0.0.1:" }] {
            let line = daemon.wait_for(&format!("PID:{}. Server started on {address}", daemon.pid()));
            let bound = line.split("started on ").nth(1).unwrap().split(' ').next().unwrap();
            assert!(line.ends_with("(echo)"));
            daemon.addresses.push(bound.parse().unwrap());
        }
        let mut clients: Vec<Client> = daemon.addresses.iter().map(|address| Client::greeted(*address)).collect();
        daemon.signal(Signal::SIGTERM);
        clients.iter_mut().for_each(|client| assert_eq!(client.rest(), b"SHUTDOWN"));
        daemon.wait_for("closing server in 66 seconds...");
        drop(clients);
        daemon.wait_ok();
    });
}

/// SIGUSR1 logs the counters on one line, at any log level that shows anything.
#[test]
fn sigusr1_logs_the_counters() {
    guard(|| {
        let mut daemon = Daemon::echo(&[]);
        let _client = Client::greeted(daemon.address());
        daemon.signal(Signal::SIGUSR1);
        let line = daemon.wait_for("accepted=1");
        assert!(line.contains("served=1") && line.contains("open=1") && line.contains("[WARN] "), "{line}");
    });
}

/// The client sends, logs the echo, and leaves with exit code 0 at the notice SHUTDOWN.
#[test]
fn the_client_leaves_at_the_notice() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--grace", "50"]);
        let address = daemon.address().to_string();
        let mut client = Daemon::spawn(command().args(["client", &address, "--every", "0.05"]));
        client.wait_for("Received \"hello world\"");
        client.wait_for("Received \"hello world\"");
        daemon.signal(Signal::SIGTERM);
        client.wait_for("Closing connection...");
        client.wait_ok();
        daemon.wait_ok();
    });
}

/// Without `--count` the client waits before its first message, as before each; with it the first one goes out at once.
#[test]
fn the_client_waits_before_it_sends() {
    guard(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        for (args, early) in [(&["--every", "1"][..], false), (&["--every", "60", "--count", "1"], true)] {
            let start = Instant::now();
            let mut client = Daemon::spawn(command().args(["client", &address]).args(args));
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = [0; 11];
            stream.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"hello world");
            let waited = start.elapsed();
            assert!(if early { waited < HANG / 2 } else { waited >= Duration::from_secs(1) }, "{args:?}: {waited:?}");
            stream.write_all(&bytes).unwrap();
            drop(stream);
            client.wait_ok();
        }
    });
}

/// A stream that the server ends after each reply is exit code 0, and one that it ends, or keeps, without the whole
/// reply is 1. A notice is 0 for a client that goes on for ever, and 1 for a probe that it leaves without reply.
#[test]
fn the_client_fails_without_a_whole_reply() {
    guard(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        for (args, reply, code) in [
            (&["--every=1"][..], "hello world", 0),
            (&["--every=1"], "hello", 1),
            (&["--every=1"], "SHUTDOWN", 0),
            (&["--count=1"], "hello world", 0),
            (&["--count=1"], "hello", 1),
            (&["--count=1"], "", 1),
            (&["--count=1"], "SHUTDOWN", 1),
            (&["--count=1", "--newline"], "READY\nHELLO\n", 0),
            (&["--count=1", "--newline"], "READY\nHEL", 1),
            (&["--count=1", "--newline"], "SHUTDOWN\n", 1),
        ] {
            let mut client = Daemon::spawn(command().args(["client", &address]).args(args));
            let mut stream = listener.accept().unwrap().0;
            stream.read_exact(&mut [0; 11]).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let status = client.wait();
            assert_eq!(status.code(), Some(code), "{args:?} {reply:?}: {:#?}", client.log);
            assert_eq!(code == 1, client.log.iter().any(|line| line.contains("its whole reply")), "{:#?}", client.log);
        }
        // A server that says nothing.
        let mut client = Daemon::spawn(command().args(["client", &address, "--count=1"]));
        let _stream = listener.accept().unwrap();
        assert_eq!(client.wait().code(), Some(1));
        client.expect_last("no whole reply");
    });
}

/// A full server answers BUSY, which is no reply to a probe, and no notice to a client that goes on for ever.
#[test]
fn the_client_fails_at_a_full_server() {
    guard(|| {
        let daemon = Daemon::serve(&["--tcp", "kv=127.0.0.1:0", "--connections", "1", "--when-full", "reject"]);
        let mut only = daemon.client();
        only.expect("READY\n");
        let address = daemon.address().to_string();
        for args in [&["--count", "1"][..], &["--every", "1"]] {
            for _ in 0..10 {
                let output = run(&[&["client", &address, "--newline", "--message", "GET a"], args].concat());
                let text = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(1), "{text}");
                assert!(text.contains("cannot receive from") && text.contains("the server is full"), "{text}");
            }
        }
    });
}

/// Without a wait between its messages the client still sees the notice.
#[test]
fn a_client_without_a_pause_sees_the_notice() {
    guard(|| {
        let mut daemon = Daemon::echo(&["--grace", "50"]);
        let address = daemon.address().to_string();
        let mut client = Daemon::spawn(command().args(["client", &address, "--every", "0"]));
        client.wait_for("Received \"hello world");
        daemon.signal(Signal::SIGTERM);
        client.wait_ok();
        daemon.wait_ok();
    });
}

/// One message and its reply say whether a service works, of bytes or of lines, with a greeting or without.
#[test]
fn the_client_is_a_probe_for_every_service() {
    guard(|| {
        let sockets = ["echo", "upper", "upper-lines", "command", "kv"].map(|name| format!("{name}=127.0.0.1:0"));
        let args: Vec<&str> = sockets.iter().flat_map(|socket| ["--tcp", socket]).collect();
        let daemon = Daemon::serve(&args);
        for (address, message, newline, reply) in [
            (0, "hello world", &[][..], "hello world"),
            (1, "hello world", &[], "HELLO WORLD"),
            (2, "hello world", &["--newline"], "HELLO WORLD\\n"),
            (3, "HAIKU", &["--newline"], "This file is not here.\\r\\n"),
            (4, "GET a", &["--newline"], "NOT_FOUND\\n"),
        ] {
            let address = daemon.addresses[address].to_string();
            let output = run(&[&["client", &address, "--count", "1", "--message", message], newline].concat());
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), text.contains(reply)), (Some(0), true), "{message}: {text}");
        }
    });
}

/// The client ends after `--count` messages, and says so when the server is gone.
#[test]
fn the_client_counts_and_reports_loss() {
    guard(|| {
        let daemon = Daemon::echo(&[]);
        let address = daemon.address().to_string();
        let output = run(&["client", &address, "--count", "2", "--every", "0.05", "--message", "tick"]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8(output.stderr).unwrap().matches("Received \"tick\"").count(), 2);
        drop(daemon);
        expect_error(&["client", &address], 1, &["cannot connect", &address]);
    });
}

/// With standard error closed, and its reader gone, the daemon serves on.
#[test]
fn a_closed_console_does_not_stop_the_server() {
    guard(|| {
        let mut program = command();
        let mut child = program.args(["serve", "--tcp", "echo=127.0.0.1:0"]).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut line = String::new();
        let mut reader = std::io::BufReader::new(stderr);
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        drop(reader);
        let address = started_on(&line);
        for _ in 0..3 {
            Client::greeted(address);
        }
        drop(TcpStream::connect(address).unwrap());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}
