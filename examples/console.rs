//! A console: Enter, or the end of standard input, stops the server.

use lastorders::{Server, builtin::Command};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:0".into());
    let server = Server::builder(Command::default()).listen(address)?.handle_signals().build()?;
    println!("listening on {}", server.addresses().next().ok_or("no address")?);
    println!("Press Enter to quit.");
    let handle = server.handle();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        handle.shutdown();
    });
    println!("{}", server.run()?);
    Ok(())
}
