//! A line service made of a closure: adds up the numbers of each line.
//!
//! Framing, pipelining, the length limit, the deadlines and the shutdown notice are the library's. So are the log lines,
//! which any logger of the `log` crate shows.

use std::io::Write;

use lastorders::{Flow, Lines, Server};
use log::LevelFilter;
use simple_logger::SimpleLogger;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    SimpleLogger::new().with_level(LevelFilter::Info).init()?;
    let adder = Lines::new(|line, reply| {
        let text = String::from_utf8_lossy(line);
        if text.trim() == "bye" {
            writeln!(reply, "bye")?;
            return Ok(Flow::Close);
        }
        match text.split_whitespace().map(str::parse::<f64>).sum::<Result<f64, _>>() {
            Ok(sum) => writeln!(reply, "{sum}")?,
            Err(error) => writeln!(reply, "ERROR: {error}")?,
        }
        Ok(Flow::Continue)
    });
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::builder(adder.longest_line(200)).listen(address)?.handle_signals().build()?;
    for address in server.addresses() {
        println!("listening on {address}");
    }
    println!("{}", server.run()?);
    Ok(())
}
