//! What every test stands on: a hang guard, clients that give up, servers in this process, and the daemon.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lastorders::{Builder, Error, Server, ServerHandle, ShutdownReport};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// What nothing here takes, unless it hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// Runs a test on a thread of its own and fails it when it hangs.
pub fn guard(test: impl FnOnce() + Send + 'static) {
    guard_within(HANG, test);
}

/// The same for a test that takes longer by design.
pub fn guard_within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let named = thread::Builder::new().name(thread::current().name().unwrap_or_default().into());
    let thread = named.spawn(move || {
        test();
        let _ = done.send(());
    });
    if finished.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("the test hangs");
    }
    if let Err(panic) = thread.unwrap().join()
        && !panic.is::<Skipped>()
    {
        std::panic::resume_unwind(panic);
    }
}

/// What a test is skipped for with `CI=true` too, because the daemon is emulated, or static. All else CI installs.
const ALLOWED_SKIPS: [&str; 5] =
    [EMULATED_CALLS, EMULATED_INTERFACES, EMULATED_LIMITS, EMULATED_PROCESS, STATIC_PROGRAM];
pub const EMULATED_CALLS: &str = "the system calls would be the emulator's";
pub const EMULATED_INTERFACES: &str = "the emulator gives the kernel interface numbers in the wrong byte order";
pub const EMULATED_LIMITS: &str = "the limits would be the emulator's";
pub const EMULATED_PROCESS: &str = "what the process has would be the emulator's";
pub const STATIC_PROGRAM: &str = "a static program takes no library that shows it another clock";

/// Ends a guarded test that was skipped.
struct Skipped;

/// Skips the rest of a guarded test. The line goes past the test runner, which hides what a test prints that ends well;
/// tests/run.sh counts it.
pub fn skip(why: &str) -> ! {
    let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!is_ci || ALLOWED_SKIPS.contains(&why), "not to be skipped where CI=true: {why}");
    let _ = writeln!(io::stderr(), "skipped: {}: {why}", thread::current().name().unwrap_or_default());
    std::panic::resume_unwind(Box::new(Skipped));
}

/// Goes on where the daemon runs by itself, and skips the test where an emulator runs it.
pub fn need_native(why: &str) {
    if command().get_args().next().is_some() {
        skip(why);
    }
}

pub fn need_root() {
    if !geteuid().is_root() {
        skip("only root may do this");
    }
}

pub fn need_program(name: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join(name).exists()) {
        skip(&format!("{name} is not installed"));
    }
}

/// Sets a limit of a running process, in the words of prlimit(1), and as its user: root may not be allowed to.
#[track_caller]
pub fn prlimit(pid: u32, limit: &str) {
    need_program("prlimit");
    let user = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let status = Command::new("prlimit").args([format!("--pid={pid}"), format!("--{limit}")]).uid(user).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit --pid={pid} --{limit}");
}

/// Waits until something that no descriptor tells of is true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < HANG / 2, "never happened: {what}");
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// What the end of an error's text says in every C library: the words before it differ.
pub fn os_error(errno: Errno) -> String {
    format!("(os error {})", errno as i32)
}

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Asserts how long something takes: never less, and no more in one of five tries. What else the machine does only adds.
#[track_caller]
pub fn expect_took(range: Range<Duration>, mut once: impl FnMut() -> Duration) {
    let mut took = vec![];
    while took.last().is_none_or(|last| *last >= range.end) {
        assert!(took.len() < 5, "not within {:?}: {took:?}", range.end);
        took.push(once());
        assert!(*took.last().unwrap() >= range.start, "before {:?}: {took:?}", range.start);
    }
}

/// A multicast group with a UDP port that nothing is bound to.
pub fn group(address: &str) -> String {
    let free = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.local_addr()).expect("bind");
    format!("{address}:{}", free.port())
}

/// A client that fails its test rather than wait for ever.
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(HANG / 2)).unwrap();
        stream.set_write_timeout(Some(HANG / 2)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// A client that the server has seen: connected, and served once.
    pub fn greeted(address: SocketAddr) -> Client {
        let mut client = Client::connect(address);
        client.echo(b"hello world");
        client
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).expect("send");
    }

    /// One `recv`, as it comes.
    pub fn recv(&mut self) -> Vec<u8> {
        let mut bytes = [0; 65_536];
        let count = self.0.read(&mut bytes).expect("recv");
        bytes[..count].to_vec()
    }

    /// Receives exactly these bytes.
    #[track_caller]
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut got = vec![0; bytes.len()];
        let outcome = self.0.read_exact(&mut got);
        assert!(outcome.is_ok() && got == bytes, "{outcome:?}: {:?}", String::from_utf8_lossy(&got));
    }

    #[track_caller]
    pub fn echo(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.expect(bytes);
    }

    /// Everything until the end of input.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("read to the end");
        bytes
    }

    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(String::from_utf8_lossy(&self.rest()), "");
    }

    /// Waits for the connection's end, be it a close or a reset.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        match self.0.read_to_end(&mut vec![]) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not gone: {error}"),
            _ => {}
        }
    }

    /// Sends without ever reading, until both directions have been full for a while.
    pub fn stuff(&mut self) {
        self.0.set_nonblocking(true).unwrap();
        let mut refused = 0;
        wait_until("nothing more is taken", || {
            refused = if self.0.write(&[b'x'; 65_536]).is_ok() { 0 } else { refused + 1 };
            refused == 200
        });
        self.0.set_nonblocking(false).unwrap();
    }

    pub fn finish(&mut self) {
        self.0.shutdown(Shutdown::Write).expect("shutdown");
    }
}

/// Every one of eight slots taken, one of their clients asking without pause, and four more in the backlog.
pub struct FullServer {
    parked: Vec<Client>,
    waiting: Vec<Client>,
    busy: JoinHandle<Vec<u8>>,
}

impl FullServer {
    pub const SLOTS: usize = 8;

    /// Fills an echo server that has that many slots.
    pub fn fill(address: SocketAddr) -> FullServer {
        let mut parked: Vec<Client> = (0..Self::SLOTS).map(|_| Client::greeted(address)).collect();
        let waiting = (0..4).map(|_| Client::connect(address)).collect();
        let mut busy = parked.pop().unwrap();
        let busy = thread::spawn(move || {
            loop {
                busy.send("hello world");
                let received = busy.recv();
                if received != b"hello world" {
                    return received;
                }
            }
        });
        FullServer { parked, waiting, busy }
    }

    /// Every client gets the notice, and leaves.
    pub fn expect_notice(self) {
        let told = self.busy.join().unwrap();
        assert!(told.ends_with(b"SHUTDOWN"), "{told:?}");
        for mut client in self.parked.into_iter().chain(self.waiting) {
            assert_eq!(client.rest(), b"SHUTDOWN");
        }
    }
}

/// A server in this process.
pub struct Running {
    pub address: SocketAddr,
    pub handle: ServerHandle,
    thread: JoinHandle<Result<ShutdownReport, Error>>,
}

impl Running {
    pub fn start(builder: Builder) -> Running {
        let server = builder.listen("127.0.0.1:0").unwrap().build().expect("build");
        Running::run(server)
    }

    pub fn run(server: Server) -> Running {
        let address = server.addresses().next().unwrap();
        let handle = server.handle();
        Running { address, handle, thread: thread::spawn(move || server.run()) }
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// The report, once the server has ended.
    pub fn report(self) -> ShutdownReport {
        self.thread.join().expect("the server panicked").expect("the server failed")
    }

    pub fn stop(self) -> ShutdownReport {
        self.handle.close();
        self.report()
    }
}

/// The address of the first socket that a log announces.
#[track_caller]
pub fn started_on(log: &str) -> SocketAddr {
    let (_, rest) = log.split_once("Server started on ").expect("an address");
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// The real daemon, killed when it is dropped.
pub struct Daemon {
    pub child: Child,
    lines: Receiver<String>,
    pub addresses: Vec<SocketAddr>,
    pub log: Vec<String>,
}

/// The daemon's command line: `TESTED_DAEMON` names another build of it, with an emulator before it if need be.
pub fn command() -> Command {
    let words = std::env::var("TESTED_DAEMON").unwrap_or(env!("CARGO_BIN_EXE_lastorders").into());
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Daemon {
    /// Starts `lastorders serve` and waits until every socket is announced.
    pub fn serve(args: &[&str]) -> Daemon {
        let sockets = args.iter().filter(|arg| matches!(**arg, "--tcp" | "--udp" | "--multicast")).count();
        let mut daemon = Daemon::spawn(command().arg("serve").args(args));
        for _ in 0..sockets {
            daemon.started();
        }
        daemon
    }

    /// Echo on a free port of 127.0.0.1.
    pub fn echo(args: &[&str]) -> Daemon {
        Daemon::serve(&[&["--tcp", "echo=127.0.0.1:0"], args].concat())
    }

    pub fn spawn(command: &mut Command) -> Daemon {
        let mut child = command.spawn().expect("start the daemon");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Daemon { child, lines, addresses: vec![], log: vec![] }
    }

    /// A server whose standard error is not read here: this file has its log.
    pub fn silent(command: &mut Command, log: &str) -> Daemon {
        let child = command.spawn().expect("start the daemon");
        let mut daemon = Daemon { child, lines: mpsc::channel().1, addresses: vec![], log: vec![] };
        let sockets = command.get_args().filter(|arg| *arg == "--tcp").count();
        wait_until("the server has started", || {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines =
                text.split_inclusive('\n').filter(|line| line.contains("Server started on ") && line.ends_with('\n'));
            daemon.addresses = lines.map(started_on).collect();
            daemon.addresses.len() == sockets
        });
        daemon
    }

    /// Waits until the next socket is announced.
    #[track_caller]
    pub fn started(&mut self) -> SocketAddr {
        let address = started_on(&self.wait_for("Server started on "));
        self.addresses.push(address);
        address
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("signal the daemon");
    }

    /// The next log line that contains `part`; those before it are kept in `log`.
    #[track_caller]
    pub fn wait_for(&mut self, part: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(HANG / 2) else {
                panic!("no line with {part:?} among {:#?}", self.log);
            };
            self.log.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The next log line that contains `part`, or `None` when the daemon has ended without it.
    pub fn wait_for_or_end(&mut self, part: &str) -> Option<String> {
        while let Ok(line) = self.lines.recv_timeout(HANG / 2) {
            self.log.push(line.clone());
            if line.contains(part) {
                return Some(line);
            }
        }
        None
    }

    /// Waits for the end, and keeps the rest of the log.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("wait for the daemon");
        self.log.extend(self.lines.iter());
        status
    }

    #[track_caller]
    pub fn expect_last(&self, part: &str) {
        assert!(self.log.last().is_some_and(|line| line.contains(part)), "{part:?}: {:#?}", self.log);
    }

    /// Waits for the end with exit code 0.
    #[track_caller]
    pub fn wait_ok(&mut self) {
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{:#?}", self.log);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
