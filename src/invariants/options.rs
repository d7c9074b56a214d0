//! The rule for command lines and environments: each is read, or refused in one line that says what would be right.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use lexopt::Parser;

use crate::daemon::{Failure, Services, Settings, flags, parse, read};

/// A command line is read or refused whole, and for `serve` an option and its value may be one word or two. Words
/// end at newlines; a word that begins with `$` is a variable.
pub fn options(data: &[u8]) {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let owned = |word: &[u8]| OsString::from_vec(word.to_vec());
    let arguments: Vec<OsString> =
        words.iter().filter(|word| !word.starts_with(b"$")).map(|word| owned(word)).collect();
    let variable = |name: &str| {
        let set = words.iter().filter_map(|word| word.strip_prefix(b"$LASTORDERS_"));
        let short = name.strip_prefix("LASTORDERS_")?.as_bytes();
        set.filter_map(|word| word.strip_prefix(short)?.strip_prefix(b"=")).next().map(owned)
    };
    let program = ["lastorders".into()].into_iter().chain(arguments.iter().cloned());
    match parse(Services::sample(), program, variable) {
        Ok(_) if arguments.first().is_some_and(|word| word == "serve") => {
            let settings = |words: &[OsString]| read(Parser::from_args(words), &Services::sample(), variable).unwrap();
            let (apart, joined) = (settings(&arguments[1..]), settings(&join(&arguments[1..])));
            assert_eq!(apart.map(shown), joined.map(shown), "--option=value is not what --option value is");
        }
        Ok(_) => {}
        Err(Failure::Usage(text)) => assert!(text.len() > 20 && text.contains("see `lastorders")),
        Err(Failure::Run(text)) => panic!("nothing runs yet: {text}"),
    }
}

/// The same words, each option joined with its value by `=`.
fn join(words: &[OsString]) -> Vec<OsString> {
    let (mut joined, mut rest) = (vec![], words.iter());
    while let Some(word) = rest.next() {
        let text = word.to_string_lossy();
        // "--" ends the options and is none itself.
        let is_alone = matches!(&*text, "--" | "--help") || text.contains('=') || flags().any(|flag| flag == text);
        if text.starts_with("--") && !is_alone {
            let value = rest.next().cloned().unwrap_or_default();
            joined.push([word.clone(), "=".into(), value].into_iter().collect());
        } else {
            joined.push(word.clone());
        }
    }
    joined
}

fn shown(settings: Settings) -> String {
    format!("{settings:?}")
}
