//! `lastorders control`: one request to a running server's control socket, and its answer.
//!
//! In come the socket's path and the request, `status` or `stop`. The command prints the answer as the server wrote it,
//! and fails when the server refuses the request.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::action::{Action, Failure, print, printing};
use super::values::{path, text, time, unexpected, value};
use crate::control::connect;
use crate::sys::Seconds;

/// How long the server may take to answer. A server answers at once, unless a debugger has stopped it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const USAGE: &str = "\
Usage: lastorders control [--socket PATH] status [--json | --metrics]
       lastorders control [--socket PATH] stop [--grace SECONDS]

Asks a running server, started with `lastorders serve --control PATH`.

  --socket PATH        its control socket [$LASTORDERS_CONTROL, or /run/lastorders/control]
  status               print its counters, a line each
    --json             as one JSON object
    --metrics          in the Prometheus text format
  stop                 shut it down: notice, grace, close
    --grace SECONDS    with another grace time than it was started with

Exit codes: 0 answered, 1 no server there or request refused, 2 usage.
";

/// Reads the words after `control`.
pub(crate) fn parse(mut parser: Parser) -> Result<Action, lexopt::Error> {
    let default = std::env::var_os("LASTORDERS_CONTROL").filter(|path| !path.is_empty());
    let default = default.unwrap_or("/run/lastorders/control".into());
    let (mut socket, mut request) = (PathBuf::from(default), String::new());
    let (mut form, mut grace) = ("", None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => return Ok(printing(USAGE)),
            Arg::Long("socket") => socket = path(&text(parser.value()?)?)?,
            Arg::Long("json") if form != "metrics" => form = "json",
            Arg::Long("metrics") if form != "json" => form = "metrics",
            Arg::Long("json" | "metrics") => return Err("--json and --metrics are two forms; choose one".into()),
            Arg::Long("grace") => grace = Some(value(&mut parser, "--grace", time)?),
            Arg::Value(word) if request.is_empty() => match text(word)? {
                word if word == "status" || word == "stop" => request = word,
                word => return Err(format!("unknown request {word:?}; choose status or stop").into()),
            },
            other => return Err(unexpected(&other)),
        }
    }
    match (request.as_str(), form, grace) {
        ("status" | "stop", "", None) => {}
        ("status", form, None) => request += &format!(" {form}"),
        ("stop", "", Some(grace)) => request += &format!(" {}", Seconds(grace)),
        ("", ..) => return Err("no request; choose status or stop".into()),
        ("stop", form, _) => return Err(format!("--{form} is an option of status, not of stop").into()),
        _ => return Err("--grace is an option of stop, not of status".into()),
    }
    Ok(Box::new(move || run(&socket, &request)))
}

fn run(socket: &Path, request: &str) -> Result<(), Failure> {
    let answer = ask(socket, request).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "only root and the user of the server may ask",
            _ => "is a server running with --control on that path?",
        };
        format!("cannot ask the server at {}: {error}; {hint}", socket.display())
    })?;
    match answer.strip_prefix("ERROR: ") {
        Some(error) => Err(error.trim_end().to_string().into()),
        None => Ok(print(&answer)?),
    }
}

/// Sends the request as a line, and returns the whole answer.
fn ask(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let sent = stream.write_all(format!("{request}\n").as_bytes());
    let mut answer = Vec::new();
    let received = stream.read_to_end(&mut answer);
    // A server that refuses the user answers before it is asked, and closes: both calls may fail then.
    match answer.is_empty() {
        true => Err(sent.and(received.map(|_| ())).err().unwrap_or(io::ErrorKind::UnexpectedEof.into())),
        false => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}
