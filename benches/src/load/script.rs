//! What a client sends and what it must receive, byte for byte.

use std::sync::Arc;

/// A request, or several at once, and the whole answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub request: Arc<[u8]>,
    pub reply: Arc<[u8]>,
    /// Requests in it.
    pub count: u32,
}

/// What the clients of a load say.
#[derive(Clone, Debug)]
pub struct Script {
    /// Once, by each client, before anything is measured.
    pub opening: Vec<Exchange>,
    /// Over and over, each client beginning somewhere else.
    pub body: Vec<Exchange>,
}

const HELLO: &[u8] = b"hello world";
/// As long as `HELLO`.
const VALUE: &str = "value-of-11";
const KEYS: usize = 64;

impl Exchange {
    fn new(request: impl Into<Vec<u8>>, reply: impl Into<Vec<u8>>) -> Exchange {
        Exchange { request: request.into().into(), reply: reply.into().into(), count: 1 }
    }

    /// Eleven bytes, echoed.
    pub fn echo() -> Exchange {
        Exchange::new(HELLO, HELLO)
    }
}

impl Script {
    fn of(body: Vec<Exchange>) -> Script {
        Script { opening: Vec::new(), body }
    }

    pub fn echo() -> Script {
        Script::of(vec![Exchange::echo()])
    }

    /// `count` requests sent at once, and all their replies awaited.
    pub fn pipelined(count: u32) -> Script {
        let bytes = HELLO.repeat(count as usize);
        Script::of(vec![Exchange { count, ..Exchange::new(bytes.clone(), bytes) }])
    }

    /// GETs of 64 keys, and for every ten requests that many SETs. Every client first sets all keys.
    pub fn kv(sets_in_ten: usize) -> Script {
        let key = |at: usize| format!("key-{:04}", at % KEYS);
        let set = |at| Exchange::new(format!("SET {} {VALUE}\n", key(at)), "OK\n");
        let get = |at| Exchange::new(format!("GET {}\n", key(at)), format!("{VALUE}\n"));
        let opening = [Exchange::new("", "READY\n")].into_iter().chain((0..KEYS).map(set)).collect();
        Script { opening, body: mix(sets_in_ten, get, set) }
    }

    /// The same in memcached's words.
    pub fn memcached(sets_in_ten: usize) -> Script {
        let key = |at: usize| format!("key-{:04}", at % KEYS);
        let length = VALUE.len();
        let set = |at| Exchange::new(format!("set {} 0 0 {length}\r\n{VALUE}\r\n", key(at)), "STORED\r\n");
        let get = |at| {
            let reply = format!("VALUE {} 0 {length}\r\n{VALUE}\r\nEND\r\n", key(at));
            Exchange::new(format!("get {}\r\n", key(at)), reply)
        };
        Script { opening: (0..KEYS).map(set).collect(), body: mix(sets_in_ten, get, set) }
    }
}

fn mix(sets_in_ten: usize, get: impl Fn(usize) -> Exchange, set: impl Fn(usize) -> Exchange) -> Vec<Exchange> {
    (0..KEYS * 10).map(|at| if at % 10 < sets_in_ten { set(at) } else { get(at) }).collect()
}
