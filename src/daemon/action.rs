//! What a command does once its words have been read, and how a command fails.
//!
//! A command reads its words into an [`Action`], and the program runs the action. A [`Failure`] carries the text for
//! standard error, and its variant decides the exit code. Nothing here ends the process.

use std::io::{self, Write};

use super::output::show;
use crate::error::Error;

/// What a command will do, once its words have been read.
pub(crate) type Action = Box<dyn FnOnce() -> Result<(), Failure>>;

/// Why the program ends without having done what the command line asks for.
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
            // A limit is called as its option.
            Error::Limit { .. } => Failure::Usage(format!("--{error}")),
            Error::Environment { .. } | Error::TooManyListeners { .. } => Failure::Usage(error.to_string()),
            Error::Forking { .. } => Failure::Usage(format!("--fork: {error}")),
            _ => Failure::Run(error.to_string()),
        }
    }
}

/// A bare text is a failure to run. What is wrong with the command line is made a [`Failure::Usage`] where it is found.
impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Run(text)
    }
}

/// A command that prints a text.
pub(crate) fn printing(text: impl AsRef<str> + 'static) -> Action {
    Box::new(move || Ok(print(text.as_ref())?))
}

/// Writes a text that the user asked for to standard output.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| format!("cannot write to standard output: {error}"))
}

/// Writes why the program fails to standard error, as far as it takes that at once: nobody may be there to read it.
pub(crate) fn print_error(text: &str) {
    let mut line = String::from("lastorders: ");
    for letter in text.chars() {
        // A value may hold anything, and the error is one line.
        match letter.is_control() {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line.push('\n');
    show(io::stderr(), &line);
}
