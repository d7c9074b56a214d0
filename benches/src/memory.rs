//! What a server's memory is with so many clients, each of which has been served once.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::rounds::median;
use crate::server::{Program, Server, Service, Size};

pub const CLIENTS: [usize; 4] = [0, 128, 1_000, 4_000];

const HELLO: &[u8] = b"hello world";
/// All clients together are given that long.
const TIMEOUT: Duration = Duration::from_secs(3);

/// One server with that many clients.
#[derive(Clone, Debug)]
pub struct Held {
    pub program: Program,
    pub clients: usize,
    /// KiB; `None` when it could not be measured.
    pub memory: Option<f64>,
    /// Clients that were not answered.
    pub starved: usize,
}

/// Each server with each number of clients; the memory is the median of some rounds.
pub fn measure(programs: &[Program], rounds: usize) -> Vec<Held> {
    let mut all = Vec::new();
    for program in programs.iter().copied().filter(|program| program.serves(Service::Echo)) {
        for clients in CLIENTS {
            let taken: Vec<_> = (0..rounds).filter_map(|_| once(program, clients).ok()).collect();
            let memory = (!taken.is_empty()).then(|| median(taken.iter().map(|(memory, _)| *memory as f64)));
            let starved = taken.iter().map(|(_, starved)| *starved).max().unwrap_or(clients);
            all.push(Held { program, clients, memory, starved });
        }
    }
    all
}

fn once(program: Program, clients: usize) -> io::Result<(u64, usize)> {
    let server = Server::start(program, Service::Echo, Size::for_clients(clients))?;
    let mut sockets = Vec::with_capacity(clients);
    for _ in 0..clients {
        let mut socket = TcpStream::connect(server.address)?;
        socket.write_all(HELLO)?;
        sockets.push(socket);
    }
    let deadline = Instant::now() + TIMEOUT;
    let starved = sockets.iter().filter(|socket| !answered(socket, deadline)).count();
    Ok((server.memory("VmRSS")?, starved))
}

fn answered(mut socket: &TcpStream, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    // The shortest time-out takes 10 ms, which thousands that starve would each wait for.
    let limited = if left.is_zero() { socket.set_nonblocking(true) } else { socket.set_read_timeout(Some(left)) };
    let mut reply = [0; HELLO.len()];
    limited.is_ok() && socket.read_exact(&mut reply).is_ok() && reply == *HELLO
}
