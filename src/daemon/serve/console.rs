//! `--console`: Enter, or the end of standard input, stops the server.
//!
//! A thread of its own reads standard input, and starts the shutdown. The process does not wait for that thread at its
//! own end. Messages to the user go to standard output, which nothing waits for.

use std::io::{self, BufRead};
use std::thread;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::config;
use crate::daemon::output::show;
use crate::shutdown::ServerHandle;

/// Asks for Enter, and starts a thread that stops the server when Enter comes.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn watch(server: ServerHandle) -> Result<(), String> {
    // The accept loop handles the signals, so the thread blocks all but SIGTTIN. The kernel sends that one to a
    // process in the background that reads the terminal, and stops the process, as it should. With the signal
    // blocked the read would fail instead, which looks like the end of input.
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGTTIN);
    let mask = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK);
    show(io::stdout(), "Press Enter to quit.\n");
    // The smallest stack that a thread of this program may have.
    let thread = thread::Builder::new().name("console".into()).stack_size(*config::STACK.start());
    let thread = thread.spawn(move || wait(&server));
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    thread.map(drop).map_err(|error| format!("cannot start the console's thread: {error}"))
}

fn wait(server: &ServerHandle) {
    // Skipping keeps nothing of the line, however long it is. A failed read counts as the end of input.
    let _ = io::stdin().lock().skip_until(b'\n');
    show(io::stdout(), "Waiting for server to shut down...\n");
    server.shutdown();
}
