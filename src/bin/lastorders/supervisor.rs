//! Whoever has started the daemon and wants to know how it fares: systemd by datagrams to `NOTIFY_SOCKET`
//! (sd_notify(3)), s6 and OpenRC by a line on the descriptor that `--notify-fd` names.
//!
//! In come the variables, as they are; out go readiness, the begin of the shutdown, and the beats of the watchdog.
//! What the supervisor does not hear is a line in the log, never the end of the server.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use lastorders::activation::descriptor;
use lastorders::{Builder, config};
use log::warn;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::failure::Failure;

/// How long a supervisor that does not read may hold up the accept loop.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the supervisor has asked for.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<SocketAddr>,
    /// It must hear something once in that time.
    watchdog: Option<Duration>,
    /// Its descriptor for news of readiness.
    pub fd: Option<i32>,
}

impl Supervisor {
    /// Reads what the supervisor has put into the environment.
    ///
    /// # Errors
    /// When a variable is not what it should be: with its name, its value and what would be.
    pub fn read(&mut self) -> Result<(), String> {
        let text = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        self.socket = std::env::var_os("NOTIFY_SOCKET").map(|name| socket(name.as_bytes())).transpose()?;
        let (limit, pid) = (text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        self.watchdog = watchdog(std::process::id(), pid.as_deref(), limit.as_deref())?;
        Ok(())
    }

    /// Lets the server tell the supervisor.
    ///
    /// # Errors
    /// When the descriptor or a socket cannot be had.
    pub fn attach(self, builder: Builder) -> Result<Builder, Failure> {
        let fd = self.fd.map(|number| {
            writable(number).map_err(|error| Failure::Run(format!("--notify-fd {number}: cannot tell there: {error}")))
        });
        let fd = fd.transpose()?;
        let builder = match fd {
            Some(fd) => builder.on_ready(move || tell(fd)),
            None => builder,
        };
        let Some(to) = self.socket else { return Ok(builder) };
        let notifier = Arc::new(Notifier::to(to).map_err(|error| {
            Failure::Run(format!("cannot make a socket to notify the supervisor of NOTIFY_SOCKET: {error}"))
        })?);
        let (ready, stopping) = (notifier.clone(), notifier.clone());
        let builder = builder.on_ready(move || ready.send("READY=1")).on_drain(move || stopping.send("STOPPING=1"));
        Ok(match self.watchdog {
            Some(limit) => builder.watchdog(beats(limit), move || notifier.send("WATCHDOG=1")),
            None => builder,
        })
    }
}

/// Half of the time that is allowed, as sd_watchdog_enabled(3) advises, in the range that a server can do.
fn beats(limit: Duration) -> Duration {
    (limit / 2).clamp(Duration::from_millis(1), config::MAX_TIMEOUT)
}

/// The socket that `NOTIFY_SOCKET` names: a path, or an abstract name with `@` in front (unix(7)).
fn socket(name: &[u8]) -> Result<SocketAddr, String> {
    let address = match name {
        [b'/', _, ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    address.map_err(|_| {
        let name = String::from_utf8_lossy(name);
        format!("NOTIFY_SOCKET {name:?}: expected the path of a Unix socket, or @ and a name, of at most 107 bytes")
    })
}

/// The time within which process `own` must be heard of, from the texts of `WATCHDOG_PID` and `WATCHDOG_USEC`
/// (sd_watchdog_enabled(3)).
fn watchdog(own: u32, pid: Option<&str>, limit: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(limit) = limit else { return Ok(None) };
    if let Some(pid) = pid {
        let number: u32 = pid.parse().map_err(|_| format!("WATCHDOG_PID {pid:?}: expected the number of a process"))?;
        if number != own {
            return Ok(None);
        }
    }
    match limit.parse() {
        Ok(micros @ 1..) => Ok(Some(Duration::from_micros(micros))),
        _ => Err(format!("WATCHDOG_USEC {limit:?}: expected a number of microseconds, 1 or more")),
    }
}

/// The inherited descriptor with this number, for writing.
fn writable(number: i32) -> io::Result<File> {
    let fd: OwnedFd = descriptor(number)?;
    let mode = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
    if mode == OFlag::O_RDONLY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is open for reading only"));
    }
    Ok(File::from(fd))
}

/// Writes the line that says ready, and closes the descriptor.
fn tell(mut fd: File) {
    if let Err(error) = fd.write_all(b"\n") {
        warn!("The supervisor at --notify-fd was not told: {error}");
    }
}

/// Sends states to a supervisor.
struct Notifier {
    socket: UnixDatagram,
    to: SocketAddr,
}

impl Notifier {
    fn to(to: SocketAddr) -> io::Result<Notifier> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Notifier { socket, to })
    }

    /// Not connected, so that a supervisor that was started anew in between is told too.
    fn send(&self, state: &str) {
        if let Err(error) = self.socket.send_to_addr(state.as_bytes(), &self.to) {
            warn!("The supervisor at NOTIFY_SOCKET was not told {state}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notify_socket_is_a_path_or_an_abstract_name() {
        let path = socket(b"/run/systemd/notify").unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        assert_eq!(socket(b"@\xffname").unwrap().as_abstract_name(), Some(&b"\xffname"[..]));
        for wrong in ["", "/", "@", "relative", "vsock:2:1234", &"/x".repeat(60), &format!("@{}", "x".repeat(120))] {
            let error = socket(wrong.as_bytes()).unwrap_err();
            assert!(error.starts_with(&format!("NOTIFY_SOCKET {wrong:?}: expected the path")), "{error}");
        }
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_names_or_for_whoever_is_there() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(7, Some("7"), Some("1000000")), Ok(second));
        assert_eq!(watchdog(7, None, Some("1000000")), Ok(second));
        assert_eq!(watchdog(7, Some("8"), Some("soon")), Ok(None));
        assert_eq!(watchdog(7, Some("7"), None), Ok(None));
        for (pid, limit, part) in
            [("me", "1", "WATCHDOG_PID \"me\""), ("7", "0", "WATCHDOG_USEC \"0\""), ("7", "1s", "microseconds")]
        {
            let error = watchdog(7, Some(pid), Some(limit)).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn beats_come_twice_in_the_time_that_is_allowed_and_are_possible() {
        assert_eq!(beats(Duration::from_secs(30)), Duration::from_secs(15));
        assert_eq!(beats(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(beats(Duration::from_micros(u64::MAX)), config::MAX_TIMEOUT);
    }
}
