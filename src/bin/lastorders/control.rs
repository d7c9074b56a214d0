//! `lastorders control`: one request to a running server's control socket, and its answer.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lastorders::Seconds;
use lexopt::Arg;

use crate::failure::Failure;
use crate::print;
use crate::usage::CONTROL_USAGE;
use crate::values::{Parsed, seconds, shown, some_path, value};

pub struct Control {
    pub socket: PathBuf,
    pub request: String,
}

/// A server answers at once; one that is stopped in a debugger never does.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Control>, Failure> {
    let usage = |text: String| Failure::Usage(format!("{text}; see `lastorders control --help`"));
    let default = std::env::var_os("LASTORDERS_CONTROL").unwrap_or("/run/lastorders.sock".into());
    let mut control = Control { socket: default.into(), request: String::new() };
    let (mut form, mut grace) = ("", None);
    while let Some(arg) = parser.next().map_err(|error| usage(error.to_string()))? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Parsed::Help(CONTROL_USAGE.into())),
            Arg::Long("socket") => control.socket = value(&mut parser).and_then(|it| some_path(&it)).map_err(usage)?,
            Arg::Long("json") => form = "json",
            Arg::Long("metrics") => form = "metrics",
            Arg::Long("grace") => {
                let text = value(&mut parser).map_err(usage)?;
                grace = Some(seconds(&text).map_err(|error| usage(format!("--grace {text:?}: {error}")))?);
            }
            Arg::Value(word) if control.request.is_empty() && (word == "status" || word == "stop") => {
                control.request = word.to_string_lossy().into_owned();
            }
            other => return Err(usage(format!("unexpected argument {}", shown(&other)))),
        }
    }
    match (control.request.as_str(), form, grace) {
        ("status", "", None) | ("stop", "", None) => {}
        ("status", form, None) => control.request += &format!(" {form}"),
        ("stop", "", Some(grace)) => control.request += &format!(" {}", Seconds(grace)),
        ("", ..) => return Err(usage("no request; choose status or stop".into())),
        (request, ..) => return Err(usage(format!("{request} does not take that option"))),
    }
    Ok(Parsed::Options(control))
}

pub fn run(control: Control) -> Result<(), Failure> {
    let answer = ask(&control.socket, &control.request).map_err(|error| {
        let path = control.socket.display();
        let hint = "is a server running with --control on that path?";
        Failure::Run(format!("cannot ask the server at {path}: {error}; {hint}"))
    })?;
    match answer.strip_prefix("ERROR: ") {
        Some(error) => Err(Failure::Run(error.trim_end().into())),
        None => print(&answer),
    }
}

fn ask(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.is_empty() {
        true => Err(io::ErrorKind::UnexpectedEof.into()),
        false => Ok(answer),
    }
}
