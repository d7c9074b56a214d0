//! How the cost of a request grows: the same 64 busy clients beside more and more silent ones, and with more and more
//! workers.

use crate::load::{Crowd, Load, Script, Traffic};
use crate::rounds::Cell;
use crate::server::{Program, Service, Size};

/// Silent connections beside the busy ones.
pub const SILENT: [usize; 5] = [1, 10, 100, 1_000, 4_000];
pub const WORKERS: [usize; 4] = [1, 2, 4, 8];
/// The busy ones.
pub const BUSY: usize = 64;

const PROGRAMS: [Program; 3] = [Program::Lastorders, Program::Tokio, Program::Epoll];

/// A group of rivals for each number of silent connections.
pub fn by_connections() -> Vec<Vec<Cell>> {
    SILENT.iter().map(|silent| PROGRAMS.map(|program| cell(program, *silent, 4)).into()).collect()
}

/// A group of rivals for each number of workers.
pub fn by_workers() -> Vec<Vec<Cell>> {
    WORKERS.iter().map(|workers| PROGRAMS.map(|program| cell(program, 0, *workers)).into()).collect()
}

fn cell(program: Program, silent: usize, workers: usize) -> Cell {
    let load = Load { clients: BUSY, traffic: Traffic::Steady(Script::echo()), crowd: Crowd::silent(silent) };
    let cell = Cell::new(program, Service::Echo, load);
    Cell { size: Size { workers, ..cell.size }, ..cell }
}
