//! What reading a command's words comes to, and how a command fails.
//!
//! A command reads its words into an [`Action`], which the program runs. A [`Failure`] carries the text for standard
//! error and stands for the exit code. Nothing here ends the process.

use std::io::{self, Write};

use crate::error::Error;

/// What a command will do, once its words have been read.
pub(crate) type Action = Box<dyn FnOnce() -> Result<(), Failure>>;

/// Why the program ends without having done what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// The command could not start or run: exit code 1.
    Run(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            Error::Limit { name, value, expected } => {
                Failure::Usage(format!("--{name} {value} is out of range; choose {expected}"))
            }
            Error::Environment { .. } => Failure::Usage(error.to_string()),
            Error::Forking { .. } => Failure::Usage(format!("--fork: {error}")),
            other => Failure::Run(other.to_string()),
        }
    }
}

/// A command that prints a text.
pub(crate) fn printing(text: impl Into<String>) -> Action {
    let text = text.into();
    Box::new(move || print(&text))
}

/// Writes a text that the user asked for to standard output.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let written = io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure::Run(format!("cannot write to standard output: {error}")))
}

/// Writes why the program fails to standard error. A closed standard error must not turn a failure into a panic, so
/// an error of the write is dropped.
pub(crate) fn complain(text: &str) {
    let _ = io::stderr().write_all(format!("lastorders: {text}\n").as_bytes());
}
