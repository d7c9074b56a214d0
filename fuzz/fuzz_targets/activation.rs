//! The variables of a supervisor that passes sockets: read as sd_listen_fds(3) has it, or refused.
#![no_main]

use lastorders::invariants::activation;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| activation(data));
