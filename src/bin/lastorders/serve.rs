//! `lastorders serve`: from options to a running server.

use lastorders::services::Echo;
use lastorders::{Builder, Error, Server};
use log::info;

use crate::options::Serve;
use crate::{Failure, logging, print};

pub fn run(serve: Serve) -> Result<(), Failure> {
    let builder = builder(&serve)?;
    if serve.check {
        let budget = builder.budget().map_err(failure)?;
        return print(&format!("{budget}\n"));
    }
    logging::start(serve.log_level);
    let report = builder.handle_signals().build().and_then(Server::run).map_err(failure)?;
    info!("Server stopped. {report}");
    Ok(())
}

fn builder(serve: &Serve) -> Result<Builder, Failure> {
    let mut builder: Option<Builder> = None;
    for (service, address) in &serve.tcp {
        let next = match builder {
            None => Server::builder(Echo),
            Some(builder) => builder.service(Echo),
        };
        let bound = next.name(service).listen(*address);
        builder = Some(bound.map_err(|error| Failure::Run(error.to_string()))?);
    }
    let builder = builder.ok_or_else(|| Failure::Usage("no address to listen on".into()))?;
    let builder = builder.limits(serve.limits.clone());
    let builder = match &serve.control {
        Some(path) => builder.control(path),
        None => builder,
    };
    Ok(if serve.fork { builder.forking(serve.max_children) } else { builder })
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
