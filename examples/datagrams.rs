//! UDP and multicast: answers what is sent to an address, and prints what is sent to a group.
//!
//! Try it: `cargo run --example datagrams -- 127.0.0.1:9001 239.1.1.1:5007 lo`, then
//! `echo hello | nc -u -w1 127.0.0.1 9001` and `lastorders send 239.1.1.1:5007 hello --interface lo`.

use lastorders::{Answer, Builder, Datagrams, Group};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or("127.0.0.1:0".into());
    let group = words.next().unwrap_or("239.1.1.1:0".into()).parse()?;
    let interface = words.next().map(|name| name.parse()).transpose()?;

    let reverse = Datagrams::new(|packet, _from, reply| {
        let reversed: Vec<u8> = packet.iter().rev().copied().collect();
        reply.push(&reversed);
        Ok(Answer::Reply)
    });
    let print = Datagrams::new(|packet, from, _reply| {
        println!("{:?} from {from}", String::from_utf8_lossy(packet));
        Ok(Answer::Silence)
    });
    let builder = Builder::new().datagram(reverse).bind(address)?.datagram(print).join(Group::new(group, interface)?);
    let server = builder.on_ready(|| println!("ready")).handle_signals().build()?;
    for address in server.addresses() {
        println!("listening on {address}");
    }
    println!("{}", server.run()?);
    Ok(())
}
