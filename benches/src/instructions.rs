//! Instructions per request, counted by callgrind, or by QEMU for a daemon of another architecture: a figure that noise
//! does not move.
//!
//! The daemon is run twice, with different numbers of requests; the difference of the counts over that of the numbers
//! is what a request costs, without start and end. The kernel's share is not in it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::load::Script;
use crate::server::{Server, Service, daemon, free_port};

/// Requests of the two runs, all clients together.
const RUNS: [usize; 2] = [1_920, 11_520];

/// What is counted.
pub struct Counted {
    pub name: &'static str,
    service: Service,
    clients: usize,
}

pub const ALL: [Counted; 4] = [
    Counted { name: "echo, 1 client", service: Service::Echo, clients: 1 },
    Counted { name: "echo, waves of 4 clients", service: Service::Echo, clients: 4 },
    Counted { name: "echo, waves of 64 clients", service: Service::Echo, clients: 64 },
    Counted { name: "kv GET, 1 client", service: Service::Kv, clients: 1 },
];

/// The start of a command line that the daemon's continues. The program runs the daemon, and says
/// `Collected : COUNT` on standard error once the daemon has ended.
pub struct Counter(Vec<OsString>);

impl Counter {
    pub fn callgrind() -> Counter {
        Counter(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"].map(OsString::from).into())
    }

    /// A program with its arguments, or nothing when there is no program.
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Option<Counter> {
        let words = Vec::from_iter(words);
        (!words.is_empty()).then_some(Counter(words))
    }

    /// True when the program is here.
    pub fn is_installed(&self) -> bool {
        let status = Command::new(&self.0[0]).arg("--version").stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// The command that counts the daemon.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).arg(daemon());
        command
    }
}

impl Counted {
    /// Instructions per request, of all threads.
    pub fn measure(&self, counter: &Counter) -> io::Result<f64> {
        let [few, many] = RUNS.map(|requests| self.run(requests, counter));
        Ok((many? as f64 - few? as f64) / (RUNS[1] - RUNS[0]) as f64)
    }

    /// Instructions of a whole run.
    fn run(&self, requests: usize, counter: &Counter) -> io::Result<u64> {
        let port = free_port(self.service)?;
        let word = if self.service == Service::Kv { "kv" } else { "echo" };
        let log = std::env::temp_dir().join(format!("lastorders-instructions-{port}.log"));
        let mut command = counter.command();
        command.args(["serve", "--tcp", &format!("{word}=127.0.0.1:{port}"), "--log-level", "off"]);
        command.stderr(File::create(&log)?);
        let mut server = Server::launch(command, port, self.service)?;

        let script = if self.service == Service::Kv { Script::kv(0) } else { Script::echo() };
        let clients = (0..self.clients).map(|_| TcpStream::connect(server.address)).collect::<io::Result<Vec<_>>>()?;
        for exchange in &script.opening {
            wave(&clients, &exchange.request, &exchange.reply)?;
        }
        let exchange = &script.body[0];
        for _ in 0..requests / self.clients {
            wave(&clients, &exchange.request, &exchange.reply)?;
        }
        drop(clients);
        server.terminate()?;
        server.wait()?;
        let text = fs::read_to_string(&log)?;
        fs::remove_file(&log)?;
        let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
        count.ok_or_else(|| io::Error::other(format!("the daemon's instructions were not counted: {text}")))
    }
}

/// All ask, then all read their answers.
fn wave(clients: &[TcpStream], request: &[u8], reply: &[u8]) -> io::Result<()> {
    for mut client in clients {
        client.write_all(request)?;
    }
    let mut received = vec![0; reply.len()];
    for mut client in clients {
        client.read_exact(&mut received)?;
        if received != reply {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(())
}
