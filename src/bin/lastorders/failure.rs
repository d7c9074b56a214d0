//! Why the program ends without having done what it was asked to, and with which exit code.

use lastorders::Error;

/// Why the program ends without having done what it was asked to.
pub enum Failure {
    /// The command line is wrong: exit code 2.
    Usage(String),
    /// It could not start or run: exit code 1.
    Run(String),
}

/// Tells what is wrong with the command line from what is wrong with the machine.
pub fn failure(error: Error) -> Failure {
    match error {
        Error::Limit { name, value, expected } => {
            Failure::Usage(format!("--{name} {value} is out of range; choose {expected}"))
        }
        Error::Environment { .. } => Failure::Usage(error.to_string()),
        Error::Forking { .. } => Failure::Usage(format!("--fork: {error}")),
        other => Failure::Run(other.to_string()),
    }
}
