//! Requests on the control socket: the same however they arrive, and refusals are harmless.
#![no_main]

use lastorders::invariants::{Case, control};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| control(&Case::new(data)));
