//! One line, one answer, from a table of the program's own.
//!
//! Try it: `cargo run --example command -- 127.0.0.1:31310`, then `echo hello | nc 127.0.0.1 31310`.

use lastorders::{Server, builtin::Command};

const COMMANDS: &[(&str, &str)] = &[
    ("HELLO", "Hello yourself.\r\n"),
    ("ABOUT", concat!("lastorders ", env!("CARGO_PKG_VERSION"), "\r\n")),
    ("HELP", "HELLO, ABOUT, HELP\r\n"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::builder(Command::new(COMMANDS)).listen(address)?.handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("{}", server.run()?);
    Ok(())
}
