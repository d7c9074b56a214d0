//! A simulator: the server as it is, over a kernel, a clock, threads and clients that one seed decides.
//!
//! `make simulate` runs it for two minutes over new seeds (`MINUTES=`), or for one seed (`SEED=`, with `TRACE=1` to see
//! every step). What it finds ends it with the seed, which shows the same again. `tests/seeds` keeps the seeds that have
//! found something.
//!
//! [`schedule`] chooses the thread that takes the next step, [`calls`] takes the server's system calls to [`kernel`],
//! [`clients`] make traffic after a [`scenario`], [`oracles`] say what must hold, and [`sim`] turns the world.

#[cfg(simulation)]
mod calls;
#[cfg(simulation)]
mod clients;
#[cfg(simulation)]
mod connections;
#[cfg(simulation)]
mod dice;
#[cfg(simulation)]
mod kernel;
#[cfg(simulation)]
mod oracles;
#[cfg(simulation)]
mod run;
#[cfg(simulation)]
mod scenario;
#[cfg(simulation)]
mod schedule;
#[cfg(simulation)]
mod services;
#[cfg(simulation)]
mod sim;

#[cfg(simulation)]
fn main() {
    run::main();
}

#[cfg(not(simulation))]
fn main() {
    eprintln!("the simulator must be built for it: make simulate");
    std::process::exit(2);
}
