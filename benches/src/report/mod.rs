//! `docs/benchmarks.md`: the figures, how they came about, and what was tried.

pub mod loads;
