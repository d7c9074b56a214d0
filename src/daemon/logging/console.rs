//! The console: standard error.

use std::io;

use super::backlog::Form;
use super::line;
use crate::daemon::output::Output;

/// Opens the console, and chooses the form of its lines. `None` when there is no standard error, as nobody reads it.
pub(crate) fn open() -> Option<(Output, Form)> {
    let output = Output::new(io::stderr()).ok()?;
    // systemd tells so that standard error leads to the journal (systemd.exec(5)).
    let journal = std::env::var("JOURNAL_STREAM").ok();
    let own = output.identity().ok().map(|(device, inode)| format!("{device}:{inode}"));
    let form = if journal.is_some() && journal == own { line::for_journal } else { line::stamped };
    Some((output, form))
}
