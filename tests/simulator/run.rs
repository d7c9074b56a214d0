//! The program: which seeds, for how long, and what it says in the end.

use std::cell::Cell;
use std::panic;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use log::{LevelFilter, Log, Metadata, Record};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::schedule::Seeded;
use crate::sim::{fail, is_running, simulate, with};

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

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => {
            eprintln!("{name}={text} is no number");
            std::process::exit(2);
        }
    }
}

pub(crate) fn main() {
    static LINES: Lines = Lines;
    let _ = log::set_logger(&LINES);
    log::set_max_level(LevelFilter::Info);
    panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        if !text.contains("on purpose") {
            fail(&text);
        }
    }));
    let (shows_all, seed, start) = (number("TRACE").is_some(), number("SEED"), Instant::now());
    let time = Duration::from_secs_f64(number("SECONDS").unwrap_or(60 * number("MINUTES").unwrap_or(2)) as f64);
    let first = seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_nanos() as u64));
    let (next, total) = (Rc::new(Cell::new(first)), Arc::new(AtomicU64::new(0)));
    let seeds = {
        let next = next.clone();
        Box::new(move || {
            let (this, is_over) = (next.get(), start.elapsed() >= time || seed.is_some());
            next.set(this.wrapping_add(1));
            (this == first || !is_over).then_some(this)
        })
    };
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::None;
    config.silence_warnings = true;
    let (simulated, connections, current) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(first));
    let sums = Arc::new((simulated, connections, current, AtomicU64::new(0)));
    let kept = sums.clone();
    let count = Runner::new(Seeded::new(seeds, total.clone()), config).run(move || {
        let (simulated, connections, current, hash) = &*kept;
        let summary = simulate(current.fetch_add(1, Ordering::Relaxed), shows_all);
        simulated.fetch_add(summary.time / 1_000_000_000, Ordering::Relaxed);
        connections.fetch_add(summary.connections as u64, Ordering::Relaxed);
        hash.store(summary.hash, Ordering::Relaxed);
    });
    let (simulated, connections, _, hash) = &*sums;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{count} simulations from SEED={first}: {:.1} years, {} connections, {:.1} million steps in {seconds:.1} s; trace {:016x}",
        simulated.load(Ordering::Relaxed) as f64 / 31_556_952.0,
        connections.load(Ordering::Relaxed),
        total.load(Ordering::Relaxed) as f64 / 1e6,
        hash.load(Ordering::Relaxed),
    );
}
