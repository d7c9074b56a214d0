//! Instructions per request of the released daemon, counted by callgrind, or by the program that the arguments name.

use std::env;
use std::io;

use lastorders_benches::instructions::{self, Counter};
use lastorders_benches::table::whole;

fn main() -> io::Result<()> {
    let named = Counter::from_words(env::args_os().skip(1));
    if named.is_none() && !Counter::callgrind().is_installed() {
        return Err(io::Error::other("no valgrind; `apt-get install valgrind` has it"));
    }
    let counter = named.unwrap_or_else(Counter::callgrind);
    for counted in instructions::ALL {
        println!("{:<28}{:>8} instructions per request", counted.name, whole(counted.measure(&counter)?));
    }
    Ok(())
}
