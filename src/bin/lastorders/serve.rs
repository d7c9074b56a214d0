//! `lastorders serve`: from options to a running server.

use std::path::{Path, PathBuf};

use lastorders::activation::{Inherited, Socket as Ready};
use lastorders::builtin::{Command, Echo, Kv, MulticastLog, Time, Upper, UpperLines};
use lastorders::{Builder, Error, Group};
use log::{LevelFilter, error, info, warn};
use nix::sys::signal::Signal;

use crate::failure::{Failure, failure};
use crate::logging::Logging;
use crate::options::{Serve, Socket};
use crate::pid_file::PidFile;
use crate::values::TCP_SERVICES;
use crate::{background, console, logging, print};

pub fn run(mut serve: Serve) -> Result<(), Failure> {
    check_console(&serve)?;
    if serve.daemon {
        make_absolute(&mut serve)?;
    }
    let builder = builder(&mut serve)?;
    if serve.check {
        let budget = builder.budget().map_err(failure)?;
        return print(&format!("{budget}\n"));
    }
    let builder = std::mem::take(&mut serve.supervisor).attach(builder)?;
    let logging = std::mem::take(&mut serve.logging);
    start_logging(logging, &serve)?;
    let builder = if serve.daemon {
        let background = background::detach()?;
        // Not before: what can still fail, as the start of the workers, is to be said by who waits.
        builder.on_ready(move || background.ready())
    } else {
        builder
    };
    let server = match with_signals(builder).and_then(Builder::build) {
        // Nobody was served yet: this is how it was asked to end. Who waits for --daemon to be ready is told it is not.
        Err(stopped @ Error::Stopped { .. }) if !serve.daemon => {
            info!("Server stopped. {stopped}");
            return Ok(());
        }
        other => other.map_err(failure)?,
    };
    // Removed when this returns, whichever way it does.
    let _pid_file = serve.pid_file.as_deref().map(PidFile::write).transpose()?;
    if let Some(user) = &serve.user {
        if let Some(path) = &serve.control {
            user.own_socket(path)?;
        }
        user.become_user()?;
    }
    if serve.daemon {
        // An error that ends the server before it is ready is still shown there, but no line of the log.
        logging::leave_console();
    }
    if serve.console {
        console::watch(server.handle())?;
    }
    let report = server.run().map_err(|error| {
        if serve.daemon {
            error!("{error}");
        }
        failure(error)
    })?;
    info!("Server stopped. {report}");
    if serve.console {
        console::say("Exiting now.");
    }
    Ok(())
}

/// Says what cannot be had beside `--console`.
fn check_console(serve: &Serve) -> Result<(), Failure> {
    let text = match serve.console {
        true if serve.daemon => "--console waits for Enter, and --daemon leaves the console; choose one of them",
        true if serve.fork => {
            "--console waits in a thread, and --fork allows none; stop the server by a signal or --control"
        }
        _ => return Ok(()),
    };
    Err(Failure::Usage(text.into()))
}

fn start_logging(logging: Logging, serve: &Serve) -> Result<(), Failure> {
    let heard = logging.syslog || logging.file.is_some() || logging.level == LevelFilter::Off;
    match &serve.user {
        Some(user) => {
            logging.file.as_deref().inspect(|path| user.provide(path));
            user.opening(|| logging::start(logging))?;
        }
        None => logging::start(logging)?,
    }
    if serve.daemon && !heard {
        warn!("Nothing will be logged, --daemon leaves the console; add --syslog or --log-file PATH");
    }
    Ok(())
}

fn with_signals(builder: Builder) -> Result<Builder, Error> {
    builder
        .handle_signals()
        .on_signal(Signal::SIGUSR2 as i32, logging::reopen)?
        // A log file beyond `ulimit -f` shall fail to be written, not end the server.
        .on_signal(Signal::SIGXFSZ as i32, || {})
}

fn builder(serve: &mut Serve) -> Result<Builder, Failure> {
    let mut builder = Builder::new();
    let mut kv: Option<Kv> = None;
    let mut previous = String::new();
    for Inherited { name, socket, .. } in std::mem::take(&mut serve.inherited) {
        builder = match socket {
            Ready::Tcp(listener) => {
                let hosted = if previous == name { builder } else { add(builder, &name, serve, &mut kv)? };
                previous = name;
                hosted.listener(listener)
            }
            Ready::Udp(socket) => builder.datagram(Time::new()).name(&name).socket(socket),
        };
    }
    for socket in &serve.sockets {
        let next = match socket {
            Socket::Tcp(service, address) => {
                let hosted = if previous == *service { builder } else { add(builder, service, serve, &mut kv)? };
                previous.clone_from(service);
                hosted.listen(*address)
            }
            Socket::Udp(service, address) => builder.datagram(Time::new()).name(service).bind(*address),
            Socket::Multicast(address) => Group::new(*address, serve.interface.clone())
                .map(|group| builder.datagram(MulticastLog).name("multicast").join(group)),
        };
        builder = next.map_err(|error| Failure::Run(error.to_string()))?;
    }
    builder = builder.memory(kv.map_or(0, |kv| kv.memory())).limits(serve.limits.clone());
    builder = builder.bind_retry(serve.bind_retry);
    if serve.freebind {
        builder = builder.freebind();
    }
    let builder = match &serve.control {
        Some(path) => builder.control(path),
        None => builder,
    };
    Ok(if serve.fork { builder.forking(serve.max_children) } else { builder })
}

/// Adds a TCP service by its name. All that are called `kv` share one store, made for the first of them.
fn add(builder: Builder, name: &str, serve: &Serve, kv: &mut Option<Kv>) -> Result<Builder, Failure> {
    let builder = match name {
        "echo" => builder.service(Echo),
        "upper" => builder.service(Upper),
        "upper-lines" => builder.service(UpperLines),
        "command" => builder.service(Command::default()),
        "kv" => {
            let shared = match kv.take() {
                Some(kv) => kv,
                None => Kv::new(serve.kv_entries, serve.kv_bytes).map_err(failure)?,
            };
            builder.service(kv.insert(shared).clone())
        }
        other => return Err(Failure::Usage(format!("unknown service {other:?}; choose {TCP_SERVICES}"))),
    };
    Ok(builder.name(name))
}

/// Makes paths good for another working directory.
fn make_absolute(serve: &mut Serve) -> Result<(), Failure> {
    for path in [&mut serve.control, &mut serve.pid_file, &mut serve.logging.file].into_iter().flatten() {
        *path = absolute(path)?;
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::Run(format!("{}: {error}", path.display())))
}
