//! The queue's protocol, model-checked: every interleaving of a few threads, in which a lost wake-up is a deadlock.
//!
//! The accept loop, the workers and the poller are stood in for by the least that can go wrong in their way; what is
//! tested is the queue itself. `make model` runs these, and `make mutants` shows that they notice breaks.

use super::*;
use crate::engine::ownership::Token;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// A poller of the model: the leader waits in it until it is called away or an edge is there.
#[derive(Clone)]
struct Poller {
    edges: Arc<Mutex<Vec<Token>>>,
    leader: Arc<Event>,
}

impl Poller {
    fn new() -> Poller {
        Poller { edges: Arc::new(Mutex::new(Vec::new())), leader: Arc::new(Event::new().unwrap()) }
    }

    fn wait(&self) -> Found {
        self.leader.wait();
        self.poll_once()
    }

    fn poll_once(&self) -> Found {
        lock(&self.edges).drain(..).map(Ready::stand_in).collect()
    }

    fn report(&self, token: Token) {
        lock(&self.edges).push(token);
        self.leader.raise();
    }
}

type Found = heapless::Vec<Ready, 4>;

fn next(queue: &Queue) -> Job {
    queue.next::<4>(Returned::Nothing)
}

/// One job done, the next one asked for.
fn step(queue: &Queue, poller: &Poller, job: Job, serve: impl Fn(Token)) -> Option<Job> {
    match job {
        Job::Serve(ready) => {
            serve(ready.token());
            Some(next(queue))
        }
        Job::Poll => Some(queue.next(Returned::Found(&mut poller.wait()))),
        Job::PollOnce => Some(queue.next(Returned::Found(&mut poller.poll_once()))),
        Job::Stop => None,
    }
}

fn run_worker(queue: &Queue, poller: &Poller, serve: impl Fn(Token)) {
    let mut job = Some(next(queue));
    while let Some(todo) = job {
        job = step(queue, poller, todo, &serve);
    }
}

/// Workers on a queue and a poller.
struct Pool {
    queue: Arc<Queue>,
    poller: Poller,
    workers: Vec<thread::JoinHandle<()>>,
}

impl Pool {
    fn start(count: usize, work: Work, serve: impl Fn(Token) + Clone + 'static) -> Pool {
        let poller = Poller::new();
        let accept_loop = Arc::new(Event::new().unwrap());
        let queue = Arc::new(Queue::new(4, work, poller.leader.clone(), accept_loop));
        let workers = (0..count)
            .map(|_| {
                let (queue, poller, serve) = (queue.clone(), poller.clone(), serve.clone());
                thread::spawn(move || run_worker(&queue, &poller, serve))
            })
            .collect();
        Pool { queue, poller, workers }
    }

    fn push(&self, token: Token) {
        self.queue.push(Ready::stand_in(token));
    }

    /// Stops the queue, and waits until every worker has finished.
    fn stop(&mut self) {
        self.queue.stop();
        for worker in self.workers.drain(..) {
            worker.join().unwrap();
        }
    }
}

/// A flag that a job sets and another thread waits for.
#[derive(Clone)]
struct Flag(Arc<(Mutex<bool>, Condvar)>);

impl Flag {
    fn new() -> Flag {
        Flag(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn set(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut done = lock(&self.0.0);
        while !*done {
            done = self.0.1.wait(done).unwrap();
        }
    }

    fn clear(&self) {
        *lock(&self.0.0) = false;
    }
}

/// A pool whose every job sets the flag.
fn pool_with_flag(count: usize, work: Work) -> (Pool, Flag) {
    let flag = Flag::new();
    let setter = flag.clone();
    (Pool::start(count, work, move |_| setter.set()), flag)
}

/// Two workers, one socket from the accept loop and one edge at the poller, then the stop: a lost wake-up
/// would leave a thread asleep for ever, which loom reports as a deadlock.
#[test]
fn every_job_is_served_and_every_worker_ends() {
    both_ways(3, |work| {
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let mut pool = Pool::start(2, work, move |_| add_one(&count));
        pool.poller.report(1);
        pool.push(2);
        pool.stop();
        let mut left = pool.poller.poll_once().len();
        while pool.queue.take().is_some() {
            left += 1;
        }
        assert_eq!(served.load(Ordering::Relaxed) + left, 2, "a job was lost or served twice");
    });
}

/// Work that arrives while the only worker leads, or while it takes or gives up the lead, is served without
/// any further event.
#[test]
fn work_from_outside_reaches_a_lone_leader() {
    both_ways(3, |work| {
        let mut pool = Pool::start(0, work, |_| {});
        let (queue, poller) = (pool.queue.clone(), pool.poller.clone());
        pool.workers.push(thread::spawn(move || {
            let (mut served, mut job) = (0, next(&queue));
            loop {
                served += u32::from(matches!(job, Job::Serve(_)));
                if served == 2 {
                    return;
                }
                job = step(&queue, &poller, job, |_| {}).expect("not stopped");
            }
        }));
        pool.push(1);
        pool.push(2);
        // Not stopped: the worker ends when it has served both.
        for worker in pool.workers.drain(..) {
            worker.join().unwrap();
        }
    });
}

/// The service of token 1 takes until token 2 is served, and the poller reports both. So the worker that serves 1 must
/// have passed on the lead, and must have woken the follower for it.
#[test]
fn the_lead_is_passed_on_before_serving() {
    one_way(3, || {
        let flag = Flag::new();
        let setter = flag.clone();
        let mut pool = Pool::start(2, Work::MayBlock, move |token| match token {
            1 => setter.wait(),
            _ => setter.set(),
        });
        pool.poller.report(1);
        pool.poller.report(2);
        flag.wait();
        pool.stop();
    });
}

/// One after the other, two jobs come from outside while one worker leads and the other may sleep: each is
/// served without any further event.
#[test]
fn work_from_outside_wakes_a_follower_every_time() {
    both_ways(2, |work| {
        let (mut pool, flag) = pool_with_flag(2, work);
        for token in [1, 2] {
            pool.push(token);
            flag.wait();
            flag.clear();
        }
        pool.stop();
    });
}

/// A leader and two sleepers: the stop ends all of them.
#[test]
fn the_stop_wakes_every_sleeper() {
    both_ways(2, |work| Pool::start(3, work, |_| {}).stop());
}

/// Several edges, one after the other, while the services promise not to wait: no worker is woken for the vacant lead,
/// and yet one always takes it up again.
#[test]
fn a_vacant_lead_is_taken_up_again() {
    both_ways(2, |work| {
        let (mut pool, flag) = pool_with_flag(2, work);
        for token in [1, 2] {
            pool.poller.report(token);
            flag.wait();
            flag.clear();
        }
        pool.stop();
    });
}

/// A pause calls away a worker that leads, or is about to. Once the pause is over, a worker leads again, and finds the
/// edge that came meanwhile or comes then.
#[test]
fn a_worker_leads_again_after_a_pause() {
    both_ways(2, |work| {
        let (mut pool, flag) = pool_with_flag(2, work);
        pool.queue.pause();
        pool.poller.report(1);
        pool.queue.resume();
        flag.wait();
        pool.stop();
    });
}

fn one_way(preemptions: usize, explore: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(explore);
}

/// With services that may wait, and with services that promise not to.
fn both_ways(preemptions: usize, explore: impl Fn(Work) + Sync + Send + Copy + 'static) {
    for work in [Work::MayBlock, Work::NeverBlocks] {
        one_way(preemptions, move || explore(work));
    }
}

fn add_one(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}
