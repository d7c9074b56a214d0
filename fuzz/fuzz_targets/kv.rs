//! The kv protocol: every line has the answer that a model gives.
#![no_main]

use lastorders::invariants::{Case, kv};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| kv(&Case::new(data)));
