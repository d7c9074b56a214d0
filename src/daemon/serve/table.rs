//! The options of `serve`: one table for the command line, the environment and the help.
//!
//! A row has the option's name, what the help calls its value, its help text, and how to write the setting. A flag has
//! no value. The rows stand in the order of the help. `{default}` in a help text stands for the default socket.

use super::privileges::account;
use super::services::Services;
use super::settings::{Protocol, Settings, Socket};
use crate::config::{BUFFER, CHILDREN, CONNECTIONS, KV_BYTES, KV_ENTRIES, QUEUE, WORKERS};
use crate::daemon::logging;
use crate::daemon::values::{self, bytes, descriptor, group, interface, number, parsed, path, time, when_full};

/// Writes a setting from the option's text, or says what would be a right value.
type Set = fn(&mut Settings, &str, &Services) -> Result<(), String>;

/// An option of `serve`.
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
    pub(crate) help: &'static str,
    pub(crate) set: Set,
}

const fn opt(name: &'static str, value: &'static str, help: &'static str, set: Set) -> Opt {
    Opt { name, value, help, set }
}

#[rustfmt::skip] // A row is easier to read than five lines.
pub(crate) const OPTIONS: &[Opt] = &[
    opt("tcp", "SERVICE=ADDR", "offer a service on an address; may be repeated [{default}]",
        |it, text, services| add_sockets(it, text, |one| services.socket(Protocol::Tcp, one))),
    opt("udp", "SERVICE=ADDR", "answer datagrams on an address; may be repeated",
        |it, text, services| add_sockets(it, text, |one| services.socket(Protocol::Udp, one))),
    opt("multicast", "GROUP:PORT", "log what is sent to a multicast group; may be repeated",
        |it, text, _| add_sockets(it, text, |one| group(one).map(Socket::Multicast))),
    opt("interface", "IF", "join the groups on it, a name or an address [the route's]",
        |it, text, _| put(&mut it.interface, interface(text).map(Some))),
    opt("bind-retry", "SECONDS", "try again for so long to bind what is taken or not there yet [0]",
        |it, text, _| put(&mut it.bind_retry, time(text))),
    opt("freebind", "", "bind to addresses that the machine gets later (IP_FREEBIND)",
        |it, text, _| flag(&mut it.freebind, text)),
    opt("workers", "N", "worker threads, 1 to 64 [4]", |it, text, _| put(&mut it.limits.workers, number(text, WORKERS))),
    opt("connections", "N", "open connections, 1 to 16384 [128]",
        |it, text, _| put(&mut it.limits.connections, number(text, CONNECTIONS))),
    opt("queue", "N", "accepted connections that may wait for a worker, 1 to 1024 [64]",
        |it, text, _| put(&mut it.limits.queue, number(text, QUEUE))),
    opt("buffer", "BYTES", "each connection's input and output buffer, 64 to 1048576 [4096]",
        |it, text, _| put(&mut it.limits.buffer, bytes(text, BUFFER))),
    opt("grace", "SECONDS", "time clients have to leave after the shutdown notice, 0 to 86400 [5]",
        |it, text, _| put(&mut it.limits.grace, time(text))),
    opt("idle-timeout", "SECONDS", "silence allowed between requests, up to 86400, 0 for no limit [30]",
        |it, text, _| put(&mut it.limits.idle_timeout, time(text))),
    opt("request-timeout", "SECONDS", "time from a request's first byte to its last, 0 for no limit [10]",
        |it, text, _| put(&mut it.limits.request_timeout, time(text))),
    opt("write-timeout", "SECONDS", "time a client may leave a reply unread, 0 for no limit [10]",
        |it, text, _| put(&mut it.limits.write_timeout, time(text))),
    opt("when-full", "POLICY", "a new client when all connections are taken: wait, shed or reject [wait]",
        |it, text, _| put(&mut it.limits.when_full, when_full(text))),
    opt("per-client", "N", "open connections of one address (IPv6: /64), 1 to 16384, 0 for no limit [0]",
        |it, text, _| put(&mut it.limits.per_client,
            number(text, 0..=*CONNECTIONS.end()).map(|count| (count > 0).then_some(count)))),
    opt("kv-entries", "N", "entries that the kv store holds, 1 to 1048576 [1024]",
        |it, text, _| put(&mut it.kv_entries, number(text, KV_ENTRIES))),
    opt("kv-bytes", "BYTES", "keys and values that the kv store holds, 64 to 67108864 [65536]",
        |it, text, _| put(&mut it.kv_bytes, bytes(text, KV_BYTES))),
    opt("control", "PATH", "answer `lastorders control` on a Unix socket",
        |it, text, _| put(&mut it.control, path(text).map(Some))),
    opt("fork", "", "serve each connection in a process of its own, in place of workers",
        |it, text, _| flag(&mut it.fork, text)),
    opt("max-children", "N", "processes that --fork may have at once, 1 to 1024 [50]",
        |it, text, _| put(&mut it.max_children, number(text, CHILDREN))),
    opt("log-level", "LEVEL", "off, error, warn, info, debug or trace [info]",
        |it, text, _| put(&mut it.logging.level, parsed(text, "choose off, error, warn, info, debug or trace"))),
    opt("log-file", "PATH", "log to this file too; SIGUSR2 opens it again",
        |it, text, _| put(&mut it.logging.file, path(text).map(Some))),
    opt("log-size", "SIZE", "what the log file may grow to before it becomes PATH.1, 16K to 4G [1M]",
        |it, text, _| put(&mut it.logging.size, logging::size(text))),
    opt("syslog", "", "log to syslog(3) too", |it, text, _| flag(&mut it.logging.syslog, text)),
    opt("notify-fd", "N", "write a line to that inherited descriptor when ready (s6, OpenRC)",
        |it, text, _| put(&mut it.notify_fd, descriptor(text).map(Some))),
    opt("console", "", "stop when Enter is pressed, or standard input ends", |it, text, _| flag(&mut it.console, text)),
    opt("daemon", "", "go on in the background; exit with 0 once every socket is bound",
        |it, text, _| flag(&mut it.daemon, text)),
    opt("pid-file", "PATH", "keep the process id in this file while the server runs",
        |it, text, _| put(&mut it.pid_file, path(text).map(Some))),
    opt("user", "NAME", "run as this user, or as UID:GID, once every socket is bound",
        |it, text, _| put(&mut it.user, account(text).map(Some))),
    opt("check", "", "do what a start does and undo it, print what the server would use at most, and exit", |it, text, _| flag(&mut it.check, text)),
];

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

/// On the command line a flag has an empty text. A variable can also switch the flag off.
fn flag(field: &mut bool, text: &str) -> Result<(), String> {
    put(field, if text.is_empty() { Ok(true) } else { values::flag(text) })
}

/// Adds the sockets of a list, which `read` reads one by one.
fn add_sockets(
    settings: &mut Settings,
    list: &str,
    read: impl Fn(&str) -> Result<Socket, String>,
) -> Result<(), String> {
    list.split(',').try_for_each(|one| read(one).map(|socket| settings.sockets.push(socket)))
}
