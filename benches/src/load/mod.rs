//! A load: clients that ask, clients that are merely there, and what the asking ones saw.
//!
//! All clients of a load live in one thread with one epoll instance, so that the generator costs as little of the
//! machine as can be. In [`steady`] a client asks again as soon as it is answered; in [`churn`] it first connects
//! anew; [`datagrams`] is the same over UDP. [`bystanders`] keep silent, trickle, or never read. A [`Script`] is what
//! a client sends and what it must receive.

mod bystanders;
mod churn;
mod datagrams;
mod script;
mod steady;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use bystanders::Crowd;
pub use script::{Exchange, Script};

use crate::server::Server;

/// How the asking clients ask.
#[derive(Clone, Debug)]
pub enum Traffic {
    /// On connections that stay.
    Steady(Script),
    /// On a new connection each time.
    Churn(Exchange),
    /// In datagrams.
    Datagrams,
}

#[derive(Clone, Debug)]
pub struct Load {
    pub clients: usize,
    pub traffic: Traffic,
    pub crowd: Crowd,
}

/// What the clients of one load saw, and what it cost the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub requests_per_second: f64,
    /// Microseconds, as the next.
    pub p50: f64,
    pub p99: f64,
    /// Microseconds of processor time per request.
    pub cpu: f64,
    /// KiB, the most it had.
    pub memory: f64,
    /// Wrong answers, closed connections, and datagrams not answered.
    pub errors: f64,
    /// Clients without a single answer.
    pub starved: f64,
}

/// What the clients count while they are measured.
pub(crate) struct Count {
    pub requests: u64,
    pub errors: u64,
    pub starved: usize,
    /// Nanoseconds from the request to the whole reply.
    pub latency: Histogram<u64>,
    pub elapsed: Duration,
    /// Of the server.
    pub cpu: Duration,
}

impl Count {
    fn new() -> io::Result<Count> {
        let latency = Histogram::new_with_bounds(100, 60_000_000_000, 3).map_err(io::Error::other)?;
        let (elapsed, cpu) = (Duration::ZERO, Duration::ZERO);
        Ok(Count { requests: 0, errors: 0, starved: 0, latency, elapsed, cpu })
    }

    /// An exchange has ended well.
    fn answered(&mut self, after: Duration) {
        self.requests += 1;
        // Beyond a minute it is a minute.
        self.latency.saturating_record(after.as_nanos() as u64);
    }
}

impl Load {
    /// All clients, the silent ones too.
    pub fn connections(&self) -> usize {
        self.clients + self.crowd.size()
    }

    /// Puts the load on a server for that long, after a tenth of the time (and one answer to each client that gets
    /// any) to warm up.
    ///
    /// # Errors
    /// When the clients cannot be made, or the server has ended. What goes wrong with single requests is counted.
    pub fn run(&self, server: &Server, time: Duration) -> io::Result<Sample> {
        let count = match &self.traffic {
            Traffic::Steady(script) => steady::run(server, script, self.clients, &self.crowd, time)?,
            Traffic::Churn(exchange) => churn::run(server, exchange, self.clients, time)?,
            Traffic::Datagrams => datagrams::run(server, self.clients, time)?,
        };
        let per = |whole: Duration, parts: f64| whole.as_secs_f64() * 1e6 / parts;
        let quantile = |q: f64| count.latency.value_at_quantile(q) as f64 / 1e3;
        Ok(Sample {
            requests_per_second: count.requests as f64 / count.elapsed.as_secs_f64(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            cpu: per(count.cpu, count.requests as f64),
            memory: server.memory("VmHWM")? as f64,
            errors: count.errors as f64,
            starved: count.starved as f64,
        })
    }
}

/// Connects and makes the socket non-blocking. Requests are small: none shall wait for another's acknowledgement.
fn connect(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let socket = std::net::TcpStream::connect(address)?;
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    Ok(socket)
}
