//! The options of `serve`: one table, from which they are read, looked up in the environment, and helped.

use super::{Serve, Socket, TCP_SERVICES, UDP_SERVICES};
use crate::logging;
use crate::privileges::account;
use crate::values::{descriptor, each, group, interface, level, number, offer, on, seconds, some_path, when_full};

/// An option of `serve`: its name, its value if it takes one, what it does, and how.
pub struct Opt {
    pub name: &'static str,
    pub value: &'static str,
    pub help: &'static str,
    pub set: fn(&mut Serve, &str) -> Result<(), String>,
}

pub const OPTIONS: &[Opt] = &[
    Opt {
        name: "tcp",
        value: "SERVICE=ADDR",
        help: "offer a service on an address; may be repeated [echo=127.0.0.1:9999]",
        set: |serve, text| {
            each(text, |one| {
                let offered = offer(one, TCP_SERVICES, "echo=127.0.0.1:9999");
                offered.map(|(service, address)| serve.sockets.push(Socket::Tcp(service, address)))
            })
        },
    },
    Opt {
        name: "udp",
        value: "SERVICE=ADDR",
        help: "answer datagrams on an address; may be repeated",
        set: |serve, text| {
            each(text, |one| {
                let offered = offer(one, UDP_SERVICES, "time=127.0.0.1:5006");
                offered.map(|(service, address)| serve.sockets.push(Socket::Udp(service, address)))
            })
        },
    },
    Opt {
        name: "multicast",
        value: "GROUP:PORT",
        help: "log what is sent to a multicast group; may be repeated",
        set: |serve, text| each(text, |one| group(one).map(|group| serve.sockets.push(Socket::Multicast(group)))),
    },
    Opt {
        name: "interface",
        value: "IF",
        help: "join the groups on it, a name or an address [the route's]",
        set: |serve, text| interface(text).map(|one| serve.interface = Some(one)),
    },
    Opt {
        name: "bind-retry",
        value: "SECONDS",
        help: "try again for so long to bind what is taken or not there yet [0]",
        set: |serve, text| seconds(text).map(|value| serve.bind_retry = value),
    },
    Opt {
        name: "freebind",
        value: "",
        help: "bind to addresses that the machine gets later (IP_FREEBIND)",
        set: |serve, _| on(&mut serve.freebind),
    },
    Opt {
        name: "workers",
        value: "N",
        help: "worker threads, 1 to 64 [4]",
        set: |serve, text| number(text).map(|value| serve.limits.workers = value),
    },
    Opt {
        name: "connections",
        value: "N",
        help: "open connections, 1 to 16384 [128]",
        set: |serve, text| number(text).map(|value| serve.limits.connections = value),
    },
    Opt {
        name: "queue",
        value: "N",
        help: "accepted connections that may wait for a worker, 1 to 1024 [64]",
        set: |serve, text| number(text).map(|value| serve.limits.queue = value),
    },
    Opt {
        name: "buffer",
        value: "BYTES",
        help: "each connection's input and output buffer, 64 to 1048576 [4096]",
        set: |serve, text| number(text).map(|value| serve.limits.buffer = value),
    },
    Opt {
        name: "grace",
        value: "SECONDS",
        help: "time clients have to leave after the shutdown notice, 0 to 86400 [5]",
        set: |serve, text| seconds(text).map(|value| serve.limits.grace = value),
    },
    Opt {
        name: "idle-timeout",
        value: "SECONDS",
        help: "silence allowed between requests, up to 86400 [30]",
        set: |serve, text| seconds(text).map(|value| serve.limits.idle_timeout = value),
    },
    Opt {
        name: "request-timeout",
        value: "SECONDS",
        help: "time from a request's first byte to its last [10]",
        set: |serve, text| seconds(text).map(|value| serve.limits.request_timeout = value),
    },
    Opt {
        name: "write-timeout",
        value: "SECONDS",
        help: "time a client may leave a reply unread [10]",
        set: |serve, text| seconds(text).map(|value| serve.limits.write_timeout = value),
    },
    Opt {
        name: "when-full",
        value: "POLICY",
        help: "a new client when all connections are taken: wait, shed or reject [wait]",
        set: |serve, text| when_full(text).map(|value| serve.limits.when_full = value),
    },
    Opt {
        name: "per-client",
        value: "N",
        help: "open connections of one address (IPv6: /64), 0 for no limit [0]",
        set: |serve, text| number(text).map(|value| serve.limits.per_client = (value > 0).then_some(value)),
    },
    Opt {
        name: "kv-entries",
        value: "N",
        help: "entries that the kv store holds, 1 to 1048576 [1024]",
        set: |serve, text| number(text).map(|value| serve.kv_entries = value),
    },
    Opt {
        name: "kv-bytes",
        value: "BYTES",
        help: "keys and values that the kv store holds, 64 to 67108864 [65536]",
        set: |serve, text| number(text).map(|value| serve.kv_bytes = value),
    },
    Opt {
        name: "control",
        value: "PATH",
        help: "answer `lastorders control` on a Unix socket",
        set: |serve, text| some_path(text).map(|path| serve.control = Some(path)),
    },
    Opt {
        name: "fork",
        value: "",
        help: "serve each connection in a process of its own, in place of workers",
        set: |serve, _| on(&mut serve.fork),
    },
    Opt {
        name: "max-children",
        value: "N",
        help: "processes that --fork may have at once, 1 to 1024 [50]",
        set: |serve, text| number(text).map(|value| serve.max_children = value),
    },
    Opt {
        name: "log-level",
        value: "LEVEL",
        help: "off, error, warn, info, debug or trace [info]",
        set: |serve, text| level(text).map(|value| serve.logging.level = value),
    },
    Opt {
        name: "log-file",
        value: "PATH",
        help: "log to this file too; SIGUSR2 opens it again",
        set: |serve, text| some_path(text).map(|value| serve.logging.file = Some(value)),
    },
    Opt {
        name: "log-size",
        value: "SIZE",
        help: "what the log file may grow to before it becomes PATH.1, 16K to 4G [1M]",
        set: |serve, text| logging::size(text).map(|value| serve.logging.size = value),
    },
    Opt { name: "syslog", value: "", help: "log to syslog(3) too", set: |serve, _| on(&mut serve.logging.syslog) },
    Opt {
        name: "notify-fd",
        value: "N",
        help: "write a line to that inherited descriptor when ready (s6, OpenRC)",
        set: |serve, text| descriptor(text).map(|number| serve.supervisor.fd = Some(number)),
    },
    Opt {
        name: "console",
        value: "",
        help: "stop when Enter is pressed, or standard input ends",
        set: |serve, _| on(&mut serve.console),
    },
    Opt {
        name: "daemon",
        value: "",
        help: "go on in the background; exit with 0 once every socket is bound",
        set: |serve, _| on(&mut serve.daemon),
    },
    Opt {
        name: "pid-file",
        value: "PATH",
        help: "keep the process id in this file while the server runs",
        set: |serve, text| some_path(text).map(|path| serve.pid_file = Some(path)),
    },
    Opt {
        name: "user",
        value: "NAME",
        help: "run as this user, or as UID:GID, once every socket is bound",
        set: |serve, text| account(text).map(|account| serve.user = Some(account)),
    },
    Opt {
        name: "check",
        value: "",
        help: "print what the server would use at most, and exit",
        set: |serve, _| on(&mut serve.check),
    },
];
