//! Shutdown without signals: another thread is served five times, then asks the server to stop.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lastorders::{Server, builtin::Echo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder(Echo).listen("127.0.0.1:0")?.grace(Duration::from_secs(2)).build()?;
    let address = server.addresses().next().ok_or("no address")?;
    let handle = server.handle();

    let client = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let mut client = TcpStream::connect(address)?;
        let mut echo = [0; 11];
        for _ in 0..5 {
            client.write_all(b"hello world")?;
            client.read_exact(&mut echo)?;
        }
        println!("{} requests served", handle.stats().served);
        handle.shutdown();
        let mut last = Vec::new();
        client.read_to_end(&mut last)?;
        Ok(last)
    });

    let report = server.run()?;
    let last = client.join().map_err(|_| "the client panicked")??;
    println!("the server said {:?}", String::from_utf8_lossy(&last));
    println!("{report}");
    Ok(())
}
