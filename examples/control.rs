//! A control socket: an operator asks a running server for its counters, or stops it.
//!
//! Try it: `cargo run --example control -- 127.0.0.1:9999 /tmp/echo.control`, then
//! `lastorders control --socket /tmp/echo.control status`, and `stop` instead of `status`.

use lastorders::{Server, builtin::Echo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:0".into());
    // The socket's mode is 0600: root and this user may ask.
    let control = words.next().map_or_else(|| std::env::temp_dir().join("echo.control"), Into::into);
    let server = Server::builder(Echo).listen(address)?.control(control).handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("{}", server.run()?);
    Ok(())
}
