//! The practical ceiling: an epoll loop as one writes it in C, without any of what a server needs beside it.
//!
//! `peer-epoll echo PORT WORKERS`. Each thread has an epoll of its own, level-triggered, and serves what is ready
//! with one `recv` and one `send`; one listener is in all of them (`EPOLLEXCLUSIVE`). No deadline, no backpressure (a
//! reply that the kernel does not take ends the connection), no shutdown, and a connection stays with its thread
//! however busy that is. A listener for each thread (`SO_REUSEPORT`), and a thread that accepts and deals the
//! connections out, both cost more per request.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;

use lastorders_benches::peer::Options;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrIn, bind, listen, recv, send, socket,
};
use nix::unistd::close;

fn main() -> io::Result<()> {
    let options = Options::from_args()?;
    let listener = Arc::new(listener(options.address())?);
    for _ in 1..options.workers {
        let listener = listener.clone();
        thread::spawn(move || serve(&listener));
    }
    serve(&listener)
}

/// One thread's loop.
fn serve(listener: &TcpListener) -> io::Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    epoll.add(listener, EpollEvent::new(flags, listener.as_raw_fd() as u64))?;
    let mut events = [EpollEvent::empty(); 64];
    let mut buffer = [0; 4096];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        for event in &events[..count] {
            let fd = event.data() as RawFd;
            if fd == listener.as_raw_fd() {
                // Another thread may have been faster.
                let _ = accept(listener, &epoll);
            } else if !echo(fd, &mut buffer) {
                close(fd)?;
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll) -> io::Result<()> {
    let (socket, _) = listener.accept()?;
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, socket.as_raw_fd() as u64))?;
    // From here on it is known by its number, as in C; `serve` closes it.
    std::mem::forget(socket);
    Ok(())
}

/// False when the connection is over.
fn echo(fd: RawFd, buffer: &mut [u8]) -> bool {
    match recv(fd, buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => false,
        Ok(count) => send(fd, &buffer[..count], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) == Ok(count),
        Err(error) => error == Errno::EAGAIN,
    }
}

fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let SocketAddr::V4(address) = address else { return Err(io::ErrorKind::Unsupported.into()) };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    bind(fd.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&fd, Backlog::MAXALLOWABLE)?;
    Ok(fd.into())
}
