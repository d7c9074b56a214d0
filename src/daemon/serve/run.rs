//! `serve` itself: makes the server from the settings, runs it, and cleans up after it.
//!
//! The order of the steps matters. What can be refused comes before anything that has an effect; the process forks
//! before it has threads; files and sockets are made before the process gives up the rights to make them.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io, mem};

use lexopt::Parser;
use log::LevelFilter;
use nix::sys::signal::Signal;

use super::check::check;
use super::notify::Notifications;
use super::pid_file::PidFile;
use super::services::Services;
use super::settings::{Protocol, Settings, Socket};
use super::{activation, background, console, options};
use crate::builtin::MulticastLog;
use crate::daemon::action::{Action, Failure, print, printing};
use crate::daemon::logging;
use crate::daemon::output::show;
use crate::datagram::Group;
use crate::error::Error;
use crate::log::{error, info, warn};
use crate::server::activation::Socket as Inherited;
use crate::server::{Builder, Server};

/// Reads the words after `serve`.
pub(crate) fn parse(
    parser: Parser,
    services: Services,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Action, lexopt::Error> {
    Ok(match options::read(parser, &services, variable)? {
        Some(settings) => Box::new(|| run(settings, services)),
        None => printing(options::help(&services)),
    })
}

fn run(mut settings: Settings, mut services: Services) -> Result<(), Failure> {
    // LISTEN_PID and WATCHDOG_PID hold this process's id, and a child of fork(2) would not find its own id there.
    let inherited = activation::take(&services)?;
    let notifications = Notifications::from_environment(settings.notify_fd).map_err(Failure::Usage)?;
    check_console(&settings)?;
    check_paths(&settings)?;
    if settings.sockets.is_empty() && inherited.is_empty() {
        settings.sockets.extend(services.socket(Protocol::Tcp, &services.example(Protocol::Tcp)));
    }
    let passed = |name: &str| inherited.iter().any(|(passed, _)| *passed == name);
    let mut warnings = options::check_effects(&settings, &services, passed).map_err(Failure::Usage)?;
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    warnings.extend(options::unknown_variables(names));
    if settings.daemon {
        settings.make_paths_absolute()?;
    }
    let builder = with_sockets(Builder::new(), inherited, &settings, &mut services)?;
    let builder = with_settings(builder, &settings);
    if settings.check {
        return Ok(print(&check(builder, &settings, warnings)?)?);
    }
    let builder = notifications.attach(builder)?;
    let console = logging::console();
    let start = || {
        logging::start(&settings.logging, console)?;
        start(builder, &settings, &warnings)
    };
    let server = match &settings.user {
        // What a line of the log makes, renames or empties must be what the user may change.
        Some(user) => user.with_file_rights(start)?,
        None => start(),
    };
    server?.map_or(Ok(()), |server| serve(server, &settings))
}

/// Refuses what is not possible together with `--console`.
fn check_console(settings: &Settings) -> Result<(), Failure> {
    let text = match settings.console {
        true if settings.daemon => "--console waits for Enter, and --daemon leaves the console; choose one of them",
        true if settings.fork => {
            "--console waits in a thread, and --fork allows none; stop the server by a signal or --control"
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(text.into()))
}

/// Refuses two options that name one file, by whatever links and names.
fn check_paths(settings: &Settings) -> Result<(), Failure> {
    let log = settings.logging.file.as_deref();
    let old = log.map(logging::old_name);
    let paths = [
        ("--log-file", log),
        ("the old file of --log-file", old.as_deref()),
        ("--pid-file", settings.pid_file.as_deref()),
        ("--control", settings.control.as_deref()),
    ];
    let ids: Vec<_> = paths.iter().filter_map(|(name, path)| Some((name, (*path)?, file_id((*path)?)?))).collect();
    for (index, (name, path, id)) in ids.iter().enumerate() {
        if let Some((other, second, _)) = ids[..index].iter().find(|(_, _, other)| other == id) {
            let text =
                format!("{name} {path:?} and {other} {second:?} are one file; choose another path for one of them");
            return Err(Failure::Usage(text));
        }
    }
    Ok(())
}

/// The file that a path names: device and inode; or those of its directory, with its name, when the file is not there
/// yet. `None` when the path cannot be followed, which is reported when the file is opened.
fn file_id(path: &Path) -> Option<(u64, u64, Option<OsString>)> {
    match fs::metadata(path) {
        Ok(found) => return Some((found.dev(), found.ino(), None)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    // The directory of a bare name has an empty path.
    let directory = path.parent()?.join(".");
    match fs::read_link(path) {
        // The log file will be made where the link leads.
        Ok(target) => file_id(&directory.join(target)),
        Err(_) => {
            let found = fs::metadata(directory).ok()?;
            Some((found.dev(), found.ino(), path.file_name().map(Into::into)))
        }
    }
}

/// Adds the sockets and their services: first those that the supervisor has passed, then those of the options.
fn with_sockets(
    mut builder: Builder,
    inherited: Vec<(&'static str, Inherited)>,
    settings: &Settings,
    services: &mut Services,
) -> Result<Builder, Failure> {
    for (name, socket) in inherited {
        builder = match socket {
            Inherited::Tcp(listener) => services.attach(Protocol::Tcp, name, settings, builder)?.listener(listener),
            Inherited::Udp(socket) => services.attach(Protocol::Udp, name, settings, builder)?.socket(socket),
        };
    }
    for socket in &settings.sockets {
        let next = match *socket {
            Socket::Service { protocol, name, address } => {
                let builder = services.attach(protocol, name, settings, builder)?;
                match protocol {
                    Protocol::Tcp => builder.listen(address),
                    Protocol::Udp => builder.bind(address),
                }
            }
            Socket::Multicast(address) => Group::new(address, settings.interface.clone())
                .map(|group| builder.datagram(MulticastLog).name("multicast").join(group)),
        };
        builder = next.map_err(|error| error.to_string())?;
    }
    Ok(builder)
}

fn with_settings(builder: Builder, settings: &Settings) -> Builder {
    let mut builder = builder.limits(settings.limits.clone()).bind_retry(settings.bind_retry);
    builder = builder.memory(settings.logging.memory());
    if settings.freebind {
        builder = builder.freebind();
    }
    if let Some(path) = &settings.control {
        builder = builder.control(path);
    }
    if settings.fork { builder.forking(settings.max_children) } else { builder }
}

/// Logs the warnings, goes to the background if that is wanted, and builds the server. Returns `None` when a signal to stop
/// came first.
fn start(mut builder: Builder, settings: &Settings, warnings: &[String]) -> Result<Option<Server>, Failure> {
    let logging = &settings.logging;
    let only_console = !logging.syslog && logging.file.is_none() && logging.level != LevelFilter::Off;
    if settings.daemon && only_console {
        warn!("Nothing will be logged, --daemon leaves the console; add --syslog or --log-file PATH");
    }
    warnings.iter().for_each(|text| warn!("{text}"));
    if settings.daemon {
        builder = detached(builder)?;
    }
    let builder = builder.on_readable(logging::room()?, logging::flush);
    let builder = builder.handle_signals().on_signal(Signal::SIGUSR2 as i32, logging::reopen)?;
    // By default the kernel ends a process whose log file reaches `ulimit -f`. With the signal handled, the write fails
    // instead.
    let builder = builder.on_signal(Signal::SIGXFSZ as i32, || {})?;
    match builder.build() {
        // A signal to stop came before the server was built, so nothing failed. With --daemon this is an error all the
        // same, because the process that waits for the server must report that there is none.
        Err(stopped @ Error::Stopped { .. }) if !settings.daemon => {
            info!("Server stopped. {stopped}");
            Ok(None)
        }
        server => Ok(Some(server?)),
    }
}

/// Continues in the background. The process that was started exits once the server is ready and not before, because it
/// must report what can still fail, such as the start of the workers.
fn detached(builder: Builder) -> Result<Builder, String> {
    let hint = "choose to run without --daemon, or see that /proc and /dev are mounted";
    let ready = background::detach().map_err(|error| format!("cannot go on in the background: {error}; {hint}"))?;
    Ok(builder.on_ready(ready))
}

fn serve(server: Server, settings: &Settings) -> Result<(), Failure> {
    let pid_file = settings.pid_file.as_deref().map(PidFile::write).transpose();
    if let Some(user) = &settings.user
        && let Err(error) = user.become_user()
    {
        // The rights may still be root's, with which a server must not remove its control socket. The next one does.
        mem::forget(server);
        return Err(error.into());
    }
    // Removed when this function returns, whichever way it does.
    let _pid_file = pid_file?;
    if settings.daemon {
        // An error that ends the server before it is ready is still shown on the console, but no line of the log.
        logging::leave_console();
    }
    if settings.console {
        console::watch(server.handle())?;
    }
    let report = server.run().inspect_err(|error| {
        if settings.daemon {
            error!("{error}");
        }
    })?;
    info!("Server stopped. {report}");
    if settings.console {
        show(io::stdout(), "Exiting now.\n");
    }
    Ok(())
}
