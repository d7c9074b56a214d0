//! One line of the key-value protocol: bytes come in, and a request or the text of an error goes out.
//!
//! White space is Unicode's ([`char::is_whitespace`]): blanks, tabs, `\r`, no-break and wide spaces. NUL and other
//! control characters are parts of words. Parsing must not allocate or copy.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Set(&'a str, &'a str),
    Get(&'a str),
    Delete(&'a str),
    Quit,
    /// Not a request; the text is the answer.
    Invalid(&'static str),
}

impl Request<'_> {
    /// Reads a line, with or without its end.
    pub(super) fn parse(line: &[u8]) -> Request<'_> {
        let Ok(text) = std::str::from_utf8(line) else { return Request::Invalid("ERROR: invalid UTF-8\n") };
        let (verb, rest) = first_word(text.trim());
        let (key, value) = first_word(rest);
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        // `key` is the second word, and `value` is everything after it. Each is empty if the line has no such word.
        match (key.is_empty(), value.is_empty()) {
            _ if is("QUIT") => Request::Quit,
            (false, false) if is("SET") => Request::Set(key, value),
            (false, true) if is("GET") => Request::Get(key),
            (false, true) if is("DEL") => Request::Delete(key),
            _ if verb.is_empty() => Request::Invalid("ERROR: empty command\n"),
            _ => Request::Invalid("ERROR: unknown command\n"),
        }
    }
}

/// The first word, and the rest after the white space that follows it. Both are empty when there is no word.
fn first_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    (word, rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_in_any_case_and_spacing() {
        for (line, request) in [
            ("SET a b", Request::Set("a", "b")),
            ("set a b c", Request::Set("a", "b c")),
            (" \tSeT\t\t a   b \u{a0} c  \r\n", Request::Set("a", "b \u{a0} c")),
            ("SET a QUIT", Request::Set("a", "QUIT")),
            ("SET \0 \u{1}\0", Request::Set("\0", "\u{1}\0")),
            ("\u{3000}SET\u{2003}ключ\u{85}значение\u{a0}", Request::Set("ключ", "значение")),
            ("GET a", Request::Get("a")),
            ("gEt GET", Request::Get("GET")),
            ("DEL a\r", Request::Delete("a")),
            ("QUIT", Request::Quit),
            ("quit now or never", Request::Quit),
        ] {
            assert_eq!(Request::parse(line.as_bytes()), request, "{line:?}");
        }
    }

    #[test]
    fn a_wrong_line_has_the_error_that_answers_it() {
        for line in ["", " ", "\t\r\n", "\u{a0}\u{3000}", "\u{b}\u{c}"] {
            assert_eq!(Request::parse(line.as_bytes()), Request::Invalid("ERROR: empty command\n"), "{line:?}");
        }
        for line in [
            "GET",
            "GET a b",
            "SET",
            "SET a",
            "SET a \t",
            "DEL",
            "DEL a b",
            "QUITE",
            "QUIT\0",
            "GETa",
            "\0",
            "G\u{301}ET a",
            "ſET a b",
            "\u{feff}GET a",
            "PING",
            "get\u{200b}a",
        ] {
            assert_eq!(Request::parse(line.as_bytes()), Request::Invalid("ERROR: unknown command\n"), "{line:?}");
        }
        for line in [&b"\xff"[..], b"GET \xc3", b"QUIT \x80", b" \xed\xa0\x80 ", b"SET a \xf5\x80\x80\x80"] {
            assert_eq!(Request::parse(line), Request::Invalid("ERROR: invalid UTF-8\n"), "{line:?}");
        }
    }
}
