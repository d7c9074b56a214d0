//! Which loads there are, and which servers meet each.

use crate::load::{Crowd, Exchange, Load, Script, Traffic};
use crate::server::{Program, Service};

/// One block of the table.
pub struct Case {
    pub name: &'static str,
    pub service: Service,
    pub clients: usize,
    crowd: Crowd,
    traffic: fn(Program) -> Traffic,
}

impl Case {
    const fn new(name: &'static str, clients: usize, traffic: fn(Program) -> Traffic) -> Case {
        Case { name, service: Service::Echo, clients, crowd: Crowd::silent(0), traffic }
    }

    const fn kv(name: &'static str, traffic: fn(Program) -> Traffic) -> Case {
        Case { service: Service::Kv, ..Case::new(name, 64, traffic) }
    }

    pub fn load(&self, program: Program) -> Load {
        Load { clients: self.clients, traffic: (self.traffic)(program), crowd: self.crowd }
    }

    /// Those that can be run here.
    pub fn programs<'a>(&'a self, installed: &'a [Program]) -> impl Iterator<Item = Program> + 'a {
        installed.iter().copied().filter(|program| program.serves(self.service))
    }
}

const THOUSAND: Crowd = Crowd::silent(1_000);
/// Twice the workers of each.
const RUDE: Crowd = Crowd { silent: 0, tricklers: 8, deaf: 8 };

fn echo(_: Program) -> Traffic {
    Traffic::Steady(Script::echo())
}

fn kv(program: Program, sets_in_ten: usize) -> Traffic {
    Traffic::Steady(match program {
        Program::Memcached => Script::memcached(sets_in_ten),
        _ => Script::kv(sets_in_ten),
    })
}

pub fn cases() -> Vec<Case> {
    vec![
        Case::new("1 client", 1, echo),
        Case::new("4 clients", 4, echo),
        Case::new("64 clients", 64, echo),
        Case { crowd: THOUSAND, ..Case::new("4 clients beside 1,000 silent", 4, echo) },
        Case { crowd: RUDE, ..Case::new("4 clients beside 8 that trickle and 8 that never read", 4, echo) },
        Case::new("16 clients: connect, ask, close", 16, |_| Traffic::Churn(Exchange::echo())),
        Case::new("4 clients, 16 requests pipelined", 4, |_| Traffic::Steady(Script::pipelined(16))),
        Case::kv("kv: 64 clients, GET", |program| kv(program, 0)),
        Case::kv("kv: 64 clients, 9 GET to 1 SET", |program| kv(program, 1)),
        Case { service: Service::Time, ..Case::new("UDP time: 4 clients", 4, |_| Traffic::Datagrams) },
    ]
}
