//! Interleaved rounds: in each, every server meets every load once, right after its rivals.
//!
//! Noise comes in waves that are longer than a measurement, so rivals are measured next to each other, in a different
//! order each round, and medians are taken over the rounds. Errors and starved clients are those of the worst round.

use std::io;
use std::time::Duration;

use crate::load::{Load, Sample};
use crate::server::{Program, Server, Service, Size};

/// One server under one load: a row of the table.
pub struct Cell {
    pub program: Program,
    pub service: Service,
    pub size: Size,
    pub load: Load,
    pub samples: Vec<Sample>,
    /// Why a round of it has no sample.
    pub failure: Option<String>,
}

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    pub time: Duration,
}

impl Cell {
    pub fn new(program: Program, service: Service, load: Load) -> Cell {
        let size = Size::for_clients(load.connections());
        Cell { program, service, size, load, samples: Vec::new(), failure: None }
    }

    fn measure(&self, time: Duration) -> io::Result<Sample> {
        let server = Server::start(self.program, self.service, self.size)?;
        self.load.run(&server, time)
    }

    /// Medians; `None` when no round came to an end.
    pub fn median(&self) -> Option<Sample> {
        if self.samples.is_empty() {
            return None;
        }
        let all = |field: fn(&Sample) -> f64| self.samples.iter().map(field);
        let worst = |field| all(field).fold(0.0, f64::max);
        Some(Sample {
            requests_per_second: median(all(|sample| sample.requests_per_second)),
            p50: median(all(|sample| sample.p50)),
            p99: median(all(|sample| sample.p99)),
            cpu: median(all(|sample| sample.cpu)),
            memory: median(all(|sample| sample.memory)),
            errors: worst(|sample| sample.errors),
            starved: worst(|sample| sample.starved),
        })
    }
}

/// The one in the middle, or between the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[length / 2],
        length => (values[length / 2 - 1] + values[length / 2]) / 2.0,
    }
}

/// Measures groups of rivals. `say` gets a line about what is done.
pub fn run(groups: &mut [Vec<Cell>], effort: Effort, mut say: impl FnMut(usize, usize)) {
    for round in 0..effort.rounds {
        for (number, group) in groups.iter_mut().enumerate() {
            say(round, number);
            let length = group.len();
            for turn in 0..length {
                let cell = &mut group[(turn + round) % length];
                match cell.measure(effort.time) {
                    Ok(sample) => cell.samples.push(sample),
                    Err(error) => cell.failure = Some(error.to_string()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
    }
}
