//! One simulation: its state, its trace, and what makes things happen in it.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;

use lastorders::config::DATAGRAM;
use lastorders::{Error, ServerHandle, ShutdownReport};
use nix::libc;

use crate::calls::{deliver_signal, wake};
use crate::clients::{Client, Leaves, Reads, Sends, peer};
use crate::dice::Dice;
use crate::kernel::{BASE, File, Kernel, MS, Outcome};
use crate::scenario::Scenario;
use crate::schedule::{is_idle, steps, task};

/// The task that runs the server; its workers come after it, the world is 0.
pub(crate) const ACCEPT_LOOP: usize = 1;
/// Lines of the trace that a failure shows.
const SHOWN: usize = 80;

thread_local! {
    static SIM: RefCell<Option<Box<Sim>>> = const { RefCell::new(None) };
}

pub(crate) struct Sim {
    pub(crate) seed: u64,
    pub(crate) scenario: Scenario,
    pub(crate) kernel: Kernel,
    /// A client for each connection of the kernel.
    pub(crate) clients: Vec<Client>,
    pub(crate) by_peer: HashMap<SocketAddr, usize>,
    pub(crate) handlers: HashMap<i32, usize>,
    /// Datagrams that were sent, and whether they are answered or want no answer.
    pub(crate) datagrams: Vec<(Vec<u8>, SocketAddr, bool)>,
    /// When the server was first told to stop, and when its grace time ends or was ended.
    pub(crate) told: Option<u64>,
    pub(crate) closing: Option<u64>,
    /// When it began to give the notices.
    pub(crate) draining: Option<u64>,
    /// How often the hooks of the start and of the drain have run.
    pub(crate) hooks: (u32, u32),
    /// When the watchdog was last told.
    pub(crate) pinged: u64,
    /// Which connection each task last received from.
    pub(crate) turned_to: HashMap<usize, usize>,
    /// When all workers were last held by services.
    pub(crate) busy: u64,
    pub(crate) stops: usize,
    pub(crate) report: Option<Result<ShutdownReport, Error>>,
    /// When the world last did something but let time pass: calls that had waited, ends of connections, and the time.
    pub(crate) quiet: (u64, usize, u64),
    pub(crate) ended: usize,
    hash: u64,
    lines: VecDeque<String>,
    shows_all: bool,
}

pub(crate) fn is_running() -> bool {
    SIM.try_with(|sim| sim.try_borrow().is_ok_and(|sim| sim.is_some())).unwrap_or(false)
}

/// Looks at the simulation, which no thread may leave while it does.
pub(crate) fn with<T>(look: impl FnOnce(&mut Sim) -> T) -> T {
    SIM.with(|sim| match sim.borrow_mut().as_mut() {
        Some(sim) => look(sim),
        None => {
            eprintln!("a call outside of a simulation");
            std::process::exit(2);
        }
    })
}

/// Ends the program: the simulation has found something.
pub(crate) fn fail(what: &str) -> ! {
    SIM.with(|sim| {
        // The one that fails may hold the simulation.
        let sim = sim.as_ptr();
        // SAFETY: the program ends here, on its only thread, and nothing else looks at the simulation meanwhile.
        #[allow(unsafe_code)]
        if let Some(sim) = unsafe { (*sim).as_ref() } {
            sim.show(what);
        }
    });
    std::process::exit(1);
}

impl Sim {
    fn new(seed: u64, shows_all: bool) -> Sim {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::draw(&mut dice);
        let kernel = Kernel::new(dice, scenario.start);
        let kernel_start = kernel.now;
        Sim {
            seed,
            quiet: (0, 0, kernel.now),
            kernel,
            scenario,
            clients: vec![],
            by_peer: HashMap::new(),
            handlers: HashMap::new(),
            datagrams: vec![],
            told: None,
            closing: None,
            draining: None,
            hooks: (0, 0),
            pinged: kernel_start,
            turned_to: HashMap::new(),
            busy: 0,
            stops: 0,
            report: None,
            ended: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            lines: VecDeque::new(),
            shows_all,
        }
    }

    fn show(&self, what: &str) {
        eprintln!("{:#?}", self.scenario);
        self.kernel
            .waiters
            .iter()
            .for_each(|waiter| eprintln!("task {} waits: {:?} {:?}", waiter.task, waiter.what, waiter.until));
        self.lines.iter().for_each(|line| eprintln!("{line}"));
        eprintln!("SEED={} found: {what} (step {}, {} ms)", self.seed, steps(), self.now() / MS);
    }

    /// The time since the start.
    fn now(&self) -> u64 {
        self.kernel.now - self.scenario.start
    }

    /// Adds a call to the trace. The same seed makes the same trace.
    pub(crate) fn trace(&mut self, name: &'static str, argument: i32, outcome: Outcome) {
        let word = match outcome {
            Ok(value) => value as u64,
            Err(errno) => 1 << 32 | errno as u64,
        };
        for word in [task() as u64, name.len() as u64, argument as u64, word, self.kernel.now] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.note(format_args!("{name}({argument}) = {outcome:?}"));
        // No two calls are made at one time.
        self.kernel.now += 1;
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let mut line = String::new();
        let now = self.now();
        let _ = write!(line, "{:>8} {:>14.6} ms  task {}: {what}", steps(), now as f64 / MS as f64, task());
        if self.shows_all {
            eprintln!("{line}");
        }
        if self.lines.len() == SHOWN {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Fails unless it is so.
    pub(crate) fn expect(&self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            fail(&what());
        }
    }
}

/// What one simulation came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Summary {
    pub(crate) hash: u64,
    /// Simulated time, in nanoseconds.
    pub(crate) time: u64,
    pub(crate) connections: usize,
}

/// Simulates one server from its start to its end.
pub(crate) fn simulate(seed: u64, shows_all: bool) -> Summary {
    SIM.set(Some(Box::new(Sim::new(seed, shows_all))));
    let scenario = with(|sim| sim.scenario.clone());
    let server = match scenario.build() {
        Ok(server) => server,
        Err(error) => fail(&format!("the server does not start: {error}")),
    };
    with(|sim| sim.kernel.faults = sim.scenario.faults);
    let handle = server.handle();
    let running = shuttle::thread::spawn(move || {
        let report = server.run();
        with(|sim| sim.report = Some(report));
    });
    let mut actions = 0;
    loop {
        shuttle::thread::yield_now();
        if is_idle() && with(|sim| sim.report.is_some() && sim.kernel.waiters.is_empty()) {
            break;
        }
        let has_acted = match is_idle() {
            true => idle(&handle, actions),
            false => act(&handle, actions),
        };
        actions += u64::from(has_acted);
        if has_acted {
            with(Sim::note_event);
        }
        wake();
    }
    let _ = running.join();
    let stats = handle.stats();
    // It keeps an event.
    drop(handle);
    let summary = with(|sim| {
        sim.check_end(&stats);
        Summary { hash: sim.hash, time: sim.now(), connections: sim.clients.len() }
    });
    SIM.set(None);
    summary
}

/// Something happens while the server's threads are at work.
fn act(handle: &ServerHandle, actions: u64) -> bool {
    let (choice, is_over) = with(|sim| {
        let now = sim.kernel.now + sim.kernel.dice.within(0..20_000);
        sim.kernel.advance(now);
        (sim.kernel.dice.index(16), actions >= sim.scenario.actions && sim.kernel.dice.once_in(40))
    });
    match choice {
        0..4 => with(|sim| sim.kernel.deliver_edge()),
        4 => with(|sim| {
            sim.kernel.give_spurious_edge();
            true
        }),
        5 if is_over => stop(handle),
        6..10 => with(Sim::readers_read),
        10 => {
            let stats = handle.stats();
            with(|sim| sim.check_stats(&stats));
            false
        }
        _ => with(|sim| sim.client_acts(false)),
    }
}

/// The server is idle: everything is looked at, and then something happens, or time passes until something does.
fn idle(handle: &ServerHandle, actions: u64) -> bool {
    if with(|sim| sim.kernel.deliver_edge() || sim.readers_read()) {
        return true;
    }
    let stats = handle.stats();
    let (acts, stops) = with(|sim| {
        sim.check_at_rest(&stats);
        let is_over = actions >= sim.scenario.actions && sim.kernel.dice.once_in(6);
        (sim.kernel.dice.once_in(2), is_over && sim.stops < sim.scenario.stops)
    });
    if stops {
        return stop(handle);
    }
    if acts && with(|sim| sim.client_acts(false)) {
        return true;
    }
    let waits_for = with(|sim| {
        let timers = sim.kernel.waiters.iter().filter_map(|waiter| waiter.until);
        let clients = sim.clients.iter().filter(|client| client.has_plans()).map(|client| client.next);
        match sim.report {
            Some(_) => timers.min(),
            None => timers.chain(clients).min(),
        }
    });
    match waits_for {
        Some(until) => with(|sim| {
            if !sim.kernel.waiters.is_empty() {
                sim.check_wakes();
            }
            let is_client = sim.clients.iter().any(|client| client.has_plans() && client.next <= until);
            let are_busy = sim.all_are_busy();
            sim.kernel.advance(until);
            if are_busy {
                sim.busy = sim.kernel.now;
            }
            sim.check_times();
            // The time that passes while nothing happens has an end, too.
            is_client && sim.client_acts(true) || sim.kernel.dice.once_in(4)
        }),
        None if with(|sim| sim.client_acts(true)) => true,
        None if with(|sim| sim.told.is_none()) => stop(handle),
        // A second chance for the server's own end, which needs no time.
        None => {
            with(|sim| sim.expect(sim.report.is_some(), || "the server waits for ever and does not end".into()));
            false
        }
    }
}

/// How the server is told to stop.
enum Stop {
    Signal(i32),
    Request,
    /// The grace time ends.
    Hurry,
}

/// Tells the server to stop, or to hurry. False when it was told often enough.
fn stop(handle: &ServerHandle) -> bool {
    let stop = with(|sim| {
        if sim.report.is_some() || sim.stops >= sim.scenario.stops {
            return None;
        }
        sim.stops += 1;
        let is_first = sim.told.is_none();
        sim.is_told();
        let (count, signals) = (sim.stops, [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]);
        sim.note(format_args!("the server is told to stop, time {count}"));
        Some(match sim.scenario.by_signal {
            true => Stop::Signal(sim.kernel.dice.pick(&signals)),
            false if is_first => Stop::Request,
            false => Stop::Hurry,
        })
    });
    match stop {
        Some(Stop::Signal(signal)) => deliver_signal(signal),
        Some(Stop::Request) => handle.shutdown(),
        Some(Stop::Hurry) => handle.close(),
        None => return false,
    }
    true
}

impl Sim {
    /// The server is told to stop, or to hurry.
    pub(crate) fn is_told(&mut self) {
        self.kernel.now += 1;
        let now = self.kernel.now;
        match self.told {
            None => {
                let ends = now + self.scenario.limits.grace.as_nanos() as u64;
                (self.told, self.closing) = (Some(now), Some(ends));
            }
            Some(_) => self.closing = self.closing.map(|closing| closing.min(now)),
        }
    }
}

impl Client {
    /// It has something left to do.
    pub(crate) fn has_plans(&self) -> bool {
        !self.has_left && (self.cut < self.bytes.len() || self.leaves != Leaves::Stays)
    }
}

impl Sim {
    /// A client does something, one whose time has come, or if `soon` is false maybe a new one.
    fn client_acts(&mut self, is_due: bool) -> bool {
        let now = self.kernel.now;
        if self.report.is_some() {
            return false;
        }
        if self.clients.len() < self.scenario.crowd && (is_due || self.kernel.dice.once_in(3)) {
            return self.client_comes();
        }
        if self.scenario.has_datagrams && self.kernel.dice.once_in(6) && self.datagrams.len() < 40 {
            return self.datagram_comes();
        }
        let due = self.clients.iter().enumerate().filter(|(_, client)| client.has_plans() && client.next <= now);
        let due: Vec<usize> = due.map(|(id, _)| id).collect();
        if due.is_empty() {
            return false;
        }
        let id = self.kernel.dice.pick(&due);
        let has_moved = self.client_moves(id);
        let client = &mut self.clients[id];
        client.thinks(&mut self.kernel.dice, now);
        // A client that waits for room or for a reply tries again later, not at once for ever.
        client.next = client.next.max(now + if has_moved { MS / 10 } else { 10 * MS });
        has_moved
    }

    fn listeners(&self) -> Vec<i32> {
        let files = self.kernel.files.iter().enumerate();
        let listeners = files.filter(|(_, file)| matches!(file, Some(File::Listener { .. })));
        listeners.map(|(index, _)| BASE + index as i32).collect()
    }

    fn client_comes(&mut self) -> bool {
        let listeners = self.listeners();
        // Not all of them are there while the server starts, or when it has ended.
        if listeners.len() != self.scenario.kinds.len() {
            return false;
        }
        let which = self.kernel.dice.index(listeners.len());
        let number = self.clients.len();
        let peer = peer(number, &mut self.kernel.dice);
        let Some(id) = self.kernel.connect(listeners[which], peer) else { return false };
        let (kind, now) = (self.scenario.kinds[which], self.kernel.now);
        let client = Client::new(id, kind, &self.scenario, &mut self.kernel.dice, now);
        self.note(format_args!("client {id} connects from {peer}: {kind:?} {:?} {:?}", client.sends, client.reads));
        self.by_peer.insert(peer, id);
        self.clients.push(client);
        true
    }

    fn datagram_comes(&mut self) -> bool {
        let files = self.kernel.files.iter().enumerate();
        let Some(fd) = files.filter(|(_, file)| matches!(file, Some(File::Datagrams { .. }))).map(|(fd, _)| fd).next()
        else {
            return false;
        };
        let number = self.datagrams.len();
        let from = SocketAddr::from(([10, 0, 0, 9], 1_024 + number as u16));
        let verb = self.kernel.dice.pick(&["", "", "", "panic", "fail", "silence", "long"]);
        let mut bytes = format!("{verb}datagram {number}").into_bytes();
        if verb == "long" {
            // Longer than the server takes.
            bytes.resize(DATAGRAM + 1, b'x');
        }
        if self.kernel.send_datagram_to(BASE + fd as i32, bytes.clone(), from) {
            self.datagrams.push((bytes, from, !verb.is_empty()));
        }
        true
    }

    /// False when the client can do nothing now.
    fn client_moves(&mut self, id: usize) -> bool {
        let now = self.kernel.now;
        let mut has_moved = false;
        if self.clients[id].reads == Reads::Slowly {
            let most = 1 + self.kernel.dice.index(20);
            has_moved = self.kernel.client_reads(id, most) > 0;
        }
        let chunk = self.clients[id].chunk(&mut self.kernel.dice).to_vec();
        if !chunk.is_empty() {
            if self.kernel.dice.once_in(60) {
                self.kernel.arrive_urgent(id, b'!');
                self.note(format_args!("client {id} sends an urgent byte"));
            }
            let taken = self.kernel.arrive(id, &chunk);
            self.note(format_args!("client {id} sends {taken} bytes"));
            let client = &mut self.clients[id];
            client.cut += taken;
            let arrived = client.cut;
            for request in client.requests.iter_mut().filter(|request| request.end <= arrived && !request.is_tail) {
                request.arrived.get_or_insert(now);
            }
            let connection = &self.kernel.connections[id];
            if taken == 0 && (connection.is_reset || connection.closed.is_some()) {
                self.clients[id].has_left = true;
            }
            return has_moved || taken > 0;
        }
        if self.clients[id].cut < self.clients[id].bytes.len() && self.clients[id].sends == Sends::Asks {
            // It waits for a reply, and gives up now and then.
            if !self.kernel.dice.once_in(8) {
                return has_moved;
            }
        }
        let client = &mut self.clients[id];
        client.has_left = true;
        let leaves = client.leaves;
        self.note(format_args!("client {id}: {leaves:?}"));
        match leaves {
            Leaves::HalfCloses => self.kernel.half_close(id),
            Leaves::Closes => {
                self.clients[id].is_gone = true;
                match self.kernel.connections[id].unread() {
                    0 => self.kernel.half_close(id),
                    _ => self.kernel.break_off(id),
                }
            }
            Leaves::Resets => self.kernel.break_off(id),
            Leaves::Stays => {}
        }
        true
    }

    /// The clients that read do, and those that are gone answer with a reset.
    fn readers_read(&mut self) -> bool {
        let mut has_read = false;
        for id in 0..self.clients.len() {
            let connection = &self.kernel.connections[id];
            if connection.unread() > 0 && !connection.is_reset {
                if self.clients[id].is_gone {
                    self.kernel.break_off(id);
                    has_read = true;
                } else if self.clients[id].reads == Reads::All {
                    self.kernel.client_reads(id, usize::MAX);
                    has_read = true;
                }
            }
            let connection = &self.kernel.connections[id];
            let is_told = connection.sending_ended.is_some() && connection.unread() == 0 && connection.is_open();
            // Most clients close when the server does.
            if is_told && !connection.input_has_ended() && !connection.is_reset && !id.is_multiple_of(5) {
                self.clients[id].has_left = true;
                self.kernel.half_close(id);
                has_read = true;
            }
        }
        has_read
    }
}
