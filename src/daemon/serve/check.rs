//! `--check`: what a start does up to serving, undone again.
//!
//! In come the builder and the settings, out goes the text to print: what the server will use at most, and notes. What a
//! running server has in use is a note, because that is most likely the server with these options, which the check
//! does not disturb. No file stays that was not there.

use super::pid_file::PidFile;
use super::settings::Settings;
use crate::daemon::action::Failure;
use crate::daemon::logging::LogFile;
use crate::server::Builder;

/// Tries what a start tries, in the same order and with the same rights. The process has the rights of `--user` then.
///
/// # Errors
/// With what does not fit.
pub(crate) fn check(builder: Builder, settings: &Settings, mut notes: Vec<String>) -> Result<String, Failure> {
    let budget = builder.budget()?;
    notes.extend(match &settings.user {
        Some(user) => user.with_file_rights(|| check_files(builder, settings))?,
        None => check_files(builder, settings),
    }?);
    if let Some(path) = &settings.pid_file {
        notes.extend(PidFile::check(path)?);
    }
    if let Some(user) = &settings.user {
        user.become_user()?;
    }
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(format!("{budget}\n{notes}"))
}

/// What a server does with the rights to files that it will have.
fn check_files(builder: Builder, settings: &Settings) -> Result<Vec<String>, Failure> {
    settings.logging.file.as_deref().map_or(Ok(()), LogFile::check)?;
    Ok(builder.check()?)
}
