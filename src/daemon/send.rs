//! `lastorders send`: one datagram to a multicast group.
//!
//! In come the group, the message, and how many networks the message may cross. No receiver acknowledges a datagram, so
//! success means only that the kernel took the message.

use lexopt::{Arg, Parser};

use super::action::{Action, printing};
use super::values::{group, interface, parsed, text, unexpected, value};
use crate::datagram::Group;

const USAGE: &str = "\
Usage: lastorders send GROUP:PORT MESSAGE [--ttl N] [--interface IF]

Sends one datagram to a multicast group. Nobody says whether it has arrived.

  --ttl N              how many networks it may reach, this one included, 0 to 255 [2]
  --interface IF       send on it, a name or an address [the route's]

Exit codes: 0 sent; 1 not sent; 2 usage.
";

/// Reads the words after `send`.
pub(crate) fn parse(mut parser: Parser) -> Result<Action, lexopt::Error> {
    let (mut words, mut hops, mut on) = (vec![], 2, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(printing(USAGE)),
            Arg::Long("ttl") => hops = value(&mut parser, "--ttl", |text| parsed(text, "expected 0 to 255"))?,
            Arg::Long("interface") => on = Some(value(&mut parser, "--interface", interface)?),
            Arg::Value(word) if words.len() < 2 => words.push(text(word)?),
            other => return Err(unexpected(&other)),
        }
    }
    let [address, message] = <[String; 2]>::try_from(words)
        .map_err(|_| "a group and a message are needed, as in 239.1.1.1:5007 \"Hello\"")?;
    let group = group(&address).map_err(|error| format!("{address:?}: {error}"))?;
    Ok(Box::new(move || {
        let sent = Group::new(group, on).and_then(|to| to.send(message.as_bytes(), hops));
        Ok(sent.map_err(|error| format!("cannot send to {group}: {error}"))?)
    }))
}
