//! Clients that connect, ask once, read the answer, close, and connect anew.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, recv, send, socket};

use super::{Count, Exchange};
use crate::server::Server;

const POLL_MILLIS: u16 = 5;

struct Client {
    socket: OwnedFd,
    connected: bool,
    answered: usize,
    began: Instant,
    served: bool,
}

impl Client {
    fn new(server: SocketAddr, epoll: &Epoll, number: usize) -> io::Result<Client> {
        let SocketAddr::V4(server) = server else { return Err(io::ErrorKind::Unsupported.into()) };
        let began = Instant::now();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        match connect(socket.as_raw_fd(), &SockaddrIn::from(server)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLOUT, number as u64))?;
        Ok(Client { socket, connected: false, answered: 0, began, served: false })
    }

    /// Goes on with what is ready. True when the whole reply is there.
    fn step(&mut self, epoll: &Epoll, number: usize, exchange: &Exchange) -> io::Result<bool> {
        let fd = self.socket.as_raw_fd();
        if !self.connected {
            self.connected = true;
            send(fd, &exchange.request, MsgFlags::MSG_NOSIGNAL)?;
            epoll.modify(&self.socket, &mut EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            return Ok(false);
        }
        let mut buffer = [0; 256];
        match recv(fd, &mut buffer, MsgFlags::MSG_DONTWAIT)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count if exchange.reply[self.answered..].starts_with(&buffer[..count]) => {
                self.answered += count;
                Ok(self.answered == exchange.reply.len())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

pub(super) fn run(server: &Server, exchange: &Exchange, clients: usize, time: Duration) -> io::Result<Count> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let new = |number| Client::new(server.address, &epoll, number);
    let mut all = (0..clients).map(new).collect::<io::Result<Vec<_>>>()?;
    let mut turn = |until: Instant, count: &mut Count| -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        while Instant::now() < until {
            let found = match epoll.wait(&mut events, POLL_MILLIS) {
                Err(Errno::EINTR) => 0,
                result => result?,
            };
            for event in &events[..found] {
                let number = event.data() as usize;
                let client = &mut all[number];
                let served = client.served;
                match client.step(&epoll, number, exchange) {
                    Ok(false) => continue,
                    Ok(true) => {
                        let after = client.began.elapsed();
                        *client = new(number)?;
                        client.served = true;
                        count.answered(after);
                    }
                    Err(_) => {
                        count.errors += 1;
                        *client = new(number)?;
                        client.served = served;
                    }
                }
            }
        }
        Ok(())
    };
    turn(Instant::now() + time / 10, &mut Count::new()?)?;
    let mut count = Count::new()?;
    let (began, cpu) = (Instant::now(), server.cpu()?);
    turn(began + time, &mut count)?;
    count.cpu = server.cpu()?.saturating_sub(cpu);
    count.elapsed = began.elapsed();
    count.starved = all.iter().filter(|client| !client.served).count();
    Ok(count)
}
