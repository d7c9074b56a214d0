//! A conversation without a socket: bytes go to a connection in pieces, and the driver moves it on as an engine's does.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Limits;
use crate::connection::{Client, Connection, Context, Link, Transport};
use crate::engine::{Driver, Endpoint, Event, Next, Services};
use crate::service::{ErasedService, Service, WithSessions};

/// How bytes are divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces(u8);

impl Pieces {
    pub(super) fn new(seed: u8) -> Pieces {
        Pieces(seed)
    }

    /// The pieces of a text: all at once, byte by byte, or of changing lengths.
    pub(super) fn of(self, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        let (mut rest, mut state) = (bytes, u32::from(self.0));
        std::iter::from_fn(move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = match self.0 {
                0 => rest.len(),
                1 => 1,
                _ => 1 + (state >> 24) as usize % usize::from(self.0),
            };
            let (piece, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// A client that sends its pieces, ends its sending direction, and keeps what it receives.
struct Script {
    /// The last one first.
    pieces: Vec<Vec<u8>>,
    received: Arc<Mutex<Vec<u8>>>,
}

impl Transport for Script {
    fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(mut piece) = self.pieces.pop() else { return Ok(Some(0)) };
        let count = piece.len().min(into.len());
        into[..count].copy_from_slice(&piece[..count]);
        if count < piece.len() {
            self.pieces.push(piece.split_off(count));
        }
        Ok(Some(count))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(Some(bytes.len()))
    }

    fn pending(&mut self) -> u32 {
        self.pieces.iter().map(|piece| piece.len() as u32).sum()
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.pieces.is_empty())
    }

    fn finish_sending(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) {}
}

/// Says `bytes` to a new client's service and returns all that it answers until the connection is closed.
pub(super) fn talk(service: impl Service, buffer: usize, pieces: Pieces, bytes: &[u8]) -> Vec<u8> {
    let limits = Limits { workers: 0, buffer, ..Limits::default() };
    let service: Box<dyn ErasedService> = Box::new(WithSessions::new(service));
    let context = Arc::new(Context::new(limits).expect("events"));
    let mut driver = Driver::new(Arc::new(Services::new(context.clone(), Box::new([service]), Box::default(), 1)), 0);
    let received = Arc::default();
    let mut pieces: Vec<Vec<u8>> = pieces.of(bytes).map(<[u8]>::to_vec).collect();
    pieces.reverse();
    let link = Link::Scripted(Box::new(Script { pieces, received: Arc::clone(&received) }));
    let client = Client { share: None, link, peer: ([127, 0, 0, 1], 7).into(), service: 0 };
    let mut endpoint = Endpoint::Tcp(Connection::new(context, client, 0));
    let mut event = Event::Admitted;
    // Every turn takes a byte, sends one, or brings a piece in.
    for _ in 0..10 * bytes.len() + 1_000 {
        match driver.on(&mut endpoint, event) {
            Next::Close(reason) => {
                driver.end(&mut endpoint, reason);
                return std::mem::take(&mut *received.lock().unwrap_or_else(PoisonError::into_inner));
            }
            Next::Park(_) | Next::Requeue => event = Event::Ready,
        }
    }
    panic!("the service takes nothing and never ends");
}
