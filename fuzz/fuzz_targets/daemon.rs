//! Command line and environment: any of them is read, or refused in one line that says what would be right.
//!
//! This is a module of the daemon, whose `main.rs` is the target's root: its parsers are nobody else's.
#![allow(unsafe_code)] // What the macro makes is no_mangle.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;

use crate::commands::{Command, parse_with};
use crate::failure::Failure;

// Words end at newlines; those with a `$` before them are variables.
fuzz_target!(|data: &[u8]| {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let owned = |word: &[u8]| OsString::from_vec(word.to_vec());
    let args = || words.iter().filter(|word| !word.starts_with(b"$")).map(|word| owned(word));
    let variable = |name: &str| {
        let set = words.iter().filter_map(|word| word.strip_prefix(b"$LASTORDERS_"));
        let short = name.strip_prefix("LASTORDERS_")?.as_bytes();
        set.filter_map(|word| word.strip_prefix(short)?.strip_prefix(b"=")).next().map(owned)
    };
    let program = || [OsString::from("lastorders")].into_iter();
    match parse_with(program().chain(args()), variable) {
        Ok(Command::Serve(serve)) => {
            assert!(!serve.sockets.is_empty());
            // An option and its value may be one word.
            let (mut joined, mut rest) = (vec![], args());
            while let Some(word) = rest.next() {
                let text = word.to_string_lossy();
                let flags = ["--", "--fork", "--syslog", "--console", "--daemon", "--freebind", "--check"];
                if text.starts_with("--") && !text.contains('=') && !flags.contains(&&*text) {
                    let value = rest.next().unwrap_or_default();
                    joined.push([word.clone(), "=".into(), value].into_iter().collect());
                } else {
                    joined.push(word.clone());
                }
            }
            match parse_with(program().chain(joined), variable) {
                Ok(Command::Serve(again)) => {
                    assert_eq!(again.sockets, serve.sockets);
                    assert_eq!(format!("{:?}", again.limits), format!("{:?}", serve.limits));
                    assert!(again.control == serve.control && again.fork == serve.fork && again.check == serve.check);
                }
                _ => panic!("--option=value is not what --option value is"),
            }
        }
        Ok(_) => {}
        Err(Failure::Usage(text)) => assert!(text.len() > 20 && text.contains("see `lastorders")),
        Err(Failure::Run(text)) => panic!("nothing runs yet: {text}"),
    }
});
