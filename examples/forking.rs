//! A process for each connection: what crashes or leaks in one of them costs that client only.

use std::io::{BufRead, Write};
use std::process;

use lastorders::{Server, Streams};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let handler = Streams::new(|client| {
        let mut line = String::new();
        while client.read_line(&mut line)? > 0 {
            match line.trim_end() {
                "crash" => process::abort(),
                text => writeln!(client, "{}: {text}", process::id())?,
            }
            line.clear();
        }
        Ok(())
    });
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    // At most 50 processes. The program must not have started a thread before `run`.
    let server = Server::builder(handler).listen(address)?.forking(50).handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("{}", server.run()?);
    Ok(())
}
