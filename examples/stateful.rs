//! A service with state per connection: numbers each client's bytes, and greets it with its own number.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use lastorders::{Connection, Flow, Server, Service};

#[derive(Default)]
struct Meter {
    clients: AtomicU64,
}

impl Service for Meter {
    type Session = u64; // The bytes of this client so far.

    fn open(&self, connection: &mut Connection) -> io::Result<u64> {
        let number = self.clients.fetch_add(1, Ordering::Relaxed) + 1;
        writeln!(connection.output(), "client {number}")?;
        Ok(0)
    }

    fn serve(&self, connection: &mut Connection, bytes: &mut u64) -> io::Result<Flow> {
        let (input, output) = connection.split();
        let count = input.bytes().len();
        *bytes += count as u64;
        input.consume(count);
        writeln!(output, "{bytes} bytes")?;
        Ok(Flow::Continue)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::builder(Meter::default()).listen(address)?.handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("{}", server.run()?);
    Ok(())
}
