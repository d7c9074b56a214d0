//! JSON for a request of fixed form: whether a text is valid (RFC 8259), and whether one member has a given value.
//!
//! A datagram comes in, and yes, no or [`Invalid`] goes out. The scanner compares strings while it reads them, with
//! their escapes resolved, so `"\u0074ype"` equals `"type"`. It must not allocate or copy.

/// Levels of arrays and objects. Each level is a recursive call, and a worker's stack is small.
pub(crate) const DEPTH: usize = 32;

/// The text is not valid JSON, or its nesting is deeper than [`DEPTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalid;

/// True when `text` is an object whose member `name` is the string `value`; both are ASCII. If there are several
/// members of that name, the last one counts, as in most parsers (RFC 8259, section 4).
pub(crate) fn member_is(text: &[u8], name: &str, value: &str) -> Result<bool, Invalid> {
    debug_assert!(name.is_ascii() && value.is_ascii());
    std::str::from_utf8(text).map_err(|_| Invalid)?;
    let mut scan = Scan { rest: text };
    scan.space();
    let mut is = false;
    if scan.rest.first() == Some(&b'{') {
        scan.items(b'}', DEPTH, |scan, depth| {
            if scan.name(name)? {
                is = scan.clone().string(value) == Ok(true);
            }
            scan.value(depth)
        })?;
    } else {
        scan.value(DEPTH)?;
    }
    scan.space();
    if scan.rest.is_empty() { Ok(is) } else { Err(Invalid) }
}

#[derive(Clone)]
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn next(&mut self) -> Result<u8, Invalid> {
        let (first, rest) = self.rest.split_first().ok_or(Invalid)?;
        self.rest = rest;
        Ok(*first)
    }

    /// Reads `byte` if it is next. False when it is not.
    fn take(&mut self, byte: u8) -> bool {
        self.expect(&[byte]).is_ok()
    }

    /// Reads `text`, or fails and reads nothing.
    fn expect(&mut self, text: &[u8]) -> Result<(), Invalid> {
        self.rest = self.rest.strip_prefix(text).ok_or(Invalid)?;
        Ok(())
    }

    /// Reads a value with up to `depth` levels in it.
    fn value(&mut self, depth: usize) -> Result<(), Invalid> {
        match self.rest.first() {
            Some(b'{') => self.items(b'}', depth, |scan, depth| scan.name("").and_then(|_| scan.value(depth))),
            Some(b'[') => self.items(b']', depth, Self::value),
            Some(b'"') => self.string("").map(drop),
            Some(b't') => self.expect(b"true"),
            Some(b'f') => self.expect(b"false"),
            Some(b'n') => self.expect(b"null"),
            _ => self.number(),
        }
    }

    /// Reads the name of a member, up to its value. True when it is `wanted`.
    fn name(&mut self, wanted: &str) -> Result<bool, Invalid> {
        let named = self.string(wanted)?;
        self.space();
        self.expect(b":")?;
        self.space();
        Ok(named)
    }

    /// Reads an opening bracket, items separated by commas, and the bracket `close`. `item` reads one item, with the
    /// number of levels that it may have.
    fn items(
        &mut self,
        close: u8,
        depth: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        let depth = depth.checked_sub(1).ok_or(Invalid)?;
        self.next()?;
        self.space();
        if self.take(close) {
            return Ok(());
        }
        loop {
            item(self, depth)?;
            self.space();
            match self.next()? {
                b',' => self.space(),
                byte if byte == close => return Ok(()),
                _ => return Err(Invalid),
            }
        }
    }

    /// Reads a string. True when it is `wanted`.
    fn string(&mut self, wanted: &str) -> Result<bool, Invalid> {
        self.expect(b"\"")?;
        let mut wanted = wanted.bytes();
        let mut same = true;
        loop {
            let unit = match self.next()? {
                b'"' => return Ok(same && wanted.next().is_none()),
                b'\\' => self.escape()?,
                0..0x20 => return Err(Invalid),
                byte => byte.into(),
            };
            same &= wanted.next().map(u16::from) == Some(unit);
        }
    }

    /// Reads what follows a backslash, and returns the UTF-16 code unit. The grammar allows one half of a surrogate
    /// pair alone.
    fn escape(&mut self) -> Result<u16, Invalid> {
        Ok(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte.into(),
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => 0x0a,
            b'r' => 0x0d,
            b't' => 0x09,
            b'u' => {
                let mut unit = 0;
                for _ in 0..4 {
                    let digit = char::from(self.next()?).to_digit(16).ok_or(Invalid)?;
                    unit = unit << 4 | digit as u16;
                }
                unit
            }
            _ => return Err(Invalid),
        })
    }

    fn number(&mut self) -> Result<(), Invalid> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(())
    }

    /// Reads one or more digits.
    fn digits(&mut self) -> Result<(), Invalid> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
        if count == 0 { Err(Invalid) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: impl AsRef<[u8]>) -> Result<bool, Invalid> {
        member_is(text.as_ref(), "type", "time")
    }

    #[test]
    fn a_request_is_recognised_however_it_is_written() {
        for text in [
            r#"{"type":"time"}"#,
            "\t{ \"type\"\r:\n\"time\" } \n",
            r#"{"id":7,"type":"time","more":[{"type":"other"}]}"#,
            r#"{"\u0074ype":"t\u0069\u006De"}"#,
            r#"{"type":"other","type":"time"}"#,
        ] {
            assert_eq!(ask(text), Ok(true), "{text}");
        }
    }

    #[test]
    fn other_json_is_not_a_request() {
        for text in [
            "{}",
            "[]",
            "0",
            "-0.5e+10",
            "1E9",
            "\"type\"",
            "true",
            "false",
            "null",
            "[[],[{}],\"\",1.5]",
            "\"\u{7f}ü\"",
            r#"{"type":"Time"}"#,
            r#"{"type":"times"}"#,
            r#"{"type":"tim"}"#,
            r#"{"Type":"time"}"#,
            r#"{"typ":"time"}"#,
            r#"{"types":"time"}"#,
            r#"{"type":["time"]}"#,
            r#"{"type":1}"#,
            r#"{"a":{"type":"time"}}"#,
            r#"["type","time"]"#,
            r#"{"type":"time","type":null}"#,
            r#"{"":""}"#,
            r#""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\udead""#,
        ] {
            assert_eq!(ask(text), Ok(false), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_invalid() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "{]",
            "[}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "{'a':1}",
            "{1:1}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "\"",
            "\"\\\"",
            "\"\n\"",
            "\"\\x41\"",
            "\"\\u12g4\"",
            "\"\\u123\"",
            "\"\\u+123\"",
            "tru",
            "True",
            "nul",
            "NaN",
            "Infinity",
            "-",
            "01",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x10",
            "1 1",
            "{}{}",
            "[] x",
            "\u{feff}{}",
            "\u{a0}{}",
            "// c\n{}",
            "{\"type\":\"time\"",
            "{\"type\":\"time\"}\0",
            "{\"type\":\"time}",
            "\"\\",
            "\"\\u",
        ] {
            assert_eq!(ask(text), Err(Invalid), "{text:?}");
        }
        for text in [&b"\"\xff\""[..], b"\"\xc0\xaf\"", b"\"\xed\xa0\x80\"", b"{\"type\":\"time\"}\xe2\x82"] {
            assert_eq!(ask(text), Err(Invalid), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let inner = if open == "[" { "" } else { "1" };
            let nested = |depth: usize| open.repeat(depth) + inner + &close.repeat(depth);
            assert_eq!(ask(nested(DEPTH)), Ok(false));
            assert_eq!(ask(nested(DEPTH + 1)), Err(Invalid));
            assert_eq!(ask(open.repeat(4_096)), Err(Invalid));
        }
    }

    /// Every prefix of a valid object, and every text that differs from it in one byte, gets an answer.
    #[test]
    fn no_text_is_too_odd_to_be_judged() {
        let text = br#"{"type":"time","a":[1.5e-3,"\u00e9\n",{"b":null}]}"#;
        for cut in 0..text.len() {
            assert_eq!(ask(&text[..cut]), Err(Invalid));
            for byte in 0..=255 {
                let mut other = text.to_vec();
                other[cut] = byte;
                let _ = ask(other);
            }
        }
    }
}
