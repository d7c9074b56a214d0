//! A daemon under observation: what /proc(5) tells of it, what it counts, and what must hold whatever was done to it.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, Daemon, HANG, wait_until};

/// Every way in which a connection ends, as the counters call them.
const ENDS: [&str; 13] = [
    "left",
    "finished",
    "timed_out_idle",
    "timed_out_request",
    "timed_out_write",
    "resets",
    "pipes",
    "errors",
    "too_long",
    "panics",
    "shed",
    "drained",
    "forced",
];
/// What "at once" is on a machine that runs everything else at the same time; a second of it is the longest back-off.
const AT_ONCE: Duration = Duration::from_secs(8);
/// KiB that a daemon may have more than at its baseline: buffers and stacks that were not touched before.
const TOUCHED: u64 = 2_048;

/// Threads of a process.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Processor time that a process has used.
pub fn spent(pid: u32) -> Duration {
    // Fields 14 and 15, in hundredths of a second.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Resident KiB of a process; `VmHWM` is the most that it ever had, `VmRSS` what it has.
pub fn resident(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The counters of a server by name, asked for at its control socket.
pub struct Figures(HashMap<String, u64>);

impl Figures {
    pub fn parse(text: &str) -> Figures {
        let pair = |line: &str| line.split_once(' ').map(|(name, value)| (name.to_string(), value.parse().unwrap()));
        Figures(text.lines().filter_map(pair).collect())
    }

    pub fn of(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no counter {name}"))
    }

    fn ended(&self) -> u64 {
        ENDS.iter().map(|name| self.of(name)).sum()
    }

    /// Every connection that was accepted is open or ended in exactly one way.
    #[track_caller]
    pub fn expect_balance(&self) {
        assert_eq!(self.of("accepted"), self.of("open") + self.ended(), "{:?}", self.0);
    }
}

/// The real daemon with echo on its first address and a control socket.
pub struct Patient {
    pub daemon: Daemon,
    workers: usize,
    control: PathBuf,
    baseline: (usize, u64),
}

impl Patient {
    pub fn start(workers: usize, args: &[&str]) -> Patient {
        Patient::admit(workers, args, Daemon::echo)
    }

    /// One that was started with other services, or under a limit.
    pub fn admit(workers: usize, args: &[&str], start: impl FnOnce(&[&str]) -> Daemon) -> Patient {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lastorders-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let control = std::env::temp_dir().join(name);
        let count = workers.to_string();
        let own = ["--workers", &count, "--control", control.to_str().unwrap()];
        let daemon = start(&[&own[..], args].concat());
        let mut patient = Patient { daemon, workers, control, baseline: (0, 0) };
        patient.warm_up();
        patient
    }

    /// Takes the baseline after every worker has served a client.
    fn warm_up(&mut self) {
        let mut clients: Vec<Client> = (0..self.workers).map(|_| self.daemon.client()).collect();
        for _ in 0..4 {
            clients.iter_mut().for_each(|client| client.send(b"hello world"));
            clients.iter_mut().for_each(|client| client.expect(b"hello world"));
        }
        drop(clients);
        self.wait_empty();
        self.baseline = (descriptors(self.pid()), resident(self.pid(), "VmRSS"));
    }

    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub fn address(&self) -> SocketAddr {
        self.daemon.address()
    }

    pub fn figures(&self) -> Figures {
        let mut stream = UnixStream::connect(&self.control).expect("connect to the control socket");
        stream.set_read_timeout(Some(HANG / 2)).unwrap();
        stream.write_all(b"status\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Figures::parse(&text)
    }

    /// The same while clients come and go: what is out of balance came or went meanwhile, or each thread is at one of them.
    #[track_caller]
    pub fn expect_balance_in_motion(&self) {
        let [before, now, after] = std::array::from_fn(|_| self.figures());
        let moved = after.of("accepted") - before.of("accepted") + after.ended() - before.ended();
        let off = now.of("accepted").abs_diff(now.of("open") + now.ended());
        assert!(off <= moved + self.workers as u64 + 1, "{off} of {moved}: {:?}", now.0);
    }

    fn wait_empty(&self) {
        wait_until("all have left", || self.figures().of("open") == 0);
    }

    /// A new client is served at once, all workers are there, nothing is left over, and the counters balance.
    #[track_caller]
    pub fn expect_recovered(&self, after: &str) {
        self.wait_empty();
        let start = Instant::now();
        let client = Client::greeted(self.address());
        assert!(start.elapsed() < AT_ONCE, "{after}: a new client waited {:?}", start.elapsed());
        let figures = self.figures();
        figures.expect_balance();
        assert_eq!(figures.of("open"), 1, "{after}");
        drop(client);
        self.wait_empty();
        let pid = self.pid();
        assert_eq!(threads(pid), self.workers + 1, "{after}");
        let (open, held) = self.baseline;
        wait_until("descriptors are back at the baseline", || descriptors(pid) <= open);
        let now = resident(pid, "VmRSS");
        assert!(now <= held + TOUCHED, "{after}: {now} KiB resident, {held} before");
        self.figures().expect_balance();
    }

    /// SIGTERM tells every client, and the daemon exits with 0 as soon as they have left.
    #[track_caller]
    pub fn expect_good_end(mut self) {
        let mut clients: Vec<Client> = (0..4).map(|_| Client::greeted(self.address())).collect();
        let start = Instant::now();
        self.daemon.signal(Signal::SIGTERM);
        for client in &mut clients {
            assert_eq!(client.rest(), b"SHUTDOWN");
        }
        drop(clients);
        self.daemon.wait_ok();
        // The default grace of 5 s, and one more.
        assert!(start.elapsed() < Duration::from_secs(6) + AT_ONCE, "{:?}", start.elapsed());
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.control);
    }
}
