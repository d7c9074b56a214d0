//! The benchmarks: measures, prints the table, and writes `docs/benchmarks.md` and its chart.
//!
//! `bench [--quick] [--rounds N] [--seconds S] [--load TEXT] [--server NAME]...`; with `--load` (a part of its name)
//! or `--server` it measures only those and writes nothing.

use std::error::Error;
use std::time::Duration;

use lastorders_benches::plan::cases;
use lastorders_benches::report;
use lastorders_benches::rounds::{self, Cell, Effort};
use lastorders_benches::server::{Program, daemon};

struct Options {
    effort: Effort,
    load: Option<String>,
    servers: Vec<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    if !daemon().is_file() {
        return Err(format!("no {}: run `cargo build --release` first", daemon().display()).into());
    }
    let chosen = |name: &str| options.servers.is_empty() || options.servers.iter().any(|part| name.contains(&**part));
    let installed: Vec<Program> =
        Program::ALL.into_iter().filter(|program| chosen(program.name()) && program.is_installed()).collect();
    let mut cases = cases();
    cases.retain(|case| options.load.as_ref().is_none_or(|part| case.name.contains(&**part)));

    let cell = |case: &lastorders_benches::plan::Case, program| Cell::new(program, case.service, case.load(program));
    let mut groups: Vec<Vec<Cell>> =
        cases.iter().map(|case| case.programs(&installed).map(|program| cell(case, program)).collect()).collect();
    rounds::run(&mut groups, options.effort, |round, number| {
        eprintln!("round {} of {}: {}", round + 1, options.effort.rounds, cases[number].name);
    });
    for cell in groups.iter().flatten() {
        if let Some(failure) = &cell.failure {
            eprintln!("{}: {failure}", cell.program.name());
        }
    }
    println!("{}", report::loads::table(&cases, &groups));
    Ok(())
}

fn options() -> Result<Options, Box<dyn Error>> {
    use lexopt::prelude::*;
    let effort = Effort { rounds: 5, time: Duration::from_secs(1) };
    let mut options = Options { effort, load: None, servers: Vec::new() };
    let mut words = lexopt::Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Long("quick") => options.effort = Effort { rounds: 2, time: Duration::from_millis(200) },
            Long("rounds") => options.effort.rounds = words.value()?.parse()?,
            Long("seconds") => options.effort.time = Duration::from_secs_f64(words.value()?.parse()?),
            Long("load") => options.load = Some(words.value()?.string()?),
            Long("server") => options.servers.push(words.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}
