//! `docs/benchmarks.md`: the figures, how they came about, and what was tried.
//!
//! All of it is made anew from what was measured, but for its last part, which is `benches/notes.md` as it stands.

pub mod growth;
pub mod loads;
pub mod memory;

use crate::memory::Held;
use crate::notices::{CLIENTS, Notices};
use crate::plan::Case;
use crate::rounds::{Cell, Effort};
use crate::table::{Table, figure, whole};
use crate::{growth as curves, machine};

/// Everything that was measured.
pub struct Results {
    pub effort: Effort,
    pub cases: Vec<Case>,
    pub groups: Vec<Vec<Cell>>,
    pub memory: Vec<Held>,
    pub by_connections: Vec<Vec<Cell>>,
    pub by_workers: Vec<Vec<Cell>>,
    pub notices: Option<Notices>,
    /// What was counted, and the count.
    pub instructions: Vec<(&'static str, f64)>,
}

impl Results {
    /// The figures, as they are printed too.
    pub fn figures(&self) -> String {
        let mut parts = vec![
            "## Loads\n".to_string(),
            loads::table(&self.cases, &self.groups),
            "## Memory\n\nKiB resident when each of so many clients has been served once and stays.\n".into(),
            memory::table(&self.memory),
            format!(
                "## How cost grows\n\nProcessor time per request in µs (and requests/s in thousands) of the same {} busy clients, \
                 beside more and more silent ones:\n",
                curves::BUSY
            ),
            growth::table("silent clients", &curves::SILENT, &self.by_connections),
            "and, with none of those, with more and more workers:\n".into(),
            growth::table("workers", &curves::WORKERS, &self.by_workers),
        ];
        if let Some(notices) = &self.notices {
            parts.push(format!("## Last orders\n\nMilliseconds from SIGTERM, with {CLIENTS} idle clients that leave when all of them have the notice:\n"));
            parts.push(last_orders(notices));
        }
        if !self.instructions.is_empty() {
            parts.push("## Instructions per request\n\nOf all threads of the daemon, without the kernel, counted by callgrind:\n".into());
            let mut table = Table::new(1, ["load", "instructions"]);
            self.instructions.iter().for_each(|(name, count)| table.row([name.to_string(), whole(*count)]));
            parts.push(table.print());
        }
        parts.join("\n")
    }

    /// The whole document.
    pub fn document(&self, notes: &str) -> String {
        let machine = machine::lines().iter().fold(String::new(), |text, line| format!("{text}- {line}\n"));
        let (intro, method) = (INTRO, self.method());
        let (date, figures) = (machine::date(), self.figures());
        format!("{intro}\nMeasured on {date}.\n\n{figures}\n{method}\n## Machine\n\n{machine}\n{notes}")
    }

    fn method(&self) -> String {
        let (rounds, seconds) = (self.effort.rounds, self.effort.time.as_secs_f64());
        METHOD.replace("{rounds}", &rounds.to_string()).replace("{seconds}", &figure(seconds))
    }
}

fn last_orders(notices: &Notices) -> String {
    let mut table = Table::new(0, ["first notice", "last notice", "exit", "clients without it"]);
    let missed = whole(notices.missed as f64);
    table.row([figure(notices.first), figure(notices.last), figure(notices.exit), missed]);
    table.print()
}

const INTRO: &str = "\
# Benchmarks

<!-- Written by `make bench`. What is to stay goes into benches/notes.md. -->

The released daemon against what people would use instead, four workers each, on one machine over loopback. `make bench`
does all of this again; `make bench-quick` has a first answer in two minutes.

![Each server in terms of tokio, and how its cost grows](benchmarks.svg)
";

const METHOD: &str = "\
## Method

- **Rounds**: {rounds} of them, {seconds} s for each figure. In each round every server meets every load once, rivals right
  after each other and in another order each time. Figures are medians; errors and starved clients are those of the
  worst round.
- **A server** is a process that is started for one figure, with four workers (the thread-each ones have none), and ended
  after it. lastorders is the release daemon, built for size as it is shipped, with `--log-level warn` and `--connections` for
  as many clients as come; the other programs in Rust are built for speed.
- **Requests** are 11 bytes, and so are replies and kv values. A client asks again as soon as it has its whole reply, which is
  compared byte for byte. All clients live in one thread, which shares the processors with the server: requests/s of
  the fastest servers say as much about the load generator, CPU time per request does not.
- **CPU** is the processor time of the server's process (`clock_getcpuclockid(3)`), the kernel's work on its behalf included,
  over the requests answered in that time. It is the steadiest figure here.
- **Peak** is `VmHWM`. **Errors** are wrong replies, connections that the server ended, and datagrams not answered within
  100 ms. **Starved** clients had no reply at all while they were measured.
- **Servers**: *epoll loop* is the practical ceiling, a bare loop as in C with none of what a server needs beside it (it drops a
  client that does not read); *threadpool* is the crate of this name with a worker per connection until that closes, *Python
  pool* a `ThreadPoolExecutor` used so, *thread each* and *Python threads* (`ThreadingTCPServer`) start a thread per connection.
  memcached is asked in its own protocol. The time is told over UDP by four tasks, or threads, on one socket.
- **Instructions**: two runs under callgrind; the difference of the counts over that of the requests, so that start and end
  drop out.
";
