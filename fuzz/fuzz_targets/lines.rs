//! Line framing: any split of any bytes gives the same lines.
#![no_main]

use lastorders::invariants::{Case, lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| lines(&Case::new(data)));
