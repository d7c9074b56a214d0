//! `lastorders serve`: from options to a running server.

use lastorders::services::{Command, Echo, Kv, Upper, UpperLines};
use lastorders::{Builder, Error, Server, Service};
use log::info;
use nix::sys::signal::Signal;

use crate::options::{Serve, TCP_SERVICES};
use crate::{Failure, console, logging, print};

pub fn run(serve: Serve) -> Result<(), Failure> {
    if serve.fork && serve.console {
        let text = "--console waits in a thread, and --fork allows none; stop the server by a signal or --control";
        return Err(Failure::Usage(text.into()));
    }
    let builder = builder(&serve)?;
    if serve.check {
        let budget = builder.budget().map_err(failure)?;
        return print(&format!("{budget}\n"));
    }
    logging::start(serve.logging)?;
    let server = with_signals(builder).and_then(Builder::build).map_err(failure)?;
    if serve.console {
        console::watch(server.handle())?;
    }
    let report = server.run().map_err(failure)?;
    info!("Server stopped. {report}");
    if serve.console {
        console::say("Exiting now.");
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

fn builder(serve: &Serve) -> Result<Builder, Failure> {
    let mut builder: Option<Builder> = None;
    let mut kv: Option<Kv> = None;
    let mut previous = "";
    for (service, address) in &serve.tcp {
        let next = match builder {
            Some(builder) if previous == service => builder,
            builder => add(builder, service, serve, &mut kv)?.name(service),
        };
        let bound = next.listen(*address);
        builder = Some(bound.map_err(|error| Failure::Run(error.to_string()))?);
        previous = service;
    }
    let builder = builder.ok_or_else(|| Failure::Usage("no address to listen on".into()))?;
    let builder = builder.memory(kv.map_or(0, |kv| kv.memory())).limits(serve.limits.clone());
    let builder = match &serve.control {
        Some(path) => builder.control(path),
        None => builder,
    };
    Ok(if serve.fork { builder.forking(serve.max_children) } else { builder })
}

/// Adds a service by its name. All that are called `kv` share one store, made for the first of them.
fn add(builder: Option<Builder>, name: &str, serve: &Serve, kv: &mut Option<Kv>) -> Result<Builder, Failure> {
    Ok(match name {
        "echo" => host(builder, Echo),
        "upper" => host(builder, Upper),
        "upper-lines" => host(builder, UpperLines),
        "command" => host(builder, Command::default()),
        "kv" => {
            let shared = match kv.take() {
                Some(kv) => kv,
                None => Kv::new(serve.kv_entries, serve.kv_bytes).map_err(failure)?,
            };
            host(builder, kv.insert(shared).clone())
        }
        other => return Err(Failure::Usage(format!("unknown service {other:?}; choose {TCP_SERVICES}"))),
    })
}

fn host(builder: Option<Builder>, service: impl Service) -> Builder {
    match builder {
        None => Server::builder(service),
        Some(builder) => builder.service(service),
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Limit { name, value, expected } => {
            Failure::Usage(format!("--{name} {value} is out of range; choose {expected}"))
        }
        Error::Forking { .. } => Failure::Usage(format!("--fork: {error}")),
        other => Failure::Run(other.to_string()),
    }
}
