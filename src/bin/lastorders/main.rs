//! The daemon: reads its options, puts a server together, and reports. Everything else is the library's.

#![cfg_attr(fuzzing, no_main, allow(dead_code))]
#![deny(unsafe_code)]
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod activation;
mod background;
mod client;
mod commands;
mod console;
mod control;
mod failure;
#[cfg(fuzzing)]
#[path = "../../../fuzz/fuzz_targets/daemon.rs"]
mod fuzz;
mod logging;
mod options;
mod pid_file;
mod privileges;
mod send;
mod serve;
mod supervisor;
mod usage;
mod values;

use std::process::ExitCode;

use commands::Command;
use failure::Failure;

fn main() -> ExitCode {
    let outcome = commands::parse(std::env::args_os()).and_then(|command| match command {
        Command::Serve(serve) => serve::run(*serve),
        Command::Client(client) => client::run(client),
        Command::Control(control) => control::run(control),
        Command::Send(send) => send::run(send),
        Command::Print(text) => print(&text),
    });
    let (text, code) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Run(text)) => (text, 1),
    };
    // A closed standard error must not turn an error into a panic.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("lastorders: {text}\n").as_bytes());
    ExitCode::from(code)
}

/// Prints a text that was asked for.
pub fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
    written.map_err(|error| Failure::Run(format!("cannot write to standard output: {error}")))
}
