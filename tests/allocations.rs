//! Steady state allocates nothing: counted by the allocator of a program that runs nothing else.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use lastorders::Server;
use lastorders::services::Echo;

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the ones that are asked for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn ask(client: &mut TcpStream) {
    let mut echo = [0; 11];
    client.write_all(b"hello world").unwrap();
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello world");
}

/// After warm-up, 10,000 requests on open connections and 1,000 connections with one request each allocate
/// nothing, in the server and in this client alike.
#[test]
fn steady_state_allocates_nothing() {
    let server = Server::builder(Echo).listen("127.0.0.1:0").unwrap().build().unwrap();
    let address = server.addresses().next().unwrap();
    let handle = server.handle();
    // At level warn: what is formatted for an info line costs nothing.
    log::set_max_level(log::LevelFilter::Warn);
    let running = std::thread::spawn(move || server.run().unwrap());

    let mut clients: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut round = |requests: usize, connections: usize| {
        let before = CALLS.load(Ordering::Relaxed);
        for index in 0..requests {
            ask(&mut clients[index % 8]);
        }
        for _ in 0..connections {
            ask(&mut TcpStream::connect(address).unwrap());
        }
        CALLS.load(Ordering::Relaxed) - before
    };
    let warm_up = round(100, 100);
    assert_eq!(round(10_000, 1_000), 0, "{warm_up} in the warm-up");

    handle.close();
    let report = running.join().unwrap();
    assert!(report.closed >= 8, "{report}");
    assert!(CALLS.load(Ordering::Relaxed) > 0, "the counter counts");
}
