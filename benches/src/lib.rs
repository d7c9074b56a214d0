//! The benchmarks: what is measured, against whom, and how the figures become `docs/benchmarks.md`.
//!
//! In reading order: [`server`] starts a server as a process and reads what it costs, [`load`] makes its clients'
//! traffic and counts what they see, [`plan`] says which servers meet which loads, [`rounds`] interleaves them and
//! takes medians, [`memory`], [`notices`], [`growth`] and [`instructions`] ask the other questions, [`report`] and
//! [`chart`] write the answers down. [`peer`] is shared by the servers of comparison in `src/bin`.

pub mod chart;
pub mod growth;
pub mod instructions;
pub mod load;
pub mod machine;
pub mod memory;
pub mod notices;
pub mod peer;
pub mod plan;
pub mod report;
pub mod rounds;
pub mod server;
pub mod table;
