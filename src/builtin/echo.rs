//! Echo: every byte goes back as it came (RFC 862).
//!
//! Bytes that do not fit into the output stay in the input; the engine calls again when the client has read more.

use std::io;

use crate::connection::{Connection, Flow};
use crate::service::Service;

/// Sends back what it receives. At shutdown the client gets `SHUTDOWN`, without a newline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    type Session = ();

    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let taken = output.push(input.bytes());
        input.consume(taken);
        Ok(Flow::Continue)
    }

    fn never_blocks(&self) -> bool {
        true
    }
}
