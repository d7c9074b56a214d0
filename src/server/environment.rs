//! The variables of sd_listen_fds(3): from their texts to the names of the descriptors that were passed.
//!
//! Pure: the program that starts this one writes these texts, so any text must be read or refused.

use std::num::NonZeroU32;

use crate::config::LISTENERS;
use crate::error::Error;

/// What a descriptor is called when it was passed without a name (sd_listen_fds(3)).
const UNNAMED: &str = "unknown";

/// The names of the descriptors that were passed to process `own`, the first of which has the number 3: what
/// [`sockets`](crate::activation::sockets) makes of `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES`. There are none
/// when one of the first two is unset, or when `LISTEN_PID` is another process.
///
/// # Errors
/// [`Error::Environment`] with the variable, its value and what would be right.
pub fn names(
    own: u32,
    listen_pid: Option<&str>,
    listen_fds: Option<&str>,
    listen_fdnames: Option<&str>,
) -> Result<Vec<String>, Error> {
    let (Some(pid), Some(count)) = (listen_pid, listen_fds) else { return Ok(vec![]) };
    let wrong = |name, value: &str, expected: String| Error::Environment { name, value: value.into(), expected };
    let is_own = pid.parse().map(|pid: NonZeroU32| pid.get() == own);
    if !is_own.map_err(|_| wrong("LISTEN_PID", pid, "the number of a process".into()))? {
        return Ok(vec![]);
    }
    let expected = || format!("a number of sockets, 0 to {LISTENERS}");
    let count = match count.parse() {
        Ok(number) if number <= LISTENERS => number,
        _ => return Err(wrong("LISTEN_FDS", count, expected())),
    };
    match listen_fdnames {
        // Nothing separates no names from a single empty one.
        _ if count == 0 => Ok(vec![]),
        None => Ok(vec![UNNAMED.into(); count]),
        Some(list) if list.split(':').count() == count => Ok(list.split(':').map(Into::into).collect()),
        Some(list) => {
            let expected = format!("{count} names, as LISTEN_FDS says, with colons between them");
            Err(wrong("LISTEN_FDNAMES", list, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pid: &str, fds: &str, list: Option<&str>) -> Result<Vec<String>, String> {
        names(7, Some(pid), Some(fds), list).map_err(|error| error.to_string())
    }

    #[test]
    fn descriptors_have_the_names_they_were_passed_with() {
        assert_eq!(read("7", "2", Some("echo:time.socket")).unwrap(), ["echo", "time.socket"]);
        assert_eq!(read("7", "2", None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(read("7", "1", Some("")).unwrap(), [""]);
        assert!(read("7", "0", Some("")).unwrap().is_empty());
        assert_eq!(read("7", "32", None).unwrap().len(), 32);
    }

    #[test]
    fn what_is_not_for_this_process_is_none_of_its_business() {
        assert!(read("8", "many", Some(":::")).unwrap().is_empty());
        assert!(names(7, None, Some("2"), None).unwrap().is_empty());
        assert!(names(7, Some("7"), None, Some("echo")).unwrap().is_empty());
    }

    #[test]
    fn a_value_that_cannot_be_is_shown_with_what_could() {
        for (pid, fds, list, parts) in [
            ("", "1", None, ["LISTEN_PID \"\"", "process"]),
            ("0", "1", None, ["LISTEN_PID \"0\"", "process"]),
            ("-7", "1", None, ["LISTEN_PID \"-7\"", "process"]),
            ("7", "two", None, ["LISTEN_FDS \"two\"", "0 to 32"]),
            ("7", "-1", None, ["LISTEN_FDS \"-1\"", "0 to 32"]),
            ("7", "33", None, ["LISTEN_FDS \"33\"", "0 to 32"]),
            ("7", "99999999999999999999", None, ["LISTEN_FDS", "0 to 32"]),
            ("7", "2", Some("echo"), ["LISTEN_FDNAMES \"echo\"", "2 names"]),
            ("7", "1", Some("a\n:b"), ["LISTEN_FDNAMES \"a\\n:b\"", "1 names"]),
        ] {
            let error = read(pid, fds, list).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
