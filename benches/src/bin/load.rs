//! One server under one load, for a profiler, or to see quickly what a change does:
//! `load [--server NAME] [--service echo|kv|time] [--clients N] [--silent N] [--pipeline N] [--seconds S] [--rounds N]`.

use std::io;
use std::time::Duration;

use lastorders_benches::load::{Crowd, Load, Script, Traffic};
use lastorders_benches::server::{Program, Server, Service, Size};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    use lexopt::prelude::*;
    let (mut program, mut service) = (Program::Lastorders, Service::Echo);
    let (mut clients, mut silent, mut pipeline, mut workers, mut rounds) = (64, 0, 1, 4, 1);
    let mut seconds = 1.0;
    let mut words = lexopt::Parser::from_env();
    while let Some(word) = words.next()? {
        match word {
            Long("server") => program = named(&words.value()?.string()?)?,
            Long("service") => {
                service = match words.value()?.string()?.as_str() {
                    "kv" => Service::Kv,
                    "time" => Service::Time,
                    _ => Service::Echo,
                }
            }
            Long("clients") => clients = words.value()?.parse()?,
            Long("silent") => silent = words.value()?.parse()?,
            Long("pipeline") => pipeline = words.value()?.parse()?,
            Long("workers") => workers = words.value()?.parse()?,
            Long("rounds") => rounds = words.value()?.parse()?,
            Long("seconds") => seconds = words.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let traffic = match service {
        Service::Echo => Traffic::Steady(Script::pipelined(pipeline)),
        Service::Kv if program == Program::Memcached => Traffic::Steady(Script::memcached(0)),
        Service::Kv => Traffic::Steady(Script::kv(0)),
        Service::Time => Traffic::Datagrams,
    };
    let load = Load { clients, traffic, crowd: Crowd::silent(silent) };
    for _ in 0..rounds {
        let size = Size { workers, ..Size::for_clients(load.connections()) };
        let server = Server::start(program, service, size)?;
        let sample = load.run(&server, Duration::from_secs_f64(seconds))?;
        println!("{} {sample:?}", program.name());
    }
    Ok(())
}

fn named(name: &str) -> io::Result<Program> {
    let known = Program::ALL.into_iter().find(|program| program.name().starts_with(name));
    known.ok_or_else(|| io::Error::other(format!("unknown server {name:?}")))
}
