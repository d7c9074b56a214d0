//! How long lastorders takes to call last orders: from SIGTERM to the last of a thousand clients having its notice,
//! and, as they leave when all have it, to the end of the process.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::rounds::median;
use crate::server::{Program, Server, Service, Size};

pub const CLIENTS: usize = 1_000;

const HELLO: &[u8] = b"hello world";
const NOTICE: &[u8] = b"SHUTDOWN";
/// The notice keeps clear of replies that have just been sent, for 20 ms: these clients have been quiet for longer.
const QUIET: Duration = Duration::from_millis(100);
/// The grace time is 5 s.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Milliseconds since the signal.
#[derive(Clone, Copy, Debug)]
pub struct Notices {
    pub first: f64,
    pub last: f64,
    pub exit: f64,
    /// Clients that had no notice, or something else.
    pub missed: usize,
}

/// Medians of some rounds; the missed ones are those of the worst.
pub fn measure(rounds: usize) -> io::Result<Notices> {
    let all = (0..rounds).map(|_| once()).collect::<io::Result<Vec<_>>>()?;
    let middle = |field: fn(&Notices) -> f64| median(all.iter().map(field));
    Ok(Notices {
        first: middle(|notices| notices.first),
        last: middle(|notices| notices.last),
        exit: middle(|notices| notices.exit),
        missed: all.iter().map(|notices| notices.missed).max().unwrap_or(CLIENTS),
    })
}

fn once() -> io::Result<Notices> {
    let mut server = Server::start(Program::Lastorders, Service::Echo, Size::for_clients(CLIENTS))?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mut socket = TcpStream::connect(server.address)?;
        socket.write_all(HELLO)?;
        socket.read_exact(&mut [0; HELLO.len()])?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, number as u64))?;
        clients.push(Some(socket));
    }
    thread::sleep(QUIET);

    let began = Instant::now();
    server.terminate()?;
    let since = || began.elapsed().as_secs_f64() * 1e3;
    let (mut first, mut last, mut told) = (None, 0.0, 0);
    let mut left = CLIENTS;
    // They leave when all have it: on machines of their own their leaving would not hold up each other's notice.
    let mut leaving = Vec::with_capacity(CLIENTS);
    let mut events = [EpollEvent::empty(); 64];
    while left > 0 && began.elapsed() < TIMEOUT {
        let found = match epoll.wait(&mut events, 100u16) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        for event in &events[..found] {
            let Some(mut socket) = clients[event.data() as usize].take() else { continue };
            let mut text = [0; NOTICE.len()];
            left -= 1;
            if socket.read_exact(&mut text).is_ok() && text == *NOTICE {
                last = since();
                first.get_or_insert(last);
                told += 1;
            }
            leaving.push(socket);
        }
    }
    drop(leaving);
    server.wait()?;
    Ok(Notices { first: first.unwrap_or(f64::NAN), last, exit: since(), missed: CLIENTS - told })
}
