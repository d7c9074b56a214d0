//! The services once more, in the simplest way: all of a client's bytes in, all of its answers out.

use std::collections::HashMap;

const TOO_LONG: &[u8] = b"ERROR: line too long\n";

/// The lines of a text with their ends, as far as they fit the buffer; and whether one did not.
fn framed(bytes: &[u8], buffer: usize) -> (Vec<&[u8]>, bool) {
    let mut framed = vec![];
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // Without its end: a buffer that is full of a line has no room for its newline.
        if line.strip_suffix(b"\n").unwrap_or(line).len() >= buffer {
            return (framed, true);
        }
        framed.push(line);
    }
    (framed, false)
}

/// A line as [`Lines`](crate::Lines) gives it: a last one without an end keeps its `\r`.
fn bare(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

pub(super) fn lines(bytes: &[u8], buffer: usize, longest: usize) -> Vec<u8> {
    let mut reply = vec![];
    let (framed, mut too_long) = framed(bytes, buffer);
    for line in framed {
        if bare(line).len() > longest {
            too_long = true;
            break;
        }
        reply.extend(bare(line));
        reply.push(b'\n');
    }
    if too_long {
        reply.extend(TOO_LONG);
    }
    reply
}

pub(super) fn upper_lines(bytes: &[u8], buffer: usize) -> Vec<u8> {
    let (framed, too_long) = framed(bytes, buffer);
    let mut reply = framed.concat().to_ascii_uppercase();
    if too_long {
        reply.extend(TOO_LONG);
    }
    reply
}

pub(super) fn command(bytes: &[u8], buffer: usize) -> Vec<u8> {
    let (framed, too_long) = framed(bytes, buffer);
    let Some(line) = framed.first() else {
        return if too_long { TOO_LONG.to_vec() } else { vec![] };
    };
    let mut line = line.to_vec();
    while line.last().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
        line.pop();
    }
    match line.to_ascii_uppercase().as_slice() {
        b"SONG" => b"Old McDonald had a farm, E-I-E-I-O!\r\n".to_vec(),
        b"QUOTE" => b"And now for something completely different...\r\n".to_vec(),
        b"HAIKU" | b"POEM" => {
            b"A haiku on \"Error 404\"\r\n\r\n  You step in the stream,\r\n  But the water has moved \
            on.\r\n  This file is not here.\r\n"
                .to_vec()
        }
        _ => [b"Unknown command:", line.as_slice()].concat(),
    }
}

pub(super) fn kv(bytes: &[u8], buffer: usize, entries: usize, capacity: usize) -> Vec<u8> {
    let mut store: HashMap<String, String> = HashMap::new();
    let mut reply = b"READY\n".to_vec();
    let (framed, too_long) = framed(bytes, buffer);
    for line in framed {
        let Ok(text) = std::str::from_utf8(bare(line)) else {
            reply.extend(b"ERROR: invalid UTF-8\n");
            continue;
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let verb = words.first().map(|word| word.to_ascii_uppercase()).unwrap_or_default();
        let answer = match (verb.as_str(), &words[..]) {
            ("QUIT", _) => {
                reply.extend(b"BYE\n");
                return reply;
            }
            ("SET", [_, key, _, ..]) => {
                let value = text.trim()[3..].trim_start()[key.len()..].trim_start();
                let used: usize = store.iter().filter(|(other, _)| other != key).map(|(k, v)| k.len() + v.len()).sum();
                let room = store.contains_key(*key) || store.len() < entries;
                if room && used + key.len() + value.len() <= capacity {
                    store.insert(key.to_string(), value.to_string());
                    "OK"
                } else {
                    "ERROR: store full"
                }
            }
            ("GET", [_, key]) => store.get(*key).map_or("NOT_FOUND", String::as_str),
            ("DEL", [_, key]) if store.remove(*key).is_some() => "DELETED",
            ("DEL", [_, _]) => "NOT_FOUND",
            (_, []) => "ERROR: empty command",
            _ => "ERROR: unknown command",
        };
        reply.extend(answer.as_bytes());
        reply.push(b'\n');
    }
    if too_long {
        reply.extend(TOO_LONG);
    }
    reply
}
