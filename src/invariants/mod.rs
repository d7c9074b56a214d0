//! What must hold for any input, however odd: the rules that the fuzz targets and the property tests share.
//!
//! In comes a [`Case`], grown by a fuzzer or drawn at random; nothing comes out but a panic when a rule is
//! broken. Services are driven here as the engine drives them, without sockets, and compared with models that
//! are too simple to be wrong. Built for tests and under `--cfg fuzzing` alone.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod models;
#[cfg(feature = "daemon")]
mod options;
mod talk;

use std::io;

use crate::builtin::{self, Command, Kv, UpperLines, member_is};
use crate::config::{CONTROL_REQUEST, LISTENERS, MAX_TIMEOUT};
use crate::connection::Flow;
use crate::control::{Ask, receive_pieces};
use crate::server::activation::names;
use crate::service::{Lines, Reply};

#[cfg(feature = "daemon")]
pub use options::options;
use talk::{Pieces, talk};

/// Bytes that a client sends, and how they arrive: the first byte chooses the sizes, the second the pieces.
#[derive(Debug)]
pub struct Case<'a> {
    size: u8,
    pieces: Pieces,
    bytes: &'a [u8],
}

impl<'a> Case<'a> {
    /// Reads a case; the empty one is a case too.
    pub fn new(data: &'a [u8]) -> Case<'a> {
        let (head, bytes) = data.split_at(data.len().min(2));
        let byte = |at| head.get(at).copied().unwrap_or(0);
        Case { size: byte(0), pieces: Pieces::new(byte(1)), bytes }
    }

    /// Bytes of each buffer: small ones are where lines get too long, and answers come in parts.
    fn buffer(&self) -> usize {
        [64, 65, 80, 128, 512][usize::from(self.size) % 5]
    }
}

/// Lines are the same however they arrive, and none is lost, joined, or longer than allowed.
pub fn lines(case: &Case<'_>) {
    let longest = [usize::MAX, 0, 1, 10, 62, 63, 64][usize::from(case.size / 5) % 7];
    let shout = |line: &[u8], reply: &mut Reply| -> io::Result<Flow> {
        reply.push(line);
        reply.push(b"\n");
        Ok(Flow::Continue)
    };
    let service = Lines::new(shout).longest_line(longest);
    let reply = talk(service, case.buffer(), case.pieces, case.bytes);
    same(&reply, &models::lines(case.bytes, case.buffer(), longest));
    // With the promise, answers are gathered: these must not run over.
    let service = Lines::new(shout).longest_line(longest).largest_reply(case.buffer());
    same(&talk(service, case.buffer(), case.pieces, case.bytes), &reply);
    let reply = talk(UpperLines, case.buffer(), case.pieces, case.bytes);
    same(&reply, &models::upper_lines(case.bytes, case.buffer()));
}

/// Every line of kv has the answer that a model gives, in order, and a full store loses nothing.
pub fn kv(case: &Case<'_>) {
    let (entries, bytes) = [(1, 64), (2, 64), (4, 100), (64, 128)][usize::from(case.size / 5) % 4];
    let kv = Kv::new(entries, bytes).unwrap();
    let reply = talk(kv, case.buffer(), case.pieces, case.bytes);
    same(&reply, &models::kv(case.bytes, case.buffer(), entries, bytes));
}

/// A command gets one answer, whole, whatever the buffer.
pub fn command(case: &Case<'_>) {
    let reply = talk(Command::default(), case.buffer(), case.pieces, case.bytes);
    same(&reply, &models::command(case.bytes, case.buffer()));
}

/// Whether a text asks for the time, or `None` when it is not JSON; it is judged the same with space around it.
pub fn json(text: &[u8]) -> Option<bool> {
    let judged = member_is(text, "type", "time").ok();
    let spaced = [b" \t", text, b"\r\n"].concat();
    assert_eq!(member_is(&spaced, "type", "time").ok(), judged);
    judged
}

/// Levels of nesting that a request may have.
pub const JSON_DEPTH: usize = builtin::JSON_DEPTH;

/// A control request means the same however it arrives, and a refusal is one harmless line.
pub fn control(case: &Case<'_>) {
    let whole =
        receive_pieces([case.bytes].into_iter().filter(|bytes| !bytes.is_empty())).expect("the request has ended");
    let pieces = receive_pieces(case.pieces.of(case.bytes)).expect("the request has ended");
    assert_eq!(whole, pieces);
    let line = case.bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match whole {
        Ask::Status(_) => assert!(line.starts_with(b"status") || !line[0].is_ascii_alphabetic()),
        Ask::Stop(grace) => assert!(grace.is_none_or(|grace| grace <= MAX_TIMEOUT)),
        Ask::Refused(text) => {
            let plain = text.trim_end_matches('\n').bytes().all(|byte| (b' '..=b'~').contains(&byte));
            assert!(text.starts_with("ERROR: ") && text.ends_with('\n') && plain && text.len() < 256, "{text:?}");
        }
    }
    if line.len() <= CONTROL_REQUEST {
        let asks = receive_pieces([line].into_iter()).expect("the request has ended");
        assert_eq!(asks, pieces, "what follows the line changes nothing");
    }
}

/// Variables of a supervisor are read as sd_listen_fds(3) has it, or refused in one harmless line. The four parts are
/// the process they are for, and the variables, which are unset where a part is missing.
pub fn activation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\n');
    let own = parts.next().and_then(|text| text.parse().ok()).unwrap_or(1);
    let (pid, count, list) = (parts.next(), parts.next(), parts.next());
    match names(own, pid, count, list) {
        Ok(names) if names.is_empty() => {}
        Ok(names) => {
            assert_eq!(pid.unwrap().parse(), Ok(own));
            assert_eq!(count.unwrap().parse(), Ok(names.len()));
            assert!(names.len() <= LISTENERS);
            assert!(list.is_none_or(|list| list == names.join(":")));
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("LISTEN_") && !text.contains(char::is_control), "{text:?}");
        }
    }
}

#[track_caller]
fn same(reply: &[u8], expected: &[u8]) {
    assert!(
        reply == expected,
        "reply    {:?}\nexpected {:?}",
        reply.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Words and ends that mean something to some service, and bytes that mean nothing.
    fn speech() -> impl Strategy<Value = Vec<u8>> {
        const WORDS: &[&str] = &[
            "\n",
            "\n",
            "\r\n",
            "\r",
            " ",
            "SET ",
            "get ",
            "DEL",
            "a",
            "b",
            "k1",
            "QUIT",
            "SONG",
            "haiku",
            "status",
            " json",
            "stop",
            " 2.5",
            "\u{a0}",
            "\u{3000}",
            "{\"type\":\"time\"}",
            "[",
            "0123456789abcdef",
        ];
        let word = (0..WORDS.len()).prop_map(|index| WORDS[index].as_bytes().to_vec());
        let byte = any::<u8>().prop_map(|byte| vec![byte]);
        let run = (any::<u8>(), 50..70_usize).prop_map(|(byte, length)| vec![byte; length]);
        let part = prop_oneof![8 => word, 2 => byte, 1 => run];
        (any::<[u8; 2]>(), vec(part, 0..40)).prop_map(|(head, parts)| [&head[..], &parts.concat()].concat())
    }

    fn few() -> ProptestConfig {
        // No file of failures: those that matter become cases of the corpus.
        ProptestConfig {
            cases: if cfg!(miri) { 3 } else { 500 },
            failure_persistence: None,
            ..ProptestConfig::default()
        }
    }

    proptest! {
        #![proptest_config(few())]

        #[test]
        fn any_split_gives_the_same_lines(data in speech()) {
            lines(&Case::new(&data));
        }

        #[test]
        fn kv_answers_as_its_model(data in speech()) {
            kv(&Case::new(&data));
        }

        #[test]
        fn a_command_has_one_answer(data in speech()) {
            command(&Case::new(&data));
        }

        #[test]
        fn a_control_request_means_one_thing(data in speech()) {
            control(&Case::new(&data));
        }

        #[test]
        fn variables_are_read_or_refused(parts in vec("[0-9]{1,2}|[ -~]{0,8}|echo(:time){0,3}|\\PC{0,4}", 0..5)) {
            activation(parts.join("\n").as_bytes());
        }

        #[test]
        fn json_is_distinguished_from_what_is_not(value in json_text(), cut in any::<prop::sample::Index>()) {
            assert_eq!(json(value.as_bytes()), Some(false), "{value}");
            let request = format!("{{\"a\":{value}, \"type\" : \"time\"}}");
            assert_eq!(json(request.as_bytes()), Some(true), "{request}");
            assert_eq!(json(&request.as_bytes()[..cut.index(request.len())]), None, "{request}");
        }
    }

    fn json_text() -> impl Strategy<Value = String> {
        let number = "-?(0|[1-9][0-9]{0,5})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?";
        let text = "\"([ !#-\\[\\]-~äß世]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}){0,8}\"";
        let leaf = prop_oneof![number, text, "true|false|null"];
        leaf.prop_recursive(8, 64, 6, |inner| {
            let list = vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(" ,\t")));
            let member = (0..100_u8, inner).prop_map(|(name, value)| format!("\"{name}\"\n:{value}"));
            prop_oneof![list, vec(member, 0..6).prop_map(|items| format!("{{{}}}", items.join(",")))]
        })
    }

    fn corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
        let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        let cases = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
        cases.map(|case| std::fs::read(case.unwrap().path()).unwrap())
    }

    /// The cases that a fuzzer has grown, and those that were written for it.
    #[test]
    fn the_corpora_hold() {
        for (target, holds) in
            [("lines", lines as fn(&Case<'_>)), ("kv", kv), ("command", command), ("control", control)]
        {
            corpus(target).for_each(|case| holds(&Case::new(&case)));
        }
        for (target, holds) in [
            ("activation", activation as fn(&[u8])),
            ("json", |text| _ = json(text)),
            #[cfg(feature = "daemon")]
            ("options", options),
        ] {
            corpus(target).for_each(|case| holds(&case));
        }
    }
}
