//! One server under test: a child process, the port it serves, and what the kernel says of its cost.
//!
//! It is started for one measurement and ended by its own process id, so that peak memory and processor time are
//! that measurement's alone. Whether it serves is found out with a connection, or a datagram, not with a wait.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;

/// What a time request is.
pub const TIME_REQUEST: &[u8] = br#"{"type": "time"}"#;

/// How long a server may take to start.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A program to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    Lastorders,
    Tokio,
    Epoll,
    Threads,
    Pool,
    PythonThreads,
    PythonPool,
    Memcached,
}

/// What it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Echo,
    Kv,
    Time,
}

impl Program {
    pub const ALL: [Program; 8] = [
        Program::Lastorders,
        Program::Tokio,
        Program::Epoll,
        Program::Threads,
        Program::Pool,
        Program::PythonThreads,
        Program::PythonPool,
        Program::Memcached,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Program::Lastorders => "lastorders",
            Program::Tokio => "tokio",
            Program::Epoll => "epoll loop",
            Program::Threads => "thread each",
            Program::Pool => "threadpool",
            Program::PythonThreads => "Python threads",
            Program::PythonPool => "Python pool",
            Program::Memcached => "memcached",
        }
    }

    pub fn serves(self, service: Service) -> bool {
        match service {
            Service::Echo => self != Program::Memcached,
            Service::Kv => matches!(self, Program::Lastorders | Program::Tokio | Program::Memcached),
            Service::Time => matches!(self, Program::Lastorders | Program::Tokio | Program::Threads),
        }
    }

    /// True when it can be run here.
    pub fn is_installed(self) -> bool {
        let answers = |program: &str, option: &str| {
            let mut command = Command::new(program);
            command
                .arg(option)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        match self {
            Program::Memcached => answers("memcached", "-h"),
            Program::PythonThreads | Program::PythonPool => answers("python3", "--version"),
            Program::Lastorders => daemon().is_file(),
            _ => true,
        }
    }

    fn command(self, service: Service, port: u16, size: Size) -> Command {
        let (port, workers) = (port.to_string(), size.workers.to_string());
        let word = match service {
            Service::Echo => "echo",
            Service::Kv => "kv",
            Service::Time => "time",
        };
        let peer = |name: &str| {
            let mut command = Command::new(sibling(name));
            command.args([word, &port, &workers]);
            command
        };
        let python = |kind: &str| {
            let mut command = Command::new("python3");
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers.py"));
            command.args([kind, word, &port, &workers]);
            command
        };
        match self {
            Program::Lastorders => {
                let mut command = Command::new(daemon());
                let transport = if service == Service::Time { "--udp" } else { "--tcp" };
                command.args(["serve", transport, &format!("{word}=127.0.0.1:{port}"), "--workers", &workers]);
                command.args(["--connections", &size.connections.to_string(), "--log-level", "warn"]);
                command
            }
            Program::Tokio => peer("peer-tokio"),
            Program::Epoll => peer("peer-epoll"),
            Program::Threads => peer("peer-threads"),
            Program::Pool => peer("peer-pool"),
            Program::PythonThreads => python("threading"),
            Program::PythonPool => python("pool"),
            Program::Memcached => {
                let mut command = Command::new("memcached");
                command.args(["-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", &port, "-t", &workers]);
                command.args(["-c", &(size.connections + 64).to_string()]);
                command
            }
        }
    }
}

/// How large a server is made, as far as it can be set.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub workers: usize,
    /// The most connections that it will be offered.
    pub connections: usize,
}

impl Size {
    /// Four workers, and the daemon's default connections where they are enough.
    pub fn for_clients(clients: usize) -> Size {
        Size { workers: 4, connections: clients.max(128) }
    }
}

/// A running server. Dropping it ends it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// When the program cannot be run, or does not answer in time.
    pub fn start(program: Program, service: Service, size: Size) -> io::Result<Server> {
        let port = free_port(service)?;
        let mut command = program.command(service, port, size);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Server::launch(command, port, service)
    }

    /// Runs a command that serves on a port, and waits until it answers.
    pub(crate) fn launch(mut command: Command, port: u16, service: Service) -> io::Result<Server> {
        command.stdin(Stdio::null());
        let child = command.spawn().map_err(|error| io::Error::other(format!("cannot run {command:?}: {error}")))?;
        let mut server = Server { child, address: (Ipv4Addr::LOCALHOST, port).into() };
        let deadline = Instant::now() + TIMEOUT;
        while !server.answers(service) {
            if Instant::now() > deadline || server.child.try_wait()?.is_some() {
                return Err(io::Error::other(format!("{command:?} does not answer")));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(server)
    }

    fn answers(&self, service: Service) -> bool {
        if service != Service::Time {
            return TcpStream::connect(self.address).is_ok();
        }
        let asked = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            socket.connect(self.address)?;
            socket.send(TIME_REQUEST)?;
            socket.recv(&mut [0; 64])
        };
        asked().is_ok()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Processor time used so far by all of its threads, those that have ended included (clock_getcpuclockid(3)).
    pub fn cpu(&self) -> io::Result<Duration> {
        Ok(ClockId::pid_cpu_clock_id(self.pid())?.now()?.into())
    }

    /// A line of `/proc/PID/status` in KiB: `VmHWM` is the most memory it ever had, `VmRSS` what it has now.
    pub fn memory(&self, line: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let number = value.and_then(|text| text.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| io::Error::other(format!("no {line} of the server: it has ended")))
    }

    /// Asks it to end, as an init system would.
    pub fn terminate(&self) -> io::Result<()> {
        Ok(kill(self.pid(), Signal::SIGTERM)?)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> io::Result<()> {
        self.child.wait().map(|_| ())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that is free: the kernel does not give the same one out again soon.
pub(crate) fn free_port(service: Service) -> io::Result<u16> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    Ok(match service {
        Service::Time => UdpSocket::bind(any)?.local_addr()?.port(),
        _ => TcpListener::bind(any)?.local_addr()?.port(),
    })
}

/// A program built beside this one.
fn sibling(name: &str) -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

/// The daemon as it is released, or the one that `TESTED_DAEMON` names.
pub fn daemon() -> PathBuf {
    let released = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/lastorders");
    std::env::var_os("TESTED_DAEMON").map_or_else(released, PathBuf::from)
}
