//! The program: which seeds, for how long, and what it says in the end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{env, panic, thread};

use log::{LevelFilter, Log, Metadata, Record};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::schedule::Seeded;
use crate::sim::{Summary, fail, is_running, simulate, with};

/// The server's log, of which the oracles read each line.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if is_running() {
            let line = record.args().to_string();
            with(|sim| sim.logged(&line));
        }
    }

    fn flush(&self) {}
}

fn complain(text: &str) -> ! {
    eprintln!("{text}");
    std::process::exit(2);
}

fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| complain(&format!("{name}={text} is no number"))))
}

/// The seeds that have found something: the first word of each line that is no comment.
fn kept() -> VecDeque<u64> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds/found");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| complain(&format!("{}: {error}", path.display())));
    let words = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next());
    words.map(|word| word.parse().unwrap_or_else(|_| complain(&format!("{word} is no seed")))).collect()
}

pub(crate) fn main() {
    static LINES: Lines = Lines;
    let _ = log::set_logger(&LINES);
    log::set_max_level(LevelFilter::Info);
    panic::set_hook(Box::new(|info| fail(&info.to_string())));
    if let Some(seed) = number("SEED") {
        let once = |shows_all| run([seed].into(), None, shows_all);
        let hash = once(env::var_os("TRACE").is_some());
        if once(false) != hash {
            complain(&format!("SEED={seed} made two different traces"));
        }
        return;
    }
    let time = Duration::from_secs_f64(60.0 * number("MINUTES").unwrap_or(2.0_f64).clamp(0.0, 1e6));
    if let Some(first) = number("FIRST") {
        run(VecDeque::new(), Some((first, time)), false);
        return;
    }
    run(kept(), None, false);
    let now = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64);
    let from = number("FROM").unwrap_or_else(now);
    let program = env::current_exe().unwrap_or_else(|error| complain(&error.to_string()));
    let processors = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    // A process for each: a simulation is one thread.
    let begin = |number: u64| Command::new(&program).env("FIRST", from.wrapping_add(number << 32).to_string()).spawn();
    let children: Vec<_> = (0..processors).map(begin).collect();
    let end = |child: std::io::Result<std::process::Child>| child.and_then(|mut child| child.wait());
    if !children
        .into_iter()
        .map(end)
        .collect::<Vec<_>>()
        .iter()
        .all(|ended| ended.as_ref().is_ok_and(|code| code.success()))
    {
        std::process::exit(1);
    }
}

/// Simulates what these seeds make, and then new ones for a time. Returns the hash of the last trace.
fn run(seeds: VecDeque<u64>, new: Option<(u64, Duration)>, shows_all: bool) -> u64 {
    let start = Instant::now();
    let (name, mut next) = match (&new, seeds.front()) {
        (Some((first, _)), _) => (format!("SEED={first} on"), *first),
        (None, Some(first)) if seeds.len() == 1 => (format!("SEED={first}"), 0),
        _ => ("tests/seeds".into(), 0),
    };
    let (seeds, current) = (RefCell::new(seeds), Arc::new(AtomicU64::new(0)));
    let choose = {
        let current = current.clone();
        move || {
            let seed = match (seeds.borrow_mut().pop_front(), &new) {
                (Some(seed), _) => seed,
                (None, Some((_, time))) if start.elapsed() < *time => next,
                _ => return None,
            };
            next = seed.wrapping_add(1);
            current.store(seed, Ordering::Relaxed);
            Some(seed)
        }
    };
    let mut config = Config::new();
    config.stack_size = 256 * 1_024;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::None;
    config.silence_warnings = true;
    let (sums, steps) = (Arc::new(Mutex::new(Summary::default())), Rc::new(AtomicU64::new(0)));
    let total = sums.clone();
    let count = Runner::new(Seeded::new(Box::new(choose), steps.clone()), config).run(move || {
        let summary = simulate(current.load(Ordering::Relaxed), shows_all);
        if let Ok(mut total) = total.lock() {
            *total = Summary {
                hash: summary.hash,
                time: total.time + summary.time / 1_000_000_000,
                connections: total.connections + summary.connections,
            };
        }
    });
    let total = sums.lock().map_or_else(|_| Summary::default(), |total| *total);
    println!(
        "{name}: {count} simulations, {:.1} years, {} connections, {:.1} million steps in {:.1} s, trace {:016x}",
        total.time as f64 / 31_556_952.0,
        total.connections,
        steps.load(Ordering::Relaxed) as f64 / 1e6,
        start.elapsed().as_secs_f64(),
        total.hash,
    );
    total.hash
}
