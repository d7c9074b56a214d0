//! One line of the key-value protocol: from bytes to a request, or to the error that answers it.
//!
//! White space is what Unicode calls so ([`char::is_whitespace`]): blanks, tabs, `\r`, no-break and wide spaces.
//! NUL and other control characters are ordinary parts of words.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Set(&'a str, &'a str),
    Get(&'a str),
    Delete(&'a str),
    Quit,
    /// Nothing to execute: this is the answer.
    Wrong(&'static str),
}

impl Request<'_> {
    /// Reads a line, with or without its end.
    pub(super) fn parse(line: &[u8]) -> Request<'_> {
        let Ok(text) = std::str::from_utf8(line) else { return Request::Wrong("ERROR: invalid UTF-8\n") };
        let (verb, rest) = first_word(text.trim());
        let (key, value) = first_word(rest);
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        // No word is empty, so there is one more when what follows is not.
        match (key.is_empty(), value.is_empty()) {
            _ if is("QUIT") => Request::Quit,
            (false, false) if is("SET") => Request::Set(key, value),
            (false, true) if is("GET") => Request::Get(key),
            (false, true) if is("DEL") => Request::Delete(key),
            _ if verb.is_empty() => Request::Wrong("ERROR: empty command\n"),
            _ => Request::Wrong("ERROR: unknown command\n"),
        }
    }
}

/// The first word and what follows the white space behind it; both are empty when there is none.
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
            assert_eq!(Request::parse(line.as_bytes()), Request::Wrong("ERROR: empty command\n"), "{line:?}");
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
            assert_eq!(Request::parse(line.as_bytes()), Request::Wrong("ERROR: unknown command\n"), "{line:?}");
        }
        for line in [&b"\xff"[..], b"GET \xc3", b"QUIT \x80", b" \xed\xa0\x80 ", b"SET a \xf5\x80\x80\x80"] {
            assert_eq!(Request::parse(line), Request::Wrong("ERROR: invalid UTF-8\n"), "{line:?}");
        }
    }
}
