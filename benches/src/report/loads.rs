//! The table of loads: a block of rows for each, a row for each server, and what that is in terms of tokio's.

use crate::plan::Case;
use crate::rounds::Cell;
use crate::server::Program;
use crate::table::{Table, figure, ratio, whole};

const HEAD: [&str; 12] = [
    "load",
    "server",
    "requests/s",
    "to tokio",
    "p50 µs",
    "p99 µs",
    "CPU µs/request",
    "to tokio",
    "peak KiB",
    "to tokio",
    "errors",
    "starved",
];

/// The whole table; the groups are the cases' cells.
pub fn table(cases: &[Case], groups: &[Vec<Cell>]) -> String {
    let mut table = Table::new(2, HEAD);
    for (case, cells) in cases.iter().zip(groups) {
        let tokio = cells.iter().find(|cell| cell.program == Program::Tokio).and_then(Cell::median);
        for (number, cell) in cells.iter().enumerate() {
            let name = if number == 0 { case.name } else { "" };
            let mut row = vec![name.to_string(), cell.program.name().to_string()];
            let Some(sample) = cell.median() else {
                row.extend((2..HEAD.len()).map(|_| "failed".to_string()));
                table.row(row);
                continue;
            };
            let starved = format!("{} of {}", whole(sample.starved), case.clients);
            row.extend([
                whole(sample.requests_per_second),
                ratio(sample.requests_per_second, tokio.map(|tokio| tokio.requests_per_second)),
                latency(sample.p50),
                latency(sample.p99),
                figure(sample.cpu),
                ratio(sample.cpu, tokio.map(|tokio| tokio.cpu)),
                whole(sample.memory),
                ratio(sample.memory, tokio.map(|tokio| tokio.memory)),
                whole(sample.errors),
                if sample.starved > 0.0 { starved } else { "0".into() },
            ]);
            table.row(row);
        }
    }
    table.print()
}

/// Where no client was served there is no latency.
fn latency(micros: f64) -> String {
    if micros == 0.0 { "-".into() } else { figure(micros) }
}
