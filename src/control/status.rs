//! The texts of `status`: the counters as lines, as JSON, and with more about the server for Prometheus.
//!
//! In comes what the server knows of itself, out goes a text of bounded length.

use std::fmt::{self, Write as _};
use std::time::Duration;

use heapless::String as Text;

use crate::config::{CONTROL_REPLY, LISTENERS, Limits};
use crate::stats::{Kind, Stats};
use crate::sys::Seconds;

/// How the counters are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Lines,
    Json,
    /// The Prometheus text format, 0.0.4.
    Metrics,
}

/// An answer: as long as all metrics with their explanations.
pub(crate) type Answer = Text<CONTROL_REPLY>;

/// What a server knows of itself.
pub(crate) struct Report<'a> {
    pub(crate) stats: Stats,
    pub(crate) limits: &'a Limits,
    pub(crate) uptime: Duration,
    /// Connections that each TCP service got.
    pub(crate) accepted: heapless::Vec<(&'a str, u64), LISTENERS>,
}

/// What fits of a text; the capacity is chosen so that all does.
pub(crate) fn text<const N: usize>(arguments: fmt::Arguments<'_>) -> Text<N> {
    let mut answer = Text::new();
    let written = answer.write_fmt(arguments);
    debug_assert!(written.is_ok(), "the text is longer than its place");
    answer
}

/// The report as it was asked for.
pub(crate) fn status(report: &Report<'_>, form: Form) -> Answer {
    let mut answer = Answer::new();
    let written = match form {
        Form::Lines => report.write_lines(&mut answer),
        Form::Json => report.write_json(&mut answer),
        Form::Metrics => report.write_metrics(&mut answer),
    };
    debug_assert!(written.is_ok(), "the text is longer than its place");
    answer
}

impl Report<'_> {
    fn write_lines(&self, into: &mut Answer) -> fmt::Result {
        self.stats.figures().try_for_each(|figure| writeln!(into, "{} {}", figure.name, figure.value))
    }

    fn write_json(&self, into: &mut Answer) -> fmt::Result {
        for (index, figure) in self.stats.figures().enumerate() {
            let before = if index == 0 { "{" } else { ", " };
            write!(into, "{before}\"{}\": {}", figure.name, figure.value)?;
        }
        writeln!(into, "}}")
    }

    fn write_metrics(&self, into: &mut Answer) -> fmt::Result {
        head(into, "build_info", "The version of lastorders.", "gauge")?;
        writeln!(into, "lastorders_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
        gauge(into, "uptime_seconds", "Time since the server was built.", format_args!("{:.3}", Seconds(self.uptime)))?;
        for figure in self.stats.figures() {
            let (name, value) = (figure.name, figure.value);
            match figure.kind {
                Kind::Gauge => gauge(into, name, figure.help, format_args!("{value}"))?,
                Kind::Counter => {
                    head(into, &text::<32>(format_args!("{name}_total")), figure.help, "counter")?;
                    match name {
                        "accepted" => self.write_accepted(into)?,
                        _ => writeln!(into, "lastorders_{name}_total {value}")?,
                    }
                }
            }
        }
        self.write_limits(into)
    }

    /// A sample for each service. Services of the same name are one.
    fn write_accepted(&self, into: &mut Answer) -> fmt::Result {
        let accepted = self.accepted.iter().map(|(name, count)| (first_characters(name), *count));
        for (index, (name, _)) in accepted.clone().enumerate() {
            if accepted.clone().take(index).all(|(other, _)| other != name) {
                let count: u64 = accepted.clone().filter(|(other, _)| *other == name).map(|(_, count)| count).sum();
                writeln!(into, "lastorders_accepted_total{{service=\"{}\"}} {count}", Label(name))?;
            }
        }
        Ok(())
    }

    fn write_limits(&self, into: &mut Answer) -> fmt::Result {
        let limits = self.limits;
        for (name, help, value) in [
            ("limit_workers", "Worker threads.", limits.workers),
            ("limit_connections", "Open connections at most.", limits.connections),
            ("limit_queue", "Accepted connections that may wait for a worker.", limits.queue),
            ("limit_buffer_bytes", "Each connection's input and output buffer.", limits.buffer),
            ("limit_stack_bytes", "Each worker's stack.", limits.stack),
            ("limit_per_client", "Open connections of one address; 0: no limit.", limits.per_client.unwrap_or(0)),
        ] {
            gauge(into, name, help, format_args!("{value}"))?;
        }
        for (name, help, value) in [
            ("limit_idle_timeout_seconds", "Silence between requests; 0: no limit.", limits.idle_timeout),
            (
                "limit_request_timeout_seconds",
                "From a request's first byte to its last; 0: no limit.",
                limits.request_timeout,
            ),
            ("limit_write_timeout_seconds", "A reply left unread; 0: no limit.", limits.write_timeout),
            ("limit_grace_seconds", "Time to leave after the notice.", limits.grace),
        ] {
            gauge(into, name, help, format_args!("{}", Seconds(value)))?;
        }
        Ok(())
    }
}

fn head(into: &mut Answer, name: &str, help: &str, kind: &str) -> fmt::Result {
    writeln!(into, "# HELP lastorders_{name} {help}\n# TYPE lastorders_{name} {kind}")
}

fn gauge(into: &mut Answer, name: &str, help: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    head(into, name, help, "gauge")?;
    writeln!(into, "lastorders_{name} {value}")
}

/// As much of a name as an answer has room for.
fn first_characters(name: &str) -> &str {
    name.char_indices().nth(32).map_or(name, |(end, _)| &name[..end])
}

/// The value of a label, escaped as the format asks.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\n' => f.write_str("\\n"),
            '"' | '\\' => write!(f, "\\{character}"),
            _ => f.write_char(character),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn report(stats: Stats, limits: &Limits) -> Report<'_> {
        Report { stats, limits, uptime: Duration::from_millis(1_234_567), accepted: heapless::Vec::new() }
    }

    #[test]
    fn each_form_has_every_figure() {
        let long = ["é".repeat(32), "é".repeat(33)];
        let (stats, limits) = (Stats { accepted: u64::MAX, ..Stats::default() }, Limits::default());
        let mut report = report(stats, &limits);
        report.accepted.extend([("echo", 5), ("kv", 2), ("echo", 1), ("a\"b\\c\n", 1), (&long[0], 1), (&long[1], 2)]);
        let lines = status(&report, Form::Lines);
        assert!(lines.contains("accepted 18446744073709551615\n"));
        let json = status(&report, Form::Json);
        assert!(json.starts_with("{\"open\": 0, ") && json.ends_with("}\n"), "{json}");
        let metrics = status(&report, Form::Metrics);
        for part in [
            "# TYPE lastorders_build_info gauge\nlastorders_build_info{version=\"",
            "# TYPE lastorders_uptime_seconds gauge\nlastorders_uptime_seconds 1234.567\n",
            "# TYPE lastorders_open gauge\nlastorders_open 0\n",
            "# TYPE lastorders_accepted_total counter\nlastorders_accepted_total{service=\"echo\"} 6\n\
             lastorders_accepted_total{service=\"kv\"} 2\nlastorders_accepted_total{service=\"a\\\"b\\\\c\\n\"} 1\n",
            &format!("lastorders_accepted_total{{service=\"{}\"}} 3\n#", long[0]),
            "# TYPE lastorders_limit_per_client gauge\nlastorders_limit_per_client 0\n",
            "# TYPE lastorders_limit_idle_timeout_seconds gauge\nlastorders_limit_idle_timeout_seconds 30\n",
        ] {
            assert!(metrics.contains(part), "{part}: {metrics}");
        }
    }

    #[test]
    fn the_greatest_figures_fit() {
        let limits = Limits::default();
        let names: Vec<String> = (0..LISTENERS).map(|index| format!("{index:\"<40}")).collect();
        let mut longest = report(Stats::default(), &limits);
        longest.accepted.extend(names.iter().map(|name| (name.as_str(), u64::MAX / LISTENERS as u64)));
        let metrics = status(&longest, Form::Metrics);
        let numbers = metrics.lines().count() / 3 * 20;
        assert!(metrics.len() + numbers <= CONTROL_REPLY, "{} and {numbers}", metrics.len());
    }
}
