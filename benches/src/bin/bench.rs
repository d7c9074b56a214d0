//! The benchmarks: measures, prints the tables, and writes `docs/benchmarks.md` and its chart.
//!
//! `bench [--quick] [--rounds N] [--seconds S] [--output DIR]`, or, to measure only some loads and write nothing,
//! `bench --load PART-OF-ITS-NAME [--server PART-OF-ITS-NAME]...`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastorders_benches::instructions::{self, Counter};
use lastorders_benches::plan::{Case, cases};
use lastorders_benches::report::{Results, loads};
use lastorders_benches::rounds::{self, Cell, Effort};
use lastorders_benches::server::{Program, daemon};
use lastorders_benches::{chart, growth, memory, notices};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Clients and a few more: the servers inherit it.
const DESCRIPTORS: u64 = 8_192;

struct Options {
    effort: Effort,
    quick: bool,
    load: Option<String>,
    servers: Vec<String>,
    output: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    if !daemon().is_file() {
        return Err(format!("no {}: run `cargo build --release` first", daemon().display()).into());
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < DESCRIPTORS {
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, hard.max(DESCRIPTORS))
            .map_err(|error| format!("{DESCRIPTORS} file descriptors are needed, {soft} are allowed: {error}"))?;
    }
    let chosen = |program: &Program| {
        options.servers.is_empty() || options.servers.iter().any(|part| program.name().contains(&**part))
    };
    let installed: Vec<Program> =
        Program::ALL.into_iter().filter(chosen).filter(|program| program.is_installed()).collect();
    let mut cases = cases();
    cases.retain(|case| options.load.as_ref().is_none_or(|part| case.name.contains(&**part)));

    let groups = meet(&cases, &installed, options.effort);
    if options.load.is_some() || !options.servers.is_empty() {
        println!("{}", loads::table(&cases, &groups));
        return Ok(());
    }
    let results = ask_the_rest(cases, groups, &installed, &options)?;
    println!("{}", results.figures());
    if !options.quick {
        let notes = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("notes.md"))?;
        fs::create_dir_all(&options.output)?;
        fs::write(options.output.join("benchmarks.md"), results.document(&notes))?;
        chart::draw(&results, &options.output.join("benchmarks.svg"))?;
    }
    Ok(())
}

/// Every load, every server.
fn meet(cases: &[Case], installed: &[Program], effort: Effort) -> Vec<Vec<Cell>> {
    let cell = |case: &Case, program| Cell::new(program, case.service, case.load(program));
    let mut groups: Vec<Vec<Cell>> =
        cases.iter().map(|case| case.programs(installed).map(|program| cell(case, program)).collect()).collect();
    measure(&mut groups, effort, |number| cases[number].name.to_string());
    groups
}

fn measure(groups: &mut [Vec<Cell>], effort: Effort, name: impl Fn(usize) -> String) {
    rounds::run(groups, effort, |round, number| {
        eprintln!("round {} of {}: {}", round + 1, effort.rounds, name(number));
    });
    for cell in groups.iter().flatten() {
        if let Some(failure) = &cell.failure {
            eprintln!("{}: {failure}", cell.program.name());
        }
    }
}

fn ask_the_rest(
    cases: Vec<Case>,
    groups: Vec<Vec<Cell>>,
    installed: &[Program],
    options: &Options,
) -> Result<Results, Box<dyn Error>> {
    let effort = options.effort;
    let mut by_connections = growth::by_connections();
    measure(&mut by_connections, effort, |step| format!("64 clients beside {} silent", growth::SILENT[step]));
    let mut by_workers = growth::by_workers();
    measure(&mut by_workers, effort, |step| format!("64 clients, {} workers", growth::WORKERS[step]));
    eprintln!("memory");
    let memory = memory::measure(installed, effort.rounds.div_ceil(2));
    eprintln!("notices");
    let notices = Some(notices::measure(effort.rounds.max(5))?);
    let mut counts = Vec::new();
    let counter = Counter::callgrind();
    if !options.quick && counter.is_installed() {
        for counted in instructions::ALL {
            eprintln!("instructions: {}", counted.name);
            counts.push((counted.name, counted.measure(&counter)?));
        }
    }
    Ok(Results { effort, cases, groups, memory, by_connections, by_workers, notices, instructions: counts })
}

fn options() -> Result<Options, Box<dyn Error>> {
    use lexopt::prelude::*;
    let effort = Effort { rounds: 5, time: Duration::from_secs(1) };
    let output = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut options = Options { effort, quick: false, load: None, servers: Vec::new(), output };
    let mut words = lexopt::Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Long("quick") => {
                options.quick = true;
                options.effort = Effort { rounds: 1, time: Duration::from_millis(400) };
            }
            Long("rounds") => options.effort.rounds = words.value()?.parse()?,
            Long("seconds") => options.effort.time = Duration::from_secs_f64(words.value()?.parse()?),
            Long("load") => options.load = Some(words.value()?.string()?),
            Long("server") => options.servers.push(words.value()?.string()?),
            Long("output") => options.output = words.value()?.into(),
            other => return Err(other.unexpected().into()),
        }
    }
    if options.effort.rounds == 0 || options.effort.time.is_zero() {
        return Err("--rounds and --seconds must be more than 0".into());
    }
    Ok(options)
}
