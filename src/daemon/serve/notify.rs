//! Notifications to the supervisor that has started the daemon: to systemd by datagrams to `NOTIFY_SOCKET`
//! (sd_notify(3)), to s6 and OpenRC by a line on the descriptor that `--notify-fd` names.
//!
//! In come the environment variables; out go readiness, the beginning of the shutdown, and the watchdog's pings. A
//! notification that cannot be sent at once is a warning in the log, and never ends or delays the server.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::config;
use crate::daemon::output::Output;
use crate::log::warn;
use crate::server::Builder;
use crate::server::activation::descriptor;

/// The notifications that the supervisor wants.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: Option<SocketAddr>,
    /// The supervisor restarts a server that sends no ping for this long.
    watchdog: Option<Duration>,
    /// The supervisor's descriptor, on which it waits for a line.
    fd: Option<i32>,
}

impl Notifications {
    /// Reads the variables that the supervisor has set. `fd` is the descriptor of the option.
    ///
    /// # Errors
    /// When a variable has a wrong form: the name, the value and what would be right.
    pub(crate) fn from_environment(fd: Option<i32>) -> Result<Notifications, String> {
        let text = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let socket = std::env::var_os("NOTIFY_SOCKET").map(|name| socket(name.as_bytes())).transpose()?;
        let (limit, pid) = (text("WATCHDOG_USEC"), text("WATCHDOG_PID"));
        let watchdog = watchdog(std::process::id(), pid.as_deref(), limit.as_deref())?;
        Ok(Notifications { socket, watchdog, fd })
    }

    /// Makes the server send the notifications.
    ///
    /// # Errors
    /// When the descriptor cannot be written to, or a socket cannot be made.
    pub(crate) fn attach(self, mut builder: Builder) -> Result<Builder, String> {
        if let Some(number) = self.fd {
            let mut fd =
                writable(number).map_err(|error| format!("--notify-fd {number}: cannot tell there: {error}"))?;
            builder = builder.on_ready(move || {
                if let Err(error) = fd.write(b"\n") {
                    warn!("The supervisor at --notify-fd was not told: {error}");
                }
            });
        }
        let Some(to) = self.socket else { return Ok(builder) };
        let notify = notifier(to)
            .map_err(|error| format!("cannot make a socket to notify the supervisor of NOTIFY_SOCKET: {error}"))?;
        let (ready, stopping) = (notify.clone(), notify.clone());
        let builder = builder.on_ready(move || ready("READY=1")).on_drain(move || stopping("STOPPING=1"));
        Ok(match self.watchdog {
            Some(limit) => builder.watchdog(ping_interval(limit), move || notify("WATCHDOG=1")),
            None => builder,
        })
    }
}

/// Half of the supervisor's limit, as sd_watchdog_enabled(3) advises, in the range that the server accepts.
fn ping_interval(limit: Duration) -> Duration {
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

/// The time within which process `own` must send a ping, from the texts of `WATCHDOG_PID` and `WATCHDOG_USEC`
/// (sd_watchdog_enabled(3)). `None` when there is no watchdog, or it is for another process.
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
fn writable(number: i32) -> io::Result<Output> {
    let fd = descriptor(number)?;
    let mode = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
    if mode == OFlag::O_RDONLY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is open for reading only"));
    }
    Output::new(fd)
}

/// Makes the function that sends a state to the supervisor. The socket is not connected, so that the datagrams reach a
/// supervisor that was restarted meanwhile.
fn notifier(to: SocketAddr) -> io::Result<impl Fn(&str) + Clone> {
    let socket = Arc::new(UnixDatagram::unbound()?);
    socket.set_nonblocking(true)?;
    Ok(move |state: &str| {
        if let Err(error) = socket.send_to_addr(state.as_bytes(), &to) {
            warn!("The supervisor at NOTIFY_SOCKET was not told {state}: {error}");
        }
    })
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
    fn the_watchdog_is_for_the_process_it_names_or_for_any() {
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
    fn two_pings_fit_into_the_limit_and_the_server_accepts_the_interval() {
        assert_eq!(ping_interval(Duration::from_secs(30)), Duration::from_secs(15));
        assert_eq!(ping_interval(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(ping_interval(Duration::from_micros(u64::MAX)), config::MAX_TIMEOUT);
    }
}
