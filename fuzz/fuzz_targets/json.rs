//! JSON requests: judged as serde_json judges them, but for the depth that is allowed.
#![no_main]

use lastorders::invariants::{JSON_DEPTH, json};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let judged = json(data);
    let Ok(text) = std::str::from_utf8(data) else {
        assert_eq!(judged, None);
        return;
    };
    let valid = serde_json::from_str::<IgnoredAny>(text).is_ok() && depth(data) <= JSON_DEPTH;
    assert_eq!(judged.is_some(), valid);
    // Half a surrogate pair, or a number beyond f64, is grammatical, but no value of serde_json.
    if let (Some(judged), Ok(value)) = (judged, serde_json::from_str::<Value>(text)) {
        assert_eq!(judged, value.get("type").is_some_and(|value| value == "time"));
    }
});

/// How deeply arrays and objects lie within each other, in a text that is valid.
fn depth(text: &[u8]) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => now += 1,
            b']' | b'}' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}
