//! Steady state allocates nothing: counted by the allocator of a program that runs nothing else.
//!
//! The program is its own daemon too: with the words of a command line it runs what the command line says.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use lastorders::builtin::{Echo, Kv, Time};
use lastorders::daemon::Daemon;
use lastorders::{Flow, Lines, Server};

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the ones that are asked for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Formats each line, and keeps none.
struct Discarding;

impl log::Log for Discarding {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        assert_eq!(record.target(), "lastorders", "the target names the library, not a file of it");
        print(&mut [0; 4_096], *record.args());
    }

    fn flush(&self) {}
}

fn ask(client: &mut TcpStream) {
    let mut echo = [0; 11];
    client.write_all(b"hello world").unwrap();
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello world");
}

/// Sets a key to a value of one of many lengths, gets it, sets another, deletes the first: all in one go.
fn ask_kv(client: &mut TcpStream, index: usize) {
    let (key, width) = (index % 10, index * 7 % 100);
    let (mut request, mut answer, mut got) = ([0; 256], [0; 256], [0; 256]);
    let count = print(&mut request, format_args!("SET {key} {index:0width$}\nGET {key}\nSET a b\nDEL {key}\n"));
    client.write_all(&request[..count]).unwrap();
    let count = print(&mut answer, format_args!("OK\n{index:0width$}\nOK\nDELETED\n"));
    client.read_exact(&mut got[..count]).unwrap();
    assert_eq!(got[..count], answer[..count]);
}

/// Formats without allocating. Returns the length.
fn print(mut into: &mut [u8], text: std::fmt::Arguments<'_>) -> usize {
    let room = into.len();
    into.write_fmt(text).unwrap();
    room - into.len()
}

fn ask_time(socket: &UdpSocket) {
    let mut reply = [0; 128];
    socket.send(br#"{"type": "time"}"#).unwrap();
    let count = socket.recv(&mut reply).unwrap();
    assert!(reply[..count].starts_with(br#"{"time": ""#));
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        let calls =
            || Lines::new(|_, output| writeln!(output, "{}", CALLS.load(Ordering::Relaxed)).map(|()| Flow::Continue));
        return Daemon::new().tcp("echo", || Echo).tcp("calls", calls).main();
    }
    steady_state_allocates_nothing();
    the_daemon_allocates_nothing_at_its_own_log_level();
    ExitCode::SUCCESS
}

/// The daemon as a board has it, at level info, with a log file: after warm-up, 1,000 connections with one request each
/// allocate nothing in it, though each has its lines in the log.
fn the_daemon_allocates_nothing_at_its_own_log_level() {
    let log = std::env::temp_dir().join(format!("lastorders-allocations-{}", std::process::id()));
    let mut daemon = Command::new(std::env::current_exe().unwrap());
    daemon.args(["serve", "--tcp", "echo=127.0.0.1:0", "--tcp", "calls=127.0.0.1:0", "--log-file"]).arg(&log);
    // It stops when this process ends, in whatever way.
    daemon.arg("--console").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut daemon = daemon.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let mut address = || -> SocketAddr {
        let line = lines.next().unwrap().unwrap();
        line.split_once("started on ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    };
    let (echo, calls) = (address(), address());
    let reading = std::thread::spawn(move || lines.map_while(Result::ok).count());
    let mut calls = BufReader::new(TcpStream::connect(calls).unwrap());
    let mut count = || -> u64 {
        calls.get_mut().write_all(b"\n").unwrap();
        let mut line = String::new();
        calls.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    };
    let mut round = |connections| {
        let before = count();
        (0..connections).for_each(|_| ask(&mut TcpStream::connect(echo).unwrap()));
        count() - before
    };
    let warm_up = round(100);
    assert_eq!(round(1_000), 0, "{warm_up} in the warm-up");
    drop((daemon.stdin.take(), calls));
    assert!(daemon.wait().unwrap().success());
    assert!(reading.join().unwrap() > 2_000, "each connection is logged");
    std::fs::remove_file(log).unwrap();
}

/// At level info, after warm-up, 10,000 requests on open connections and 1,000 connections with one request each allocate
/// nothing, nor do 40,000 requests to set, overwrite, get and delete and 10,000 datagrams, in the server and in
/// this client alike.
fn steady_state_allocates_nothing() {
    let builder = Server::builder(Echo).per_client(64).listen("127.0.0.1:0").unwrap();
    let kv = Kv::new(16, 1_024).unwrap();
    let server = builder.service(kv).listen("127.0.0.1:0").unwrap();
    let server = server.datagram(Time::new()).bind("127.0.0.1:0").unwrap().build().unwrap();
    let address = server.addresses().next().unwrap();
    let kv_address = server.addresses().nth(1).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.addresses().nth(2).unwrap()).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let handle = server.handle();
    log::set_logger(&Discarding).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let running = std::thread::spawn(move || server.run().unwrap());

    let mut clients: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut store = TcpStream::connect(kv_address).unwrap();
    store.read_exact(&mut [0; 6]).unwrap();
    let mut round = |requests: usize, connections: usize| {
        let before = CALLS.load(Ordering::Relaxed);
        for index in 0..requests {
            ask(&mut clients[index % 8]);
            ask_kv(&mut store, index);
            ask_time(&socket);
        }
        for _ in 0..connections {
            ask(&mut TcpStream::connect(address).unwrap());
        }
        CALLS.load(Ordering::Relaxed) - before
    };
    let warm_up = round(100, 100);
    assert_eq!(round(10_000, 1_000), 0, "{warm_up} in the warm-up");

    handle.close();
    let report = running.join().unwrap();
    assert!(report.closed >= 9, "{report}");
    assert!(CALLS.load(Ordering::Relaxed) > 0, "the counter counts");
}
