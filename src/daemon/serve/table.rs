//! The options of `serve`: one table for the command line, the environment and the help.
//!
//! A row has the option's name, its help text, and the setting that it writes. The rows stand in the order of the
//! help. `{default}` in a help text stands for the default socket.

use std::path::PathBuf;
use std::time::Duration;

use super::privileges::account;
use super::services::Services;
use super::settings::{Protocol, Settings, Socket};
use crate::daemon::logging;
use crate::daemon::values::{bytes, descriptor, flag, group, interface, level, number, path, time, when_full};

use Set::{Bytes, Flag, Number, Path, Service, Time, Value};

/// An option of `serve`.
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    set: Set,
}

/// The setting that an option writes. A text in front is what the help calls the value.
enum Set {
    Flag(fn(&mut Settings) -> &mut bool),
    Time(fn(&mut Settings) -> &mut Duration),
    Bytes(fn(&mut Settings) -> &mut usize),
    Path(fn(&mut Settings) -> &mut Option<PathBuf>),
    Number(&'static str, fn(&mut Settings) -> &mut usize),
    Value(&'static str, fn(&mut Settings, &str) -> Result<(), String>),
    /// Sockets of services, separated by commas.
    Service(Protocol),
}

impl Opt {
    const fn new(name: &'static str, help: &'static str, set: Set) -> Opt {
        Opt { name, help, set }
    }

    pub(crate) fn is_flag(&self) -> bool {
        matches!(self.set, Flag(_))
    }

    /// What the help calls the value. A flag has none.
    pub(crate) fn value(&self) -> &'static str {
        match self.set {
            Flag(_) => "",
            Time(_) => "SECONDS",
            Bytes(_) => "BYTES",
            Path(_) => "PATH",
            Number(value, _) | Value(value, _) => value,
            Service(_) => "SERVICE=ADDR",
        }
    }

    /// Writes the setting.
    ///
    /// # Errors
    /// What would be a right value.
    pub(crate) fn set(&self, settings: &mut Settings, services: &Services, text: &str) -> Result<(), String> {
        match self.set {
            // On the command line it has no value.
            Flag(field) => *field(settings) = text.is_empty() || flag(text)?,
            Time(field) => *field(settings) = time(text)?,
            Bytes(field) => *field(settings) = bytes(text)?,
            Path(field) => *field(settings) = Some(path(text)?),
            Number(_, field) => *field(settings) = number(text)?,
            Value(_, set) => return set(settings, text),
            Service(protocol) => {
                for one in text.split(',') {
                    settings.sockets.push(services.socket(protocol, one)?);
                }
            }
        }
        Ok(())
    }
}

#[rustfmt::skip] // A row is easier to read than five lines.
pub(crate) const OPTIONS: &[Opt] = &[
    Opt::new("tcp", "offer a service on an address; may be repeated [{default}]", Service(Protocol::Tcp)),
    Opt::new("udp", "answer datagrams on an address; may be repeated", Service(Protocol::Udp)),
    Opt::new("multicast", "log what is sent to a multicast group; may be repeated", Value("GROUP:PORT", add_groups)),
    Opt::new("interface", "join the groups on it, a name or an address [the route's]",
        Value("IF", |it, text| interface(text).map(|value| it.interface = Some(value)))),
    Opt::new("bind-retry", "try again for so long to bind what is taken or not there yet [0]",
        Time(|it| &mut it.bind_retry)),
    Opt::new("freebind", "bind to addresses that the machine gets later (IP_FREEBIND)", Flag(|it| &mut it.freebind)),
    Opt::new("workers", "worker threads, 1 to 64 [4]", Number("N", |it| &mut it.limits.workers)),
    Opt::new("connections", "open connections, 1 to 16384 [128]", Number("N", |it| &mut it.limits.connections)),
    Opt::new("queue", "accepted connections that may wait for a worker, 1 to 1024 [64]",
        Number("N", |it| &mut it.limits.queue)),
    Opt::new("buffer", "each connection's input and output buffer, 64 to 1048576 [4096]",
        Bytes(|it| &mut it.limits.buffer)),
    Opt::new("grace", "time clients have to leave after the shutdown notice, 0 to 86400 [5]",
        Time(|it| &mut it.limits.grace)),
    Opt::new("idle-timeout", "silence allowed between requests, up to 86400 [30]",
        Time(|it| &mut it.limits.idle_timeout)),
    Opt::new("request-timeout", "time from a request's first byte to its last [10]",
        Time(|it| &mut it.limits.request_timeout)),
    Opt::new("write-timeout", "time a client may leave a reply unread [10]",
        Time(|it| &mut it.limits.write_timeout)),
    Opt::new("when-full", "a new client when all connections are taken: wait, shed or reject [wait]",
        Value("POLICY", |it, text| when_full(text).map(|value| it.limits.when_full = value))),
    Opt::new("per-client", "open connections of one address (IPv6: /64), 0 for no limit [0]",
        Value("N", |it, text| number(text).map(|value| it.limits.per_client = (value > 0).then_some(value)))),
    Opt::new("kv-entries", "entries that the kv store holds, 1 to 1048576 [1024]",
        Number("N", |it| &mut it.kv_entries)),
    Opt::new("kv-bytes", "keys and values that the kv store holds, 64 to 67108864 [65536]",
        Bytes(|it| &mut it.kv_bytes)),
    Opt::new("control", "answer `lastorders control` on a Unix socket", Path(|it| &mut it.control)),
    Opt::new("fork", "serve each connection in a process of its own, in place of workers", Flag(|it| &mut it.fork)),
    Opt::new("max-children", "processes that --fork may have at once, 1 to 1024 [50]",
        Number("N", |it| &mut it.max_children)),
    Opt::new("log-level", "off, error, warn, info, debug or trace [info]",
        Value("LEVEL", |it, text| level(text).map(|value| it.logging.level = value))),
    Opt::new("log-file", "log to this file too; SIGUSR2 opens it again", Path(|it| &mut it.logging.file)),
    Opt::new("log-size", "what the log file may grow to before it becomes PATH.1, 16K to 4G [1M]",
        Value("SIZE", |it, text| logging::size(text).map(|value| it.logging.size = value))),
    Opt::new("syslog", "log to syslog(3) too", Flag(|it| &mut it.logging.syslog)),
    Opt::new("notify-fd", "write a line to that inherited descriptor when ready (s6, OpenRC)",
        Value("N", |it, text| descriptor(text).map(|value| it.notify_fd = Some(value)))),
    Opt::new("console", "stop when Enter is pressed, or standard input ends", Flag(|it| &mut it.console)),
    Opt::new("daemon", "go on in the background; exit with 0 once every socket is bound", Flag(|it| &mut it.daemon)),
    Opt::new("pid-file", "keep the process id in this file while the server runs", Path(|it| &mut it.pid_file)),
    Opt::new("user", "run as this user, or as UID:GID, once every socket is bound",
        Value("NAME", |it, text| account(text).map(|value| it.user = Some(value)))),
    Opt::new("check", "print what the server would use at most, and exit", Flag(|it| &mut it.check)),
];

fn add_groups(settings: &mut Settings, text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|one| group(one).map(|group| settings.sockets.push(Socket::Multicast(group))))
}
