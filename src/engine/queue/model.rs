//! The queue's protocol, model-checked: every interleaving of a few threads, in which a lost wake-up is a deadlock.
//!
//! The accept loop, the workers and the poller are stood in for by the least that can go wrong in their way; what is
//! tested is the queue itself. `make model` runs these, and `make mutants` shows that they notice breaks.

use super::*;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// A poller of the model: the leader waits in it until it is kicked or an event is there.
#[derive(Default)]
struct Poller {
    state: Mutex<(bool, Vec<Token>)>,
    woken: Condvar,
}

impl Poller {
    fn new() -> Poller {
        Poller { state: Mutex::new((false, Vec::new())), woken: Condvar::new() }
    }

    fn wait(&self) -> Vec<Token> {
        let mut state = lock(&self.state);
        while !state.0 && state.1.is_empty() {
            state = self.woken.wait(state).unwrap();
        }
        state.0 = false;
        std::mem::take(&mut state.1)
    }

    fn glance(&self) -> Vec<Token> {
        std::mem::take(&mut lock(&self.state).1)
    }

    fn kick(&self) {
        lock(&self.state).0 = true;
        self.woken.notify_one();
    }

    fn report(&self, token: Token) {
        lock(&self.state).1.push(token);
        self.woken.notify_one();
    }
}

fn work(queue: &Queue, poller: &Poller, serve: impl Fn(Token)) {
    let mut found = Vec::new();
    let mut leads = false;
    loop {
        let bring = if leads { Bring::Ready(&found) } else { Bring::Nothing };
        leads = false;
        match queue.next(bring).0 {
            Job::Serve(token) => serve(token),
            Job::Lead => (found, leads) = (poller.wait(), true),
            Job::Glance => (found, leads) = (poller.glance(), true),
            Job::Stop => return,
        }
    }
}

/// Two workers, one socket from the accept loop and one edge at the poller, then the stop: a lost wake-up
/// would leave a thread asleep for ever, which loom reports as a deadlock.
#[test]
fn every_job_is_served_and_everybody_comes_home() {
    both_ways(3, |prompt| {
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let served = Arc::new(AtomicUsize::new(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, poller, served) = (queue.clone(), poller.clone(), served.clone());
                thread::spawn(move || work(&queue, &poller, |_| add_one(&served)))
            })
            .collect();
        poller.report(1);
        if queue.push(2).kick_leader {
            poller.kick();
        }
        if queue.stop().kick_leader {
            poller.kick();
        }
        for worker in workers {
            worker.join().unwrap();
        }
        let mut left = poller.glance().len();
        while queue.take().is_some() {
            left += 1;
        }
        assert_eq!(served.load(Ordering::Relaxed) + left, 2, "a job was lost or served twice");
    });
}

/// Work that arrives while the only worker leads, or while it takes or gives up the lead, is served without
/// any further event.
#[test]
fn work_from_outside_reaches_a_lone_leader() {
    both_ways(3, |prompt| {
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let served = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (queue, poller, served) = (queue.clone(), poller.clone(), served.clone());
            thread::spawn(move || {
                let mut leads = false;
                while served.load(Ordering::Relaxed) < 2 {
                    let bring = if leads { Bring::Ready(&[]) } else { Bring::Nothing };
                    leads = false;
                    match queue.next(bring).0 {
                        Job::Serve(_) => add_one(&served),
                        Job::Lead => leads = poller.wait().is_empty(),
                        Job::Glance => leads = true,
                        Job::Stop => return,
                    }
                }
            })
        };
        for token in [1, 2] {
            if queue.push(token).kick_leader {
                poller.kick();
            }
        }
        worker.join().unwrap();
    });
}

/// The service of token 1 takes until token 2 is served, and both come by way of the poller: whoever has 1
/// must have passed on the lead, and the follower must have been woken for it.
#[test]
fn the_lead_is_passed_on_before_serving() {
    one_way(3, || {
        let prompt = false;
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, poller, done) = (queue.clone(), poller.clone(), done.clone());
                thread::spawn(move || {
                    work(&queue, &poller, |token| match token {
                        1 => await_done(&done),
                        _ => {
                            *lock(&done.0) = true;
                            done.1.notify_all();
                        }
                    })
                })
            })
            .collect();
        poller.report(1);
        poller.report(2);
        await_done(&done);
        if queue.stop().kick_leader {
            poller.kick();
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// One after the other, two jobs come from outside while one worker leads and the other may sleep: each is
/// served without any further event.
#[test]
fn work_from_outside_wakes_a_follower_every_time() {
    both_ways(2, |prompt| {
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, poller, done) = (queue.clone(), poller.clone(), done.clone());
                thread::spawn(move || {
                    work(&queue, &poller, |_| {
                        *lock(&done.0) = true;
                        done.1.notify_all();
                    })
                })
            })
            .collect();
        for token in [1, 2] {
            if queue.push(token).kick_leader {
                poller.kick();
            }
            await_done(&done);
            *lock(&done.0) = false;
        }
        if queue.stop().kick_leader {
            poller.kick();
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// A leader and two sleepers: the stop brings all of them home.
#[test]
fn the_stop_wakes_every_sleeper() {
    both_ways(2, |prompt| {
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let (queue, poller) = (queue.clone(), poller.clone());
                thread::spawn(move || work(&queue, &poller, |_| {}))
            })
            .collect();
        if queue.stop().kick_leader {
            poller.kick();
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// Several edges, one after the other, while the services promise not to wait: though nobody is woken for
/// the vacant lead, somebody always comes back to it.
#[test]
fn a_vacant_lead_is_taken_up_again() {
    both_ways(2, |prompt| {
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, poller, done) = (queue.clone(), poller.clone(), done.clone());
                thread::spawn(move || {
                    work(&queue, &poller, |_| {
                        *lock(&done.0) = true;
                        done.1.notify_all();
                    })
                })
            })
            .collect();
        for token in [1, 2] {
            poller.report(token);
            await_done(&done);
            *lock(&done.0) = false;
        }
        if queue.stop().kick_leader {
            poller.kick();
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// A pause calls away whoever leads, or is about to: once it is over, somebody leads again, and finds the edge that came
/// meanwhile or comes then.
#[test]
fn somebody_leads_again_after_a_pause() {
    both_ways(2, |prompt| {
        let queue = Arc::new(Queue::new(4, prompt));
        let poller = Arc::new(Poller::new());
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (queue, poller, done) = (queue.clone(), poller.clone(), done.clone());
                thread::spawn(move || {
                    work(&queue, &poller, |_| {
                        *lock(&done.0) = true;
                        done.1.notify_all();
                    })
                })
            })
            .collect();
        if queue.pause().kick_leader {
            poller.kick();
        }
        poller.report(1);
        queue.resume();
        await_done(&done);
        if queue.stop().kick_leader {
            poller.kick();
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

fn one_way(preemptions: usize, explore: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(explore);
}

/// With services that may wait, and with services that promise not to.
fn both_ways(preemptions: usize, explore: impl Fn(bool) + Sync + Send + Copy + 'static) {
    for prompt in [false, true] {
        one_way(preemptions, move || explore(prompt));
    }
}

fn add_one(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn await_done(done: &(Mutex<bool>, Condvar)) {
    let mut guard = lock(&done.0);
    while !*guard {
        guard = done.1.wait(guard).unwrap();
    }
}
