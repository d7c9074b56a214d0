//! The key-value service against a model that knows every answer: 100,000 commands over 8 connections.

use std::collections::HashMap;

use crate::kv::ready;
use crate::support::{Client, Daemon, guard};

/// 100,000 random commands, pipelined over 8 connections to two listeners at once, each answer known beforehand:
/// in every round one connection may change how full the store is, the others get, overwrite with as many bytes,
/// and say what is wrong, all of them with keys of their own.
#[test]
fn a_model_knows_every_answer() {
    guard(|| {
        let shared = ["--tcp", "kv=127.0.0.1:0", "--tcp", "upper=127.0.0.1:0", "--tcp", "kv=127.0.0.1:0"];
        let limits = ["--kv-entries", "100", "--kv-bytes", "6000", "--buffer", "512"];
        let daemon = Daemon::serve(&[&shared[..], &limits].concat());
        let mut clients: Vec<Client> = (0..8).map(|index| ready(daemon.addresses[index % 2 * 2])).collect();
        let mut model = Model::new(100, 6_000, 20_261_121);
        let (mut commands, mut round) = (0, 0);
        while commands < 100_000 {
            let mut awaited: Vec<String> = Vec::new();
            for (index, client) in clients.iter_mut().enumerate() {
                let count = model.below(100);
                let talk = (0..count).map(|_| model.command(index, index == round % 8));
                let (lines, answers): (Vec<Vec<u8>>, Vec<String>) = talk.unzip();
                client.send(lines.concat());
                commands += count;
                awaited.push(answers.concat());
            }
            clients.iter_mut().zip(&awaited).for_each(|(client, answers)| client.expect(answers));
            round += 1;
        }
        assert!(model.full > 1_000 && model.stored > 10_000, "{} full, {} stored", model.full, model.stored);
    });
}

/// What the store holds, and a source of random commands (a linear congruential generator, Knuth's MMIX).
struct Model {
    entries: usize,
    bytes: usize,
    random: u64,
    map: HashMap<String, String>,
    used: usize,
    full: usize,
    stored: usize,
}

impl Model {
    fn new(entries: usize, bytes: usize, random: u64) -> Model {
        Model { entries, bytes, random, map: HashMap::new(), used: 0, full: 0, stored: 0 }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % end
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// A line and its answer. Only a `resizing` connection may change how many entries and bytes are taken.
    fn command(&mut self, connection: usize, resizing: bool) -> (Vec<u8>, String) {
        let number = self.below(30);
        let key = format!("{connection}:{number}{}", "é".repeat(number));
        let (words, answer) = match self.below(10) {
            0..3 => (vec!["GET".into(), key.clone()], self.map.get(&key).cloned().unwrap_or("NOT_FOUND".into())),
            3 if resizing => (vec!["DEL".into(), key.clone()], self.delete(&key)),
            3..8 => {
                let length = match self.map.get(&key) {
                    Some(old) if !resizing => old.len(),
                    None if !resizing => return self.wrong(),
                    _ => [5, 50, 400][self.below(3)],
                };
                let value = self.value(length);
                let answer = self.set(&key, &value);
                (vec!["SET".into(), key, value], answer)
            }
            _ => return self.wrong(),
        };
        let mut line = self.one_of(&["", "", " ", "\t\u{3000}"]).to_string();
        for (index, word) in words.iter().enumerate() {
            line += if index == 0 { "" } else { self.one_of(&[" ", " ", "\t", "  \u{a0}\t "]) };
            let lower = index == 0 && self.below(2) == 0;
            line += &if lower { word.to_lowercase() } else { word.clone() };
        }
        line += self.one_of(&["\n", "\n", "\r\n", " \t\n"]);
        (line.into_bytes(), answer + "\n")
    }

    fn wrong(&mut self) -> (Vec<u8>, String) {
        let (line, answer) = self.one_of(&[
            (&b"\n"[..], "ERROR: empty command\n"),
            (b" \t\r\n", "ERROR: empty command\n"),
            (b"GET\n", "ERROR: unknown command\n"),
            (b"GET 1 2\n", "ERROR: unknown command\n"),
            (b"set 1:1 \n", "ERROR: unknown command\n"),
            (b"SETTLE 1:1 2\n", "ERROR: unknown command\n"),
            (b"del\r\n", "ERROR: unknown command\n"),
            (b"SET 0:0 \xff\n", "ERROR: invalid UTF-8\n"),
        ]);
        (line.to_vec(), answer.into())
    }

    /// A text of that many bytes, at least one, with white space inside.
    fn value(&mut self, length: usize) -> String {
        let length = length.max(1);
        let blank = self.below(length);
        let letter = self.one_of(&["x", "Y", "7", "\0"]);
        let inside = |at: &usize| *at == blank && *at > 0 && at + 1 < length;
        (0..length).map(|at| if inside(&at) { " " } else { letter }).collect()
    }

    fn set(&mut self, key: &str, value: &str) -> String {
        let old = self.map.get(key).map(|old| key.len() + old.len());
        let used = self.used - old.unwrap_or(0) + key.len() + value.len();
        if used > self.bytes || (old.is_none() && self.map.len() == self.entries) {
            self.full += 1;
            return "ERROR: store full".into();
        }
        (self.used, self.stored) = (used, self.stored + 1);
        self.map.insert(key.into(), value.into());
        "OK".into()
    }

    fn delete(&mut self, key: &str) -> String {
        match self.map.remove(key) {
            Some(old) => {
                self.used -= key.len() + old.len();
                "DELETED".into()
            }
            None => "NOT_FOUND".into(),
        }
    }
}
