//! Instructions per request of the released daemon, counted by callgrind.

use std::io;

use lastorders_benches::instructions;
use lastorders_benches::table::whole;

fn main() -> io::Result<()> {
    if !instructions::is_possible() {
        return Err(io::Error::other("no valgrind; `apt-get install valgrind` has it"));
    }
    for counted in instructions::ALL {
        println!("{:<28}{:>8} instructions per request", counted.name, whole(counted.measure()?));
    }
    Ok(())
}
