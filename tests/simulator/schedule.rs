//! Which thread takes the next step: a seed's choice, in one of three ways.
//!
//! The world (the task of clients, network and time) can always run. Where no thread of the server can, the server is
//! idle, and the world may look at everything at rest.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use crate::dice::Dice;
use crate::sim::fail;

/// More steps than any simulation takes: the server spins.
const MOST_STEPS: u64 = 3_000_000;

thread_local! {
    static IS_IDLE: Cell<bool> = const { Cell::new(false) };
    static STEPS: Cell<u64> = const { Cell::new(0) };
    static TASK: Cell<usize> = const { Cell::new(0) };
    static IS_FAIR: Cell<bool> = const { Cell::new(false) };
}

/// True while no thread of the server can run.
pub(crate) fn is_idle() -> bool {
    IS_IDLE.get()
}

/// Steps of this simulation so far.
pub(crate) fn steps() -> u64 {
    STEPS.get()
}

/// True when every thread gets its share of the steps.
pub(crate) fn is_fair() -> bool {
    IS_FAIR.get()
}

/// The number of the task that runs; the world's is 0.
pub(crate) fn task() -> usize {
    TASK.get()
}

/// How the threads of the server are chosen among.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Each step any of them.
    Uniform,
    /// The same again, but for one step in so many.
    Sticky(u64),
    /// The one of the highest priority; one step in so many, the running one gets the lowest ("A Randomized Scheduler
    /// with Probabilistic Guarantees of Finding Bugs", Burckhardt et al., 2010).
    Priorities(u64),
}

pub(crate) struct Seeded {
    seeds: Box<dyn FnMut() -> Option<u64>>,
    dice: Dice,
    way: Way,
    /// The world has one step in so many.
    world: u64,
    priorities: Vec<u64>,
    total: Rc<AtomicU64>,
}

impl Seeded {
    /// Schedules one simulation for each seed. Adds their steps to `total`.
    pub(crate) fn new(seeds: Box<dyn FnMut() -> Option<u64>>, total: Rc<AtomicU64>) -> Seeded {
        Seeded { seeds, dice: Dice::new(0), way: Way::Uniform, world: 1, priorities: vec![], total }
    }

    fn choose(&mut self, runnable: &[usize], current: Option<usize>) -> usize {
        let current = current.filter(|current| runnable.contains(current));
        match (self.way, current) {
            (Way::Sticky(times), Some(current)) if !self.dice.once_in(times) => current,
            (Way::Priorities(times), current) => {
                let most = runnable.iter().max().map_or(0, |most| most + 1);
                while self.priorities.len() < most {
                    self.priorities.push(1 + (self.dice.next() >> 1));
                }
                if let Some(current) = current
                    && self.dice.once_in(times)
                {
                    self.priorities[current] = self.priorities.iter().min().map_or(0, |least| least.saturating_sub(1));
                }
                runnable.iter().copied().max_by_key(|task| self.priorities[*task]).unwrap_or(0)
            }
            _ => self.dice.pick(runnable),
        }
    }
}

impl Scheduler for Seeded {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.total.fetch_add(STEPS.replace(0), Ordering::Relaxed);
        let seed = (self.seeds)()?;
        self.dice = Dice::new(!seed);
        self.world = self.dice.pick(&[2, 4, 10, 30, 100, 300]);
        self.way = match self.dice.index(3) {
            0 => Way::Uniform,
            1 => Way::Sticky(self.dice.pick(&[3, 10, 40])),
            _ => Way::Priorities(self.dice.pick(&[20, 100, 500])),
        };
        IS_FAIR.set(matches!(self.way, Way::Uniform));
        self.priorities.clear();
        Some(Schedule::new(seed))
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, _is_yielding: bool) -> Option<TaskId> {
        STEPS.set(STEPS.get() + 1);
        if STEPS.get() > MOST_STEPS {
            fail("the server spins: no end after 3,000,000 steps");
        }
        let others: Vec<usize> = runnable.iter().map(|task| usize::from(task.id())).filter(|task| *task != 0).collect();
        let world_can = others.len() < runnable.len();
        IS_IDLE.set(others.is_empty());
        let task = match world_can && (others.is_empty() || self.dice.once_in(self.world)) {
            true => 0,
            false => self.choose(&others, current.map(usize::from)),
        };
        TASK.set(task);
        Some(task.into())
    }

    fn next_u64(&mut self) -> u64 {
        self.dice.next()
    }
}
