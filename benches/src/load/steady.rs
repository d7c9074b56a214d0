//! Clients that keep their connection and ask again as soon as they have the whole answer.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, recv, send};

use super::{Count, Crowd, Exchange, Script, connect};
use crate::server::Server;

/// How long clients are given to have their first answer before the measurement begins without them.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The clock is looked at this often when nothing arrives, in milliseconds.
const POLL_MILLIS: u16 = 5;

struct Client<'a> {
    socket: TcpStream,
    script: &'a Script,
    /// Exchanges completed, those of the opening included.
    step: usize,
    /// Where in the body it begins.
    offset: usize,
    /// Bytes of the reply in hand.
    answered: usize,
    asked: Instant,
    /// Has had an answer since the measurement began, or before that, to its first request.
    served: bool,
    over: bool,
}

impl<'a> Client<'a> {
    fn exchange(&self) -> &'a Exchange {
        match self.script.opening.get(self.step) {
            Some(exchange) => exchange,
            None => &self.script.body[(self.step + self.offset) % self.script.body.len()],
        }
    }

    fn ask(&mut self, now: Instant) -> io::Result<()> {
        self.asked = now;
        let request = &self.exchange().request;
        if request.is_empty() {
            return Ok(());
        }
        let sent = send(self.socket.as_raw_fd(), request, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        if sent == request.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Takes in what has arrived. True when that completes a reply to the body's requests.
    fn take_answer(&mut self, buffer: &mut [u8], count: &mut Count) -> io::Result<bool> {
        let received = match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN) => return Ok(false),
            result => &buffer[..result?],
        };
        let exchange = self.exchange();
        let expected = &exchange.reply[self.answered..];
        if !expected.starts_with(received) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.answered += received.len();
        if received.len() < expected.len() {
            return Ok(false);
        }
        let now = Instant::now();
        let opening = self.step < self.script.opening.len();
        if !opening {
            count.answered(now - self.asked);
            count.requests += u64::from(exchange.count) - 1;
            self.served = true;
        }
        (self.step, self.answered) = (self.step + 1, 0);
        self.ask(now)?;
        Ok(!opening)
    }
}

pub(super) fn run(
    server: &Server,
    script: &Script,
    clients: usize,
    crowd: &Crowd,
    time: Duration,
) -> io::Result<Count> {
    let mut crowd = crowd.gather(server.address)?;
    let mut run = Run::start(server, script, clients)?;
    run.turn(Instant::now() + TIMEOUT, &mut crowd, true)?;
    run.turn(Instant::now() + time / 10, &mut crowd, false)?;

    run.count = Count::new()?;
    run.clients.iter_mut().for_each(|client| client.served = false);
    let (began, cpu) = (Instant::now(), server.cpu()?);
    run.turn(began + time, &mut crowd, false)?;
    run.count.cpu = server.cpu()?.saturating_sub(cpu);
    run.count.elapsed = began.elapsed();
    // A client that an earlier error has ended is one now.
    run.count.errors = run.clients.iter().filter(|client| client.over).count() as u64 + crowd.errors();
    run.count.starved = run.clients.iter().filter(|client| !client.served).count();
    Ok(run.count)
}

struct Run<'a> {
    epoll: Epoll,
    clients: Vec<Client<'a>>,
    count: Count,
}

impl<'a> Run<'a> {
    fn start(server: &Server, script: &'a Script, clients: usize) -> io::Result<Run<'a>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut run = Run { epoll, clients: Vec::with_capacity(clients), count: Count::new()? };
        for number in 0..clients {
            let socket = connect(server.address)?;
            run.epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            let asked = Instant::now();
            let offset = number * 7;
            let mut client = Client { socket, script, step: 0, offset, answered: 0, asked, served: false, over: false };
            client.ask(asked)?;
            run.clients.push(client);
        }
        Ok(run)
    }

    /// Exchanges until then, or, if `first` is set, until every client has had an answer.
    fn turn(&mut self, until: Instant, crowd: &mut super::bystanders::Gathered, first: bool) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut events = [EpollEvent::empty(); 64];
        let mut waiting = self.clients.len();
        while !(first && waiting == 0) {
            let found = match self.epoll.wait(&mut events, POLL_MILLIS) {
                Err(Errno::EINTR) => 0,
                result => result?,
            };
            for event in &events[..found] {
                let client = &mut self.clients[event.data() as usize];
                let before = client.served;
                match client.take_answer(&mut buffer, &mut self.count) {
                    Ok(complete) => waiting -= usize::from(complete && !before),
                    Err(_) => {
                        client.over = true;
                        self.epoll.delete(&client.socket)?;
                        waiting -= usize::from(!before);
                    }
                }
            }
            let now = Instant::now();
            if now >= until {
                break;
            }
            crowd.stir(now);
        }
        Ok(())
    }
}
