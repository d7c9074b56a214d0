//! The soak: a million short connections and ten million requests leave no trace in memory or descriptors.
//!
//! It takes minutes, so it is run by `make soak` only. `SOAK_PARTS` divides both numbers.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

use crate::support::{Client, Daemon, command, guard_within};
use crate::vitals::{Patient, descriptors, resident};

const CONNECTIONS: u32 = 1_000_000;
const REQUESTS: u32 = 10_000_000;
const CLIENTS: u32 = 8;
/// One in so many connections is closed in an orderly way.
const ORDERLY: u32 = 32;
/// Requests that a client has under way at a time.
const PIPELINE: u32 = 50;
/// Measurements on the way.
const STAGES: u32 = 10;
/// KiB that the last stage may have more than the first.
const FLAT: u64 = 256;

/// What is resident and open now, printed on the way.
fn measure(patient: &Patient, what: &str, start: Instant) -> (u64, usize) {
    let (held, open) = (resident(patient.pid(), "VmRSS"), descriptors(patient.pid()));
    println!("{:>4} s  {what}: {held} KiB resident, {open} descriptors", start.elapsed().as_secs());
    (held, open)
}

/// One request on each connection, which the client closes: most of them with a reset, for of every other one the
/// machine keeps a trace for a minute or two (TIME_WAIT, connection tracking), and has no place for a million.
fn connect_often(to: SocketAddr, count: u32) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..count {
        // All of 127.0.0.0/8 is this machine: one address has too few ports for those that wait in TIME_WAIT.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = (number % 250 + 1) as u8;
        let mut stream = TcpStream::connect((Ipv4Addr::new(127, 0, 0, host), to.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(b"hello world\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello world\n");
        if !number.is_multiple_of(ORDERLY) {
            setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
    }
}

/// Lines on one connection, that many under way at a time, each answered.
fn ask_often(to: SocketAddr, count: u32) {
    let mut client = Client::connect(to);
    for _ in 0..count / PIPELINE {
        client.send("hello world\n".repeat(PIPELINE as usize));
        client.expect("HELLO WORLD\n".repeat(PIPELINE as usize));
    }
}

fn in_stages(patient: &Patient, what: &str, total: u32, deed: impl Fn(u32) + Sync) {
    let start = Instant::now();
    let mut first = None;
    for stage in 1..=STAGES {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| deed(total / STAGES / CLIENTS));
            }
        });
        patient.expect_recovered(what);
        let now = measure(patient, &format!("{} {what}", total / STAGES * stage), start);
        let (held, open) = *first.get_or_insert(now);
        assert!(now.0 <= held + FLAT && now.1 <= open, "{now:?} after {held} KiB and {open} descriptors");
    }
}

fn log() -> PathBuf {
    std::env::temp_dir().join(format!("lastorders-soak-{}", std::process::id()))
}

/// A daemon whose millions of lines go to a capped file, and nowhere else.
fn start(args: &[&str]) -> Daemon {
    let mut serve = command();
    serve.args(["serve", "--tcp", "echo=0.0.0.0:0", "--tcp", "upper-lines=0.0.0.0:0", "--log-file"]).arg(log());
    let mut daemon = Daemon::silent(serve.args(args).stderr(Stdio::null()), log().to_str().unwrap());
    daemon.addresses.iter_mut().for_each(|address| address.set_ip(Ipv4Addr::LOCALHOST.into()));
    daemon
}

#[test]
#[ignore = "takes minutes: make soak"]
fn a_million_connections_and_ten_million_requests_leave_no_trace() {
    guard_within(Duration::from_secs(7_200), || {
        let parts: u32 = std::env::var("SOAK_PARTS").map_or(1, |text| text.parse().unwrap());
        let patient = Patient::admit(4, &[], start);
        let (echo, lines) = (patient.daemon.addresses[0], patient.daemon.addresses[1]);
        let before = patient.figures().of("accepted");
        in_stages(&patient, "connections", CONNECTIONS / parts, |count| connect_often(echo, count));
        assert!(patient.figures().of("accepted") - before >= u64::from(CONNECTIONS / parts / 100 * 99));
        in_stages(&patient, "requests", REQUESTS / parts, |count| ask_often(lines, count));
        patient.expect_good_end();
        for old in ["", ".1"] {
            let _ = fs::remove_file(format!("{}{old}", log().display()));
        }
    });
}
