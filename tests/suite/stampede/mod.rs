//! A stampede: many clients do everything at once that clients do, and signals rain on the server meanwhile. Then
//! it must be as good as new; and in the middle of another one it must stop in time.
//!
//! `STAMPEDE_SECONDS` says how long (10 by default), `STAMPEDE_SEED` which clients come; the seed is printed.

mod clients;
mod dice;

use std::io;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use lastorders::{Connection, Flow, Server, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::clients::{DEEDS, Services};
use self::dice::Dice;
use crate::panics::keep_lines;
use crate::support::{
    Client, Daemon, EMULATED_PROCESS, HANG, Running, command, guard, guard_within, need_native, wait_until,
};
use crate::vitals::{Figures, Patient};

const CROWD: u64 = 12;
const GRACE: Duration = Duration::from_secs(2);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Which clients come.
fn seed() -> u64 {
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = number("STAMPEDE_SEED").unwrap_or_else(now);
    println!("STAMPEDE_SEED={seed}");
    seed
}

/// Clients that come until they are told to stop.
struct Crowd {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Crowd {
    /// Each client thread throws its own dice, so the seed says what each does. A deed that fails fails the test,
    /// unless the server may do as it likes.
    fn gather(services: Services, seed: u64, strict: bool) -> Crowd {
        let over = Arc::new(AtomicBool::new(false));
        let one = |number: u64| {
            let over = over.clone();
            thread::spawn(move || {
                let mut dice = Dice::new(seed.wrapping_add(number.wrapping_mul(0x1234_5678_9abc_def1)));
                let mut deeds = 0;
                while !over.load(Ordering::Relaxed) {
                    let (name, deed) = DEEDS[dice.below(DEEDS.len())];
                    let outcome = deed(&services, &mut dice);
                    assert!(!strict || outcome.is_ok(), "client {number}, deed {deeds}, {name}: {outcome:?}");
                    deeds += 1;
                    if outcome.is_err() {
                        thread::yield_now();
                    }
                }
                deeds
            })
        };
        let threads = (0..CROWD).map(one).collect();
        Crowd { over, threads }
    }

    /// Ends every client, and returns how much they did.
    fn leave(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let deeds: Vec<_> = self.threads.into_iter().map(JoinHandle::join).collect();
        deeds.into_iter().map(|deeds| deeds.expect("a client failed")).sum()
    }

    fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// Client processes, which are stopped and continued, and killed in the end.
struct Puppets(Vec<Child>);

impl Puppets {
    fn start(services: &Services) -> Puppets {
        let one = |_| {
            let mut puppet = command();
            puppet.args(["client", &services.echo.to_string(), "--every", "0.01"]);
            puppet.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        };
        Puppets((0..3).map(one).collect())
    }

    fn pull(&self, dice: &mut Dice) {
        let puppet = &self.0[dice.below(self.0.len())];
        let signal = if dice.below(2) == 0 { Signal::SIGSTOP } else { Signal::SIGCONT };
        let _ = kill(Pid::from_raw(puppet.id() as i32), signal);
    }
}

impl Drop for Puppets {
    fn drop(&mut self) {
        for puppet in &mut self.0 {
            let _ = puppet.kill();
            let _ = puppet.wait();
        }
    }
}

fn open_house(args: &[&str]) -> (Patient, Services) {
    let tcp = ["echo=127.0.0.1:0", "upper-lines=127.0.0.1:0", "kv=127.0.0.1:0", "command=127.0.0.1:0"];
    let mut sockets: Vec<&str> = tcp.iter().flat_map(|socket| ["--tcp", socket]).collect();
    sockets.extend(["--udp", "time=127.0.0.1:0"]);
    let patient = Patient::admit(4, args, |args| Daemon::serve(&[&sockets, args].concat()));
    let [echo, lines, kv, command, time] = patient.daemon.addresses[..] else { panic!("five sockets") };
    (patient, Services { echo, lines, kv, command, time })
}

/// Twelve threads of clients for ten seconds, with signals to the server and to some of its clients. Every client
/// gets what it should; then the server is as it was before. In a second stampede it is asked to stop: each client
/// that reads gets the notice, and the server ends in time.
#[test]
fn a_stampede_leaves_no_trace() {
    let length = Duration::from_secs(number("STAMPEDE_SECONDS").unwrap_or(10));
    guard_within(HANG + length, move || {
        need_native(EMULATED_PROCESS);
        let seed = seed();
        // Fewer places than clients may want at a time, and a short queue.
        let (patient, services) = open_house(&["--connections", "16", "--queue", "4", "--grace", "2"]);
        let crowd = Crowd::gather(services, seed, true);
        let puppets = Puppets::start(&services);
        let (start, mut dice) = (Instant::now(), Dice::new(seed));
        while start.elapsed() < length && !crowd.has_failed() {
            thread::park_timeout(Duration::from_millis(dice.below(40) as u64));
            patient.daemon.signal(if dice.below(2) == 0 { Signal::SIGUSR1 } else { Signal::SIGUSR2 });
            puppets.pull(&mut dice);
            patient.expect_balance_in_motion();
        }
        drop(puppets);
        let deeds = crowd.leave();
        patient.expect_recovered("the stampede");
        let figures = patient.figures();
        println!("{deeds} deeds, {} connections, {} requests", figures.of("accepted"), figures.of("served"));
        for name in ["datagrams", "resets", "left", "finished"] {
            assert!(figures.of(name) > 0, "no {name}");
        }
        expect_stop_in_a_stampede(patient, services, seed);
    });
}

fn expect_stop_in_a_stampede(mut patient: Patient, services: Services, seed: u64) {
    let mut reachable: Vec<Client> = (0..4).map(|_| Client::greeted(services.echo)).collect();
    let crowd = Crowd::gather(services, !seed, false);
    let accepted = patient.figures().of("accepted");
    wait_until("the second stampede is on", || patient.figures().of("accepted") > accepted + 100);
    let start = Instant::now();
    patient.daemon.signal(Signal::SIGTERM);
    for client in &mut reachable {
        assert_eq!(client.rest(), b"SHUTDOWN");
    }
    drop(reachable);
    patient.daemon.wait_ok();
    let took = start.elapsed();
    crowd.leave();
    patient.daemon.expect_last(" 0 workers abandoned");
    // The daemon itself, which others' load delays less than this test.
    let own: f64 = patient.daemon.log.last().unwrap().rsplit(' ').nth(1).unwrap().parse().unwrap();
    assert!(own <= GRACE.as_secs_f64() + 1.0, "{own} s");
    assert!(took < GRACE + Duration::from_secs(1) + HANG / 10, "{took:?}");
}

/// The same for the policies that turn clients away or out: whatever becomes of those, nothing is left of them.
#[test]
fn a_stampede_on_a_full_house_leaves_no_trace() {
    guard(|| {
        need_native(EMULATED_PROCESS);
        let seed = seed();
        for policy in ["shed", "reject"] {
            let args = ["--connections", "4", "--queue", "2", "--when-full", policy];
            let (patient, services) = open_house(&args);
            let crowd = Crowd::gather(services, seed, false);
            let counter = if policy == "shed" { "shed" } else { "refused" };
            wait_until("many were turned away", || patient.figures().of(counter) > 300);
            crowd.leave();
            patient.expect_recovered(policy);
            patient.expect_good_end();
        }
    });
}

/// Echo that panics when it is told to.
struct Brittle;

impl Service for Brittle {
    type Session = ();
    fn open(&self, _: &mut Connection) -> io::Result<()> {
        Ok(())
    }
    fn serve(&self, connection: &mut Connection, (): &mut ()) -> io::Result<Flow> {
        let (input, output) = connection.split();
        assert!(!input.bytes().contains(&b'!'), "as it was told");
        let taken = output.push(input.bytes());
        input.consume(taken);
        Ok(Flow::Continue)
    }
}

/// Panics of the service among honest clients: each costs its own connection, and all are counted.
#[test]
fn a_stampede_of_panics_costs_those_alone_who_ask_for_them() {
    guard(|| {
        keep_lines();
        let seed = seed();
        let running = Running::start(Server::builder(Brittle).connections(16));
        let address = running.address;
        let (bombs, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let one = |number: u64| {
            let (bombs, over) = (bombs.clone(), over.clone());
            thread::spawn(move || {
                let mut dice = Dice::new(seed.wrapping_add(number));
                while !over.load(Ordering::Relaxed) {
                    let mut client = Client::connect(address);
                    for _ in 0..dice.below(5) {
                        client.echo(dice.word(200).as_bytes());
                    }
                    if dice.below(3) == 0 {
                        client.send("!");
                        client.expect_gone();
                        bombs.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        let threads: Vec<_> = (0..CROWD).map(one).collect();
        wait_until("a thousand panics", || bombs.load(Ordering::Relaxed) >= 1_000);
        over.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        wait_until("all have left", || running.handle.stats().open == 0);
        let text: String =
            running.handle.stats().figures().map(|one| format!("{} {}\n", one.name, one.value)).collect();
        let figures = Figures::parse(&text);
        figures.expect_balance();
        assert_eq!(figures.of("panics"), bombs.load(Ordering::Relaxed));
        // As many at once as there are workers.
        let mut clients: Vec<Client> = (0..4).map(|_| running.client()).collect();
        clients.iter_mut().for_each(|client| client.echo(b"still served"));
        drop(clients);
        running.stop();
    });
}
