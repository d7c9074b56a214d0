//! The parts by themselves, to measure a change of one: `make micro`.
//!
//! A hand-over to a sleeping worker is mostly the kernel's; the others are a few instructions each, and what
//! matters is that they stay so. The parts are private to the crate: `--cfg lastorders_bench` opens them.

#[cfg(not(lastorders_bench))]
fn main() {
    eprintln!("built without --cfg lastorders_bench, nothing to measure; `make micro` builds with it");
}

#[cfg(lastorders_bench)]
fn main() {
    micro::run();
}

#[cfg(lastorders_bench)]
mod micro {
    use std::hint::black_box;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use criterion::Criterion;
    use lastorders::bench::{Parking, Queue, connection, receive};
    use lastorders::builtin::Kv;
    use lastorders::{Flow, Lines, Service};

    /// Lines in a batch.
    const LINES: usize = 16;

    pub fn run() {
        let mut criterion = Criterion::default().configure_from_args();
        hand_over(&mut criterion);
        wake_up(&mut criterion);
        lead(&mut criterion);
        park(&mut criterion);
        lines(&mut criterion);
        kv(&mut criterion);
        criterion.final_summary();
    }

    /// A slot in, a slot out, by one thread.
    fn hand_over(criterion: &mut Criterion) {
        let queue = Queue::new().expect("a queue");
        assert!(!queue.next(), "the first to come leads");
        criterion.bench_function("queue: push and take a slot", |bencher| {
            bencher.iter(|| {
                queue.push(black_box(7));
                assert!(queue.next());
            });
        });
    }

    /// A slot to a worker that sleeps, and one back, to a thread that sleeps by then.
    fn wake_up(criterion: &mut Criterion) {
        let (there, back) = (Arc::new(Queue::new().expect("a queue")), Arc::new(Queue::new().expect("a queue")));
        assert!(!there.next() && !back.next(), "the first to come leads");
        let over = Arc::new(AtomicBool::new(false));
        let worker = {
            let (there, back, over) = (there.clone(), back.clone(), over.clone());
            thread::spawn(move || {
                while there.next() && !over.load(Ordering::Relaxed) {
                    back.push(7);
                }
            })
        };
        criterion.bench_function("queue: wake a worker and be woken", |bencher| {
            bencher.iter(|| {
                there.push(7);
                assert!(back.next());
            });
        });
        over.store(true, Ordering::Relaxed);
        there.push(7);
        worker.join().expect("the worker ends");
    }

    /// The leader comes back with one slot, serves it, finds nothing, and leads again.
    fn lead(criterion: &mut Criterion) {
        let queue = Queue::new().expect("a queue");
        assert!(!queue.next(), "the first to come leads");
        criterion.bench_function("queue: leave the lead and take it again", |bencher| {
            bencher.iter(|| {
                assert!(queue.return_found(black_box(7)));
                assert!(!queue.next());
            });
        });
    }

    /// A slot is let go of and claimed: first the state alone, then with its socket's readiness found by the poller.
    fn park(criterion: &mut Criterion) {
        let (mut client, mut server) = UnixStream::pair().expect("a pair of sockets");
        let parking = Parking::new(&server).expect("a poller");
        criterion.bench_function("slot: claim and park", |bencher| {
            bencher.iter(|| assert!(parking.claim_and_park()));
        });
        criterion.bench_function("slot: poll, claim and park (and write and read a byte)", |bencher| {
            bencher.iter(|| {
                client.write_all(b"x").expect("room for a byte");
                assert!(parking.poll());
                server.read_exact(&mut [0]).expect("the byte");
            });
        });
    }

    /// A batch of lines is framed and answered.
    fn lines(criterion: &mut Criterion) {
        let service = Lines::new(|line, reply| {
            reply.push(black_box(line));
            Ok(Flow::Continue)
        });
        let service = service.largest_reply(64);
        batch(criterion, "lines: frame 16 lines of 11 bytes", &service, &b"hello world\n".repeat(LINES), LINES * 11);
    }

    /// A batch of GETs is framed, parsed, looked up and answered.
    fn kv(criterion: &mut Criterion) {
        let kv = Kv::new(1_024, 65_536).expect("a store");
        let mut client = connection().expect("a connection");
        receive(&mut client, b"SET key-0001 value-of-11\n");
        let _ = kv.serve(&mut client, &mut ()).expect("a stored value");
        batch(criterion, "kv: 16 GETs", &kv, &b"GET key-0001\n".repeat(LINES), LINES * 12);
    }

    fn batch<S: Service<Session = ()>>(criterion: &mut Criterion, name: &str, service: &S, input: &[u8], reply: usize) {
        let mut client = connection().expect("a connection");
        let room = client.output().room();
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                receive(&mut client, input);
                let _ = service.serve(&mut client, &mut ()).expect("answers");
                assert_eq!(room - client.output().room(), reply);
            });
        });
    }
}
