//! A network of a test's own: interfaces and addresses that come and go as it likes.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::support::{need_program, need_root, skip, wait_until};

/// Moves this thread, and what it starts, into a network of its own, in which `lo` is up.
pub fn own_network() {
    need_root();
    need_program("ip");
    unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| skip(&format!("no network of one's own: {error}")));
    ip("link set lo up");
}

/// Runs `ip` with these words, in the network of this thread.
#[track_caller]
pub fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {words}");
}

/// Gives `lo` an address, and waits until clients reach who listens there: the kernel makes an IPv6 address usable
/// a little later, in steps between which it is unreachable once more.
pub fn add_address(address: SocketAddr) {
    let width = if address.is_ipv4() { "32" } else { "128 nodad" };
    ip(&format!("addr add {}/{width} dev lo", address.ip()));
    let mut reached = 0;
    wait_until("the address stays reachable", || {
        reached = if TcpStream::connect(address).is_ok() { reached + 1 } else { 0 };
        reached == 20
    });
}
