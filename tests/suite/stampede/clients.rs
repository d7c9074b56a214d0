//! The clients of a stampede: each does one thing to one service, and checks what it gets for it.
//!
//! In comes a connection's worth of dice; out goes what was wrong, if anything. While the server shuts down, or
//! sheds, whatever it does to a client is right, but for bytes that were never sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

use super::dice::Dice;
use crate::support::HANG;

/// Where the services of a daemon are.
#[derive(Clone, Copy, Debug)]
pub struct Services {
    pub echo: SocketAddr,
    pub lines: SocketAddr,
    pub kv: SocketAddr,
    pub command: SocketAddr,
    pub time: SocketAddr,
}

type Deed = fn(&Services, &mut Dice) -> io::Result<()>;

/// What clients do, by name.
pub const DEEDS: &[(&str, Deed)] = &[
    ("echo", echo),
    ("reset", reset),
    ("half-close", half_close),
    ("trickle", trickle),
    ("never read", never_read),
    ("flood", flood),
    ("oversized line", oversized),
    ("binary", binary),
    ("store", store),
    ("command", command),
    ("datagrams", datagrams),
    ("silence", silence),
];

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HANG / 2))?;
    stream.set_write_timeout(Some(HANG / 2))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn expect(stream: &mut TcpStream, wanted: &[u8]) -> io::Result<()> {
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got)?;
    agree(&got, wanted)
}

fn agree(got: &[u8], wanted: &[u8]) -> io::Result<()> {
    if got == wanted {
        return Ok(());
    }
    let text = format!("{:?} instead of {:?}", String::from_utf8_lossy(got), String::from_utf8_lossy(wanted));
    Err(io::Error::other(text))
}

fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Closes with a reset, as a client that crashed or whose network was cut.
fn abort(stream: TcpStream) -> io::Result<()> {
    setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(stream);
    Ok(())
}

fn echo(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.echo)?;
    for _ in 0..=dice.below(8) {
        let text = dice.bytes(3_000);
        stream.write_all(&text)?;
        expect(&mut stream, &text)?;
    }
    Ok(())
}

fn reset(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let address = [services.echo, services.lines, services.kv, services.command][dice.below(4)];
    let mut stream = connect(address)?;
    if dice.below(2) == 0 {
        stream.write_all(&dice.bytes(5_000))?;
    }
    abort(stream)
}

fn half_close(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.lines)?;
    let mut wanted = String::new();
    for _ in 0..=dice.below(20) {
        let word = dice.word(60);
        stream.write_all(format!("{word}\n").as_bytes())?;
        wanted.push_str(&word.to_ascii_uppercase());
        wanted.push('\n');
    }
    stream.shutdown(Shutdown::Write)?;
    agree(&rest(&mut stream)?, wanted.as_bytes())
}

fn trickle(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.lines)?;
    let word = dice.word(20);
    for byte in format!("{word}\n").bytes() {
        stream.write_all(&[byte])?;
        thread::park_timeout(Duration::from_millis(dice.below(3) as u64));
    }
    expect(&mut stream, format!("{}\n", word.to_ascii_uppercase()).as_bytes())
}

fn never_read(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.echo)?;
    stream.set_nonblocking(true)?;
    for _ in 0..dice.below(100) {
        match stream.write(&[b'x'; 16_384]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            written => drop(written?),
        }
    }
    thread::park_timeout(Duration::from_millis(dice.below(50) as u64));
    Ok(())
}

fn flood(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.lines)?;
    let word = dice.word(30);
    let count = 1 + dice.below(500);
    let mut reader = stream.try_clone()?;
    let wanted = format!("{}\n", word.to_ascii_uppercase()).repeat(count);
    let sender = thread::spawn(move || stream.write_all(format!("{word}\n").repeat(count).as_bytes()).map(|()| stream));
    expect(&mut reader, wanted.as_bytes())?;
    sender.join().map_err(|_| io::Error::other("the sender panicked"))?.map(drop)
}

fn oversized(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.lines)?;
    stream.write_all(&vec![b'y'; 4_096 + dice.below(4_096)])?;
    agree(&rest(&mut stream)?, b"ERROR: line too long\n")
}

fn binary(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let address = [services.lines, services.kv, services.command][dice.below(3)];
    let mut stream = connect(address)?;
    stream.write_all(&dice.bytes(3_000))?;
    stream.shutdown(Shutdown::Write)?;
    rest(&mut stream).map(drop)
}

fn store(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.kv)?;
    expect(&mut stream, b"READY\n")?;
    // No other client has this key, and what stays in the store is little.
    let (key, value) = (format!("{:x}", dice.roll()), dice.word(30));
    stream.write_all(format!("SET {key} {value}\nGET {key}\nDEL {key}\nGET {key}\nQUIT\n").as_bytes())?;
    agree(&rest(&mut stream)?, format!("OK\n{value}\nDELETED\nNOT_FOUND\nBYE\n").as_bytes())
}

fn command(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let mut stream = connect(services.command)?;
    let word = dice.word(10);
    stream.write_all(format!("{word}!\n").as_bytes())?;
    agree(&rest(&mut stream)?, format!("Unknown command:{word}!").as_bytes())
}

fn datagrams(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(services.time)?;
    socket.set_nonblocking(true)?;
    for _ in 0..dice.below(30) {
        // Answers to a socket without a reader are errors to the daemon; so is one that is full.
        let _ = socket.send(&dice.bytes(6_000));
    }
    Ok(())
}

fn silence(services: &Services, dice: &mut Dice) -> io::Result<()> {
    let stream = connect([services.echo, services.kv][dice.below(2)])?;
    thread::park_timeout(Duration::from_millis(dice.below(20) as u64));
    if dice.below(2) == 0 { abort(stream) } else { Ok(()) }
}
