//! The metrics that `control status --metrics` prints, read by the rules of the Prometheus text format 0.0.4.

use std::collections::HashMap;

use crate::support::{Client, Daemon, command, guard};

/// Every sample by name and labels. Panics on what is not in the format.
fn parse(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut families) = (HashMap::new(), HashMap::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(!help.is_empty() && !help.contains('\\'), "{line}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect(line);
        assert!(["counter", "gauge"].contains(&kind) && (kind == "counter") == name.ends_with("_total"), "{line}");
        assert_eq!(families.insert(name, 0), None, "{line}");
        while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = sample.rsplit_once(' ').expect(sample);
            let labels = series.strip_prefix(name).expect(sample);
            let label = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix("\"}"));
            let (key, value_of_label) = label.and_then(|label| label.split_once("=\"")).unwrap_or(("none", "none"));
            assert!(labels.is_empty() || label.is_some(), "{sample}");
            assert!(key.bytes().all(|byte| byte.is_ascii_lowercase()) && !value_of_label.contains('"'), "{sample}");
            assert_eq!(samples.insert(series.to_string(), value.parse().expect(sample)), None, "{sample}");
            *families.get_mut(name).unwrap() += 1;
        }
        assert!(families[name] > 0, "{line}");
    }
    samples
}

fn metrics(path: &str) -> HashMap<String, f64> {
    let output = command().args(["control", "--socket", path, "status", "--metrics"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    parse(&String::from_utf8(output.stdout).unwrap())
}

/// Version, uptime, the limits as they were set, and the connections of each service, in a pool and with processes.
#[test]
fn the_metrics_show_the_server_as_it_was_configured() {
    guard(|| {
        let path = std::env::temp_dir().join(format!("lastorders-{}-metrics.sock", std::process::id()));
        let path = path.to_str().unwrap();
        let limits = ["--buffer", "1k", "--per-client", "7", "--idle-timeout", "1500ms", "--write-timeout", "0"];
        for (own, expected) in [
            (["--workers", "3", "--connections", "20", "--queue", "9"].as_slice(), [("workers", 3.0), ("queue", 9.0)]),
            (["--fork", "--max-children", "20"].as_slice(), [("workers", 0.0), ("queue", 64.0)]),
        ] {
            let sockets = ["--control", path, "--tcp", "echo=127.0.0.1:0", "--tcp", "upper=127.0.0.1:0"];
            let daemon = Daemon::serve(&[&sockets[..], &limits, own].concat());
            let _clients = [Client::greeted(daemon.addresses[0]), Client::greeted(daemon.addresses[0])];
            Client::connect(daemon.addresses[1]).echo(b"UPPER");
            let before = metrics(path);
            assert_eq!(before[&format!("lastorders_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
            for (service, count) in [("echo", 2.0), ("upper", 1.0)] {
                assert_eq!(before[&format!("lastorders_accepted_total{{service=\"{service}\"}}")], count);
            }
            let limits = [
                ("connections", 20.0),
                ("buffer_bytes", 1_024.0),
                ("per_client", 7.0),
                ("idle_timeout_seconds", 1.5),
                ("request_timeout_seconds", 10.0),
                ("write_timeout_seconds", 0.0),
                ("grace_seconds", 5.0),
            ];
            for (name, value) in expected.into_iter().chain(limits) {
                assert_eq!(before[&format!("lastorders_limit_{name}")], value, "{name}");
            }
            let uptime = "lastorders_uptime_seconds";
            assert!(before[uptime] > 0.0 && before[uptime] < 60.0 && metrics(path)[uptime] > before[uptime]);
        }
    });
}
