//! A network of a test's own: interfaces and addresses that come and go as it likes.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::support::wait_until;

/// Moves this thread, and what it starts, into a network of its own, in which `lo` is up. False, with a line that
/// says why, where that is not allowed.
pub fn own_network() -> bool {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(error) => println!("skipped: a network namespace cannot be made here: {error}"),
        Ok(()) if ip("link set lo up") => return true,
        Ok(()) => println!("skipped: ip(8) is not to be had here"),
    }
    false
}

/// Runs `ip` with these words, in the network of this thread.
pub fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split(' ')).status().is_ok_and(|status| status.success())
}
/// Gives `lo` an address, and waits until clients reach who listens there: the kernel makes an IPv6 address usable
/// a little later, in steps between which it is unreachable once more.
pub fn add_address(address: SocketAddr) {
    let width = if address.is_ipv4() { "32" } else { "128 nodad" };
    assert!(ip(&format!("addr add {}/{width} dev lo", address.ip())));
    let mut reached = 0;
    wait_until("the address stays reachable", || {
        reached = if TcpStream::connect(address).is_ok() { reached + 1 } else { 0 };
        reached == 20
    });
}
