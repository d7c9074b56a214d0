//! Clients that ask for the time over UDP, and ask again when they have it, or after a while without an answer.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::Count;
use crate::server::{Server, TIME_REQUEST};

const POLL_MILLIS: u16 = 5;
/// A datagram that is not answered by then is lost.
const LOST: Duration = Duration::from_millis(100);
const REPLY: &[u8] = b"{\"time\": \"2";

struct Client {
    socket: UdpSocket,
    asked: Instant,
    served: bool,
}

impl Client {
    fn ask(&mut self) -> io::Result<()> {
        self.asked = Instant::now();
        self.socket.send(TIME_REQUEST).map(|_| ())
    }
}

pub(super) fn run(server: &Server, clients: usize, time: Duration) -> io::Result<Count> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut all = Vec::with_capacity(clients);
    for number in 0..clients {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(server.address)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        let mut client = Client { socket, asked: Instant::now(), served: false };
        client.ask()?;
        all.push(client);
    }
    turn(&epoll, &mut all, Instant::now() + time / 10, &mut Count::new()?)?;

    let mut count = Count::new()?;
    all.iter_mut().for_each(|client| client.served = false);
    let (began, cpu) = (Instant::now(), server.cpu()?);
    turn(&epoll, &mut all, began + time, &mut count)?;
    count.cpu = server.cpu()?.saturating_sub(cpu);
    count.elapsed = began.elapsed();
    count.starved = all.iter().filter(|client| !client.served).count();
    Ok(count)
}

fn turn(epoll: &Epoll, clients: &mut [Client], until: Instant, count: &mut Count) -> io::Result<()> {
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = [0; 256];
    loop {
        let found = match epoll.wait(&mut events, POLL_MILLIS) {
            Err(Errno::EINTR) => 0,
            result => result?,
        };
        for event in &events[..found] {
            let client = &mut clients[event.data() as usize];
            match client.socket.recv(&mut buffer) {
                Ok(length) if buffer[..length].starts_with(REPLY) => {
                    count.answered(client.asked.elapsed());
                    client.served = true;
                }
                _ => count.errors += 1,
            }
            client.ask()?;
        }
        let now = Instant::now();
        if now >= until {
            return Ok(());
        }
        for client in clients.iter_mut().filter(|client| now - client.asked > LOST) {
            count.errors += 1;
            client.ask()?;
        }
    }
}
