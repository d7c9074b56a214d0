//! A table of how cost grows: a row for each server, a column for each step.

use crate::rounds::Cell;
use crate::table::{Table, figure, whole};

/// The groups are the steps; each has the same servers in the same order.
pub fn table(what: &str, steps: &[usize], groups: &[Vec<Cell>]) -> String {
    let head: Vec<String> = steps.iter().map(|step| whole(*step as f64)).collect();
    let mut table = Table::new(1, [what].into_iter().chain(head.iter().map(String::as_str)));
    for (server, first) in groups[0].iter().enumerate() {
        let cells = groups.iter().map(|group| cell(&group[server]));
        table.row([first.program.name().to_string()].into_iter().chain(cells));
    }
    table.print()
}

fn cell(cell: &Cell) -> String {
    let Some(sample) = cell.median() else { return "failed".into() };
    let text = format!("{} ({})", figure(sample.cpu), whole(sample.requests_per_second / 1e3));
    if sample.starved > 0.0 { format!("{text}, {} starved", whole(sample.starved)) } else { text }
}
