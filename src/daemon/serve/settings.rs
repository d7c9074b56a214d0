//! What `serve` was asked for: the values of its options, with the defaults of those that were not given.
//!
//! The table of options writes the fields, and `run` reads them. Nothing here knows an option's name or text.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::privileges::Account;
use crate::config::Limits;
use crate::daemon::logging::Logging;
use crate::datagram::Interface;

/// The settings of one `serve` command line: a field an option, under the option's name.
#[derive(Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Entries that a kv store may hold.
    pub kv_entries: usize,
    /// Bytes that the keys and values of a kv store may have together.
    pub kv_bytes: usize,
    /// What gave the options that were given: `--workers`, or `LASTORDERS_WORKERS`.
    pub(crate) sources: Vec<String>,
    /// In the order of the command line, which is the order of the log lines.
    pub(crate) sockets: Vec<Socket>,
    /// The interface on which to join the multicast groups. Without one the kernel chooses by its routes.
    pub(crate) interface: Option<Interface>,
    pub(crate) bind_retry: Duration,
    pub(crate) freebind: bool,
    pub(crate) limits: Limits,
    pub(crate) control: Option<PathBuf>,
    pub(crate) fork: bool,
    pub(crate) max_children: usize,
    pub(crate) logging: Logging,
    pub(crate) notify_fd: Option<i32>,
    pub(crate) console: bool,
    pub(crate) daemon: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) user: Option<Account>,
    pub(crate) check: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            kv_entries: 1_024,
            kv_bytes: 65_536,
            sources: vec![],
            sockets: vec![],
            interface: None,
            bind_retry: Duration::ZERO,
            freebind: false,
            limits: Limits::default(),
            control: None,
            fork: false,
            max_children: 50,
            logging: Logging::default(),
            notify_fd: None,
            console: false,
            daemon: false,
            pid_file: None,
            user: None,
            check: false,
        }
    }
}

/// A socket that the server is to bind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Socket {
    Service { protocol: Protocol, name: &'static str, address: SocketAddr },
    Multicast(SocketAddr),
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Settings {
    /// Makes every path independent of the working directory, which `--daemon` changes.
    ///
    /// # Errors
    /// With the path, when the working directory cannot be read.
    pub(crate) fn make_paths_absolute(&mut self) -> Result<(), String> {
        let paths = [&mut self.control, &mut self.pid_file, &mut self.logging.file];
        for path in paths.into_iter().flatten() {
            *path = std::path::absolute(&*path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}
