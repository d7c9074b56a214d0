//! `lastorders control`: one request to a running server's control socket, and its answer.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Failure, print};

pub struct Control {
    pub socket: PathBuf,
    pub request: String,
}

/// A server answers at once; one that is stopped in a debugger never does.
const PATIENCE: Duration = Duration::from_secs(5);

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
