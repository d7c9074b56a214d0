//! The command protocol: one line, one answer.
#![no_main]

use lastorders::invariants::{Case, command};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| command(&Case::new(data)));
