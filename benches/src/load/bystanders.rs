//! Clients that are merely there: silent ones, ones that trickle, and ones that ask but never read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::connect;

/// Between two bytes of a trickler, and two attempts of a client that does not read to send more.
const PAUSE: Duration = Duration::from_millis(20);

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crowd {
    pub silent: usize,
    pub tricklers: usize,
    pub deaf: usize,
}

impl Crowd {
    pub const fn silent(silent: usize) -> Crowd {
        Crowd { silent, tricklers: 0, deaf: 0 }
    }

    pub fn size(&self) -> usize {
        self.silent + self.tricklers + self.deaf
    }

    /// Connects them all.
    pub(super) fn gather(&self, address: SocketAddr) -> io::Result<Gathered> {
        let group = |size: usize| (0..size).map(|_| connect(address)).collect::<io::Result<Vec<_>>>();
        let (silent, tricklers, deaf) = (group(self.silent)?, group(self.tricklers)?, group(self.deaf)?);
        for socket in &deaf {
            setsockopt(socket, RcvBuf, &4096)?;
        }
        Ok(Gathered { silent, tricklers, deaf, next: Instant::now() })
    }
}

/// A crowd that has connected.
pub(super) struct Gathered {
    silent: Vec<TcpStream>,
    tricklers: Vec<TcpStream>,
    deaf: Vec<TcpStream>,
    next: Instant,
}

impl Gathered {
    /// Lets those who do something do it when it is time.
    pub(super) fn stir(&mut self, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + PAUSE;
        for socket in &mut self.tricklers {
            let _ = socket.write(b"x");
            let _ = socket.read(&mut [0; 64]);
        }
        for socket in &mut self.deaf {
            while socket.write(&[b'x'; 4096]).is_ok() {}
        }
    }

    /// Those whose connection the server has ended.
    pub(super) fn errors(&self) -> u64 {
        let mut all = self.silent.iter().chain(&self.tricklers);
        let ended = |socket: &TcpStream| match socket.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        let gone = all.by_ref().filter(|socket| ended(socket)).count();
        gone as u64
    }
}
