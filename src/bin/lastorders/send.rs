//! `lastorders send`: one datagram to a multicast group.

use std::net::SocketAddr;

use lastorders::{Group, Interface};
use lexopt::Arg;

use crate::failure::Failure;
use crate::values::{Parsed, group, interface, shown, value};

pub struct Send {
    group: SocketAddr,
    message: String,
    hops: u8,
    interface: Option<Interface>,
}

const USAGE: &str = "\
Usage: lastorders send GROUP:PORT MESSAGE [--ttl N] [--interface IF]

Sends one datagram to a multicast group. Nobody says whether it has arrived.

  --ttl N              how many networks it may reach, this one included, 0 to 255 [2]
  --interface IF       send on it, a name or an address [the route's]

Exit codes: 0 sent; 1 not sent; 2 usage.
";

pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Send>, Failure> {
    let usage = |text: String| Failure::Usage(format!("{text}; see `lastorders send --help`"));
    let (mut words, mut hops, mut on) = (vec![], 2, None);
    while let Some(arg) = parser.next().map_err(|error| usage(error.to_string()))? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Parsed::Help(USAGE.into())),
            Arg::Long("ttl") => {
                let text = value(&mut parser).map_err(usage)?;
                hops = text.parse().map_err(|_| usage(format!("--ttl {text:?}: expected 0 to 255")))?;
            }
            Arg::Long("interface") => {
                let text = value(&mut parser).map_err(usage)?;
                on = Some(interface(&text).map_err(|error| usage(format!("--interface {text:?}: {error}")))?);
            }
            Arg::Value(word) if words.len() < 2 => {
                words.push(word.into_string().map_err(|word| usage(format!("{word:?} is not valid UTF-8")))?);
            }
            other => return Err(usage(format!("unexpected argument {}", shown(&other)))),
        }
    }
    let [address, message] = <[String; 2]>::try_from(words)
        .map_err(|_| usage("a group and a message are needed, as in 239.1.1.1:5007 \"Hello\"".into()))?;
    let group = group(&address).map_err(|error| usage(format!("{address:?}: {error}")))?;
    Ok(Parsed::Options(Send { group, message, hops, interface: on }))
}

pub fn run(send: Send) -> Result<(), Failure> {
    let sent = Group::new(send.group, send.interface).and_then(|group| group.send(send.message.as_bytes(), send.hops));
    sent.map_err(|error| Failure::Run(format!("cannot send to {}: {error}", send.group)))
}
