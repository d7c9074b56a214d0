//! Command lines and environments: any of them is read, or refused in one line that says what would be right.
#![no_main]

use lastorders::invariants::options;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| options(data));
