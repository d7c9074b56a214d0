//! The smallest server: echo, until a signal says stop.
//!
//! Try it: `cargo run --example echo -- 127.0.0.1:9999`, then `nc 127.0.0.1 9999`, then Ctrl-C.

use lastorders::{Server, builtin::Echo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::builder(Echo).listen(address)?.handle_signals().build()?;
    for address in server.addresses() {
        println!("listening on {address}");
    }
    println!("{}", server.run()?);
    Ok(())
}
