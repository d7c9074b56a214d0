//! The simplest peer: std, a thread per connection.
//!
//! `peer-threads echo|time PORT WORKERS`; the number of workers means something for `time` only, over UDP.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::thread;

use lastorders_benches::peer::{Options, echo, time_reply};

fn main() -> io::Result<()> {
    let options = Options::from_args()?;
    if options.service == "time" {
        return time(&options);
    }
    let listener = TcpListener::bind(options.address())?;
    loop {
        let (socket, _) = listener.accept()?;
        // A failure to start a thread drops the socket: its client sees the end of input.
        let _ = thread::Builder::new().spawn(|| echo(socket));
    }
}

fn time(options: &Options) -> io::Result<()> {
    let socket = UdpSocket::bind(options.address())?;
    let answer = |socket: UdpSocket| -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let (count, peer) = socket.recv_from(&mut buffer)?;
            socket.send_to(time_reply(&buffer[..count]).as_bytes(), peer)?;
        }
    };
    for _ in 1..options.workers {
        let socket = socket.try_clone()?;
        thread::spawn(move || answer(socket));
    }
    answer(socket)
}
