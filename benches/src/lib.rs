//! The benchmarks: what is measured, against whom, and how the figures become `docs/benchmarks.md`.
//!
//! In reading order: [`server`] starts a server as a process and reads what it costs, [`load`] makes its clients'
//! traffic and counts what they see, [`plan`] says which servers meet which loads, [`rounds`] interleaves them and
//! takes medians, [`table`] and [`report`] write them down. [`peer`] is shared by the servers of comparison in `src/bin`.

pub mod load;
pub mod peer;
pub mod plan;
pub mod report;
pub mod rounds;
pub mod server;
pub mod table;
