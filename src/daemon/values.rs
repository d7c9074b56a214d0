//! The words of a command line: from text to a value, or to an error that says what would be right.
//!
//! Nothing here knows an option or a command. A reader's error says only what would be right; [`value`] puts the option
//! and the text before that error.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser};

use crate::config::{MAX_TIMEOUT, WhenFull};
use crate::datagram::{Group, Interface};
use crate::sys::Seconds;

/// An argument as it was written.
pub(crate) fn shown(argument: &Arg<'_>) -> String {
    match argument {
        Arg::Short(letter) => format!("-{letter}"),
        Arg::Long(name) => format!("--{name}"),
        Arg::Value(word) => format!("{word:?}"),
    }
}

/// The error for an argument that a command does not know.
pub(crate) fn unexpected(argument: &Arg<'_>) -> lexopt::Error {
    format!("unexpected argument {}", shown(argument)).into()
}

/// The text of a word, or of the value of an option.
pub(crate) fn text(word: OsString) -> Result<String, lexopt::Error> {
    word.into_string().map_err(|word| format!("{word:?} is not valid UTF-8").into())
}

/// Takes the value of `option`, which the parser has just returned, and reads it.
pub(crate) fn value<T>(
    parser: &mut Parser,
    option: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, lexopt::Error> {
    let text = text(parser.value()?)?;
    read(&text).map_err(|error| format!("{option} {text:?}: {error}").into())
}

/// What the text says in the type's own form. `expected` is the error for any other text.
pub(crate) fn parsed<T: FromStr>(text: &str, expected: &str) -> Result<T, String> {
    text.parse().map_err(|_| expected.into())
}

/// The number of a descriptor that the daemon may have been started with.
pub(crate) fn descriptor(text: &str) -> Result<i32, String> {
    text.parse().ok().filter(|number| *number > 2).ok_or("expected the number of an open descriptor, 3 or more".into())
}

pub(crate) fn group(text: &str) -> Result<SocketAddr, String> {
    let form = "expected GROUP:PORT, as in 239.1.1.1:5007 or [ff05::1:3]:5007";
    let address: SocketAddr = text.parse().map_err(|_| form)?;
    if address.port() == 0 {
        return Err(format!("port 0 is no port to send to; {form}"));
    }
    Group::new(address, None).map(|group| group.address()).map_err(|error| format!("{error}; {form}"))
}

pub(crate) fn interface(text: &str) -> Result<Interface, String> {
    text.parse().map_err(|error: std::io::Error| error.to_string())
}

pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected a path".into()) } else { Ok(text.into()) }
}

pub(crate) fn number(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("expected a whole number from {} to {}", range.start(), range.end()))
}

/// A time of a day at most, like `5`, `0.5`, `500ms`, `2m` or `1h`; without a unit it is in seconds.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let (digits, nanos) = match text {
        _ if text.ends_with("ms") => (&text[..text.len() - 2], 1_000_000),
        _ if text.ends_with('s') => (&text[..text.len() - 1], 1_000_000_000),
        _ if text.ends_with('m') => (&text[..text.len() - 1], 60_000_000_000),
        _ if text.ends_with('h') => (&text[..text.len() - 1], 3_600_000_000_000),
        _ => (text, 1_000_000_000),
    };
    // In nanoseconds, a number that is read as seconds has 9 digits behind the point.
    let number = Seconds::parse(digits).map(|Seconds(number)| number.as_nanos());
    let time = number.and_then(|number| u64::try_from(number.checked_mul(nanos)? / 1_000_000_000).ok());
    let time = time.map(Duration::from_nanos).filter(|time| *time <= MAX_TIMEOUT);
    time.ok_or("expected 0 to 86400 seconds, or a time as in 500ms, 5s, 2m or 1h".into())
}

/// A size like `65536`, `64k`, `1M` or `1G`; the letters are powers of 1,024. `None` when the text is no size.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 1 << 10),
        b'M' | b'm' => (&text[..text.len() - 1], 1 << 20),
        b'G' | b'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse().ok().and_then(|number: u64| number.checked_mul(unit))
}

/// The size of something in memory.
pub(crate) fn bytes(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let bytes = size(text).and_then(|size| usize::try_from(size).ok()).filter(|bytes| range.contains(bytes));
    let form = || format!("expected a number of bytes from {} to {}, as in 4096 or 64k", range.start(), range.end());
    bytes.ok_or_else(form)
}

/// What the environment says of an option without a value.
pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "true" | "on" => Ok(true),
        "0" | "no" | "false" | "off" => Ok(false),
        _ => Err("choose 1, yes, true or on, or else 0, no, false or off".into()),
    }
}

pub(crate) fn when_full(text: &str) -> Result<WhenFull, String> {
    match text {
        "wait" => Ok(WhenFull::Wait),
        "shed" => Ok(WhenFull::Shed),
        "reject" => Ok(WhenFull::Reject),
        _ => Err("choose wait, shed or reject".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_units() {
        for (text, millis) in [
            ("5", 5_000),
            ("0.5", 500),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("24h", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            "s",
            "ms",
            "-1",
            "5 s",
            "5d",
            "1e3",
            "nan",
            "18446744073709551615",
            "18446744073709551615h",
            "86400.1",
            "25h",
        ] {
            assert!(time(text).unwrap_err().contains("seconds"), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in
            [("0", 0), ("16384", 16_384), ("16K", 16_384), ("64k", 65_536), ("2m", 2 << 20), ("4G", 4 << 30)]
        {
            assert_eq!(size(text), Some(bytes));
        }
        for text in ["", "K", "1MB", "1 M", "1KK", "-1M", "1.5M", "18446744073709551615G"] {
            assert_eq!(size(text), None, "{text:?}");
            assert!(bytes(text, 0..=usize::MAX).is_err());
        }
    }

    #[test]
    fn numbers_and_sizes_have_a_range_and_both_ends_are_in_it() {
        let range = || 64..=1_024;
        assert_eq!([64, 1_024].map(|edge: usize| number(&edge.to_string(), range())), [Ok(64), Ok(1_024)]);
        assert_eq!(["64", "1k"].map(|text| bytes(text, range())), [Ok(64), Ok(1_024)]);
        for text in ["63", "1025", "-64", "many", ""] {
            assert_eq!(number(text, range()), Err("expected a whole number from 64 to 1024".into()));
            assert!(bytes(text, range()).unwrap_err().contains("from 64 to 1024"));
        }
    }

    #[test]
    fn a_flag_is_on_or_off_or_an_error() {
        assert!(["1", "yes", "true", "on", "True", "ON"].iter().all(|text| flag(text) == Ok(true)));
        assert!(["0", "no", "false", "off", "False"].iter().all(|text| flag(text) == Ok(false)));
        assert!(["", "2", "ja", "enable"].iter().all(|text| flag(text).is_err()));
    }
}
