//! The key-value service, with a store of the program's own size.
//!
//! Try it: `cargo run --example kv -- 127.0.0.1:9996`, then `nc 127.0.0.1 9996`, and type `SET colour blue`.

use lastorders::{Server, builtin::Kv};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    // 100 entries, of 8,192 bytes together. Clones share the store, so that several services can offer it.
    let store = Kv::new(100, 8_192)?;
    let server = Server::builder(store.clone()).memory(store.memory()).listen(address)?.handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("{}", server.run()?);
    Ok(())
}
