//! `--console`: Enter, or the end of standard input, stops the server.
//!
//! A thread of its own waits for it, which the end of the process does not wait for.

use std::io::{self, BufRead, Write};
use std::thread;

use lastorders::ServerHandle;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::failure::Failure;

/// Bytes of the waiting thread's stack.
const STACK: usize = *lastorders::config::STACK.start();

/// Asks for Enter, and starts the shutdown when it comes.
///
/// # Errors
/// When there is no thread to wait with.
pub fn watch(server: ServerHandle) -> Result<(), Failure> {
    // Signals are the accept loop's. All but this one: in the background, a read from the terminal stops the
    // process as it does every other; with the signal blocked it would fail, and look like the end of input.
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGTTIN);
    let mask = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK);
    say("Press Enter to quit.");
    let thread = thread::Builder::new().name("console".into()).stack_size(STACK).spawn(move || wait(&server));
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    thread.map(drop).map_err(|error| Failure::Run(format!("cannot start the console's thread: {error}")))
}

fn wait(server: &ServerHandle) {
    // However long the line is, nothing of it is kept. A failed read is the end of input too.
    let _ = io::stdin().lock().skip_until(b'\n');
    say("Waiting for server to shut down...");
    server.shutdown();
}

/// Tells the person at the console. Nobody there is no reason to stop.
pub fn say(text: &str) {
    let _ = io::stdout().lock().write_all(format!("{text}\n").as_bytes());
}
