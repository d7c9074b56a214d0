//! A conversation without a socket: bytes go into a connection's input in pieces, and what the service answers
//! is taken from its output, in the order and under the conditions of the engine's turns.

use std::sync::{Arc, OnceLock};

use bytes::BytesMut;

use crate::config::Limits;
use crate::connection::Context;
use crate::connection::{Connection, Flow};
use crate::service::Service;

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

/// Says `bytes` to a new client's service and returns all that it answers until it closes, or has no more to say.
pub(super) fn talk<S: Service>(service: &S, buffer: usize, pieces: Pieces, bytes: &[u8]) -> Vec<u8> {
    let mut connection = Connection::new(context(), BytesMut::zeroed(buffer), BytesMut::zeroed(buffer));
    let mut session = service.open(&mut connection).expect("open");
    let mut told = take(&mut connection);
    let (mut pieces, mut piece) = (pieces.of(bytes), &[][..]);
    let mut hungry = true;
    // Every step takes a byte, sends one, or brings a piece in.
    for _ in 0..10 * bytes.len() + 1_000 {
        let input = connection.input();
        if hungry || input.is_empty() {
            if piece.is_empty() {
                piece = pieces.next().unwrap_or_default();
            }
            let space = input.space();
            let count = space.len().min(piece.len());
            assert!(!space.is_empty(), "a full buffer is hungry");
            space[..count].copy_from_slice(&piece[..count]);
            input.filled(count);
            piece = &piece[count..];
            if count == 0 {
                // As recv(2) tells it: alone, after the last byte.
                input.end();
                if input.is_empty() {
                    return told;
                }
            }
        }
        let before = input.bytes().len();
        let flow = service.serve(&mut connection, &mut session).expect("serve");
        let took = connection.input().bytes().len() < before;
        let answer = take(&mut connection);
        hungry = !took && answer.is_empty();
        told.extend(answer);
        let input = connection.input();
        if flow == Flow::Close || hungry && (input.has_ended() || input.is_full()) {
            return told;
        }
    }
    panic!("the service takes nothing and never ends");
}

fn take(connection: &mut Connection) -> Vec<u8> {
    let output = connection.output();
    let told = output.bytes().to_vec();
    output.reset();
    told
}

/// One for all: it has descriptors.
fn context() -> Arc<Context> {
    static CONTEXT: OnceLock<Arc<Context>> = OnceLock::new();
    CONTEXT.get_or_init(|| Arc::new(Context::new(Limits::default(), false).expect("an event"))).clone()
}
