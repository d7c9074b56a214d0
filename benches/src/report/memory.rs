//! The table of memory: a row for each server, a column for each number of clients.

use crate::memory::{CLIENTS, Held};
use crate::table::{Table, whole};

pub fn table(all: &[Held]) -> String {
    let head: Vec<String> = CLIENTS.iter().map(|clients| format!("{} clients", whole(*clients as f64))).collect();
    let mut table = Table::new(1, ["server"].into_iter().chain(head.iter().map(String::as_str)));
    for row in all.chunks(CLIENTS.len()) {
        table.row([row[0].program.name().to_string()].into_iter().chain(row.iter().map(cell)));
    }
    table.print()
}

fn cell(held: &Held) -> String {
    match held.memory {
        None => "failed".into(),
        Some(memory) if held.starved > 0 => format!("{} ({} starved)", whole(memory), whole(held.starved as f64)),
        Some(memory) => whole(memory),
    }
}
