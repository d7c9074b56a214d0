//! Seconds as people write them: `5`, `0.25`.
//!
//! In comes the text of an option or a request, out goes a [`Duration`], and back. Not by way of `f64`: reading and
//! printing floating point takes tens of KB of flash, and nothing else here needs it.

use std::fmt;
use std::time::Duration;

/// A time in decimal seconds.
///
/// Its `Display` has as many digits after the point as it takes, `0.25`; a precision sets their number, at most
/// 9, and cuts the rest off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl Seconds {
    /// Reads digits, of which some may stand behind a point; what is less than a nanosecond is dropped. `None` is
    /// anything else: a sign, an exponent, an infinity, or more than 2^64 seconds.
    pub(crate) fn parse(text: &str) -> Option<Seconds> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = || whole.bytes().chain(fraction.bytes());
        if digits().next().is_none() || !digits().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let nanos = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nanos = nanos.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        Some(Seconds(Duration::new(seconds, nanos)))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, mut fraction, mut digits) = (self.0.as_secs(), self.0.subsec_nanos(), 9);
        let wanted = f.precision().map(|digits| digits.min(9));
        while digits > wanted.unwrap_or(0) && (wanted.is_some() || fraction % 10 == 0) {
            fraction /= 10;
            digits -= 1;
        }
        if digits == 0 { write!(f, "{seconds}") } else { write!(f, "{seconds}.{fraction:0digits$}") }
    }
}

/// A time as a person reads it.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == Duration::from_secs(1) { "" } else { "s" };
        write!(f, "{} second{plural}", Seconds(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_seconds_are_read() {
        for (text, nanos) in [
            ("0", 0),
            ("5", 5_000_000_000),
            ("0.5", 500_000_000),
            (".25", 250_000_000),
            ("3.", 3_000_000_000),
            ("1.000000001", 1_000_000_001),
            ("0.0000000019", 1),
        ] {
            assert_eq!(Seconds::parse(text), Some(Seconds(Duration::from_nanos(nanos))), "{text}");
        }
        assert_eq!(Seconds::parse("18446744073709551615").unwrap().0.as_secs(), u64::MAX);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ".", "-1", "+1", "1e3", "nan", "inf", "1.2.3", "1.-2", " 1", "1s", "18446744073709551616"] {
            assert_eq!(Seconds::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_digits_are_those_needed_or_asked_for() {
        let shown = |nanos| Seconds(Duration::from_nanos(nanos));
        assert_eq!(shown(0).to_string(), "0");
        assert_eq!(shown(20_000_000_000).to_string(), "20");
        assert_eq!(shown(50_000_000).to_string(), "0.05");
        assert_eq!(shown(1_000_000_001).to_string(), "1.000000001");
        assert_eq!(
            format!("{:.3} {:.0} {:.12}", shown(1_999_999_999), shown(1_999_999_999), shown(1)),
            "1.999 1 0.000000001"
        );
    }
}
