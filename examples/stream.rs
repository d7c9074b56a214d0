//! A stream handler: ordinary blocking reads and writes, in the manner of a socket server's handler.
//!
//! It holds its worker while it runs, so it is for dialogues that do not fit into a request and a reply.

use std::io::{BufRead, Write};

use lastorders::{Server, Streams};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let interview = Streams::new(|client| {
        let mut name = String::new();
        client.read_line(&mut name)?;
        write!(client, "Hello, {}. How old are you? ", name.trim_end())?;
        let mut age = String::new();
        client.read_line(&mut age)?;
        match age.trim_end().parse::<u32>() {
            Ok(age) => writeln!(client, "Then you will be {} next year.", age + 1),
            Err(_) => writeln!(client, "That is no age."),
        }
    });
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::builder(interview).listen(address)?.handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("{}", server.run()?);
    Ok(())
}
