//! What the server may use: descriptors that really run out, and the budget of `--check` under full load.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::tracer::scratch;
use crate::support::{
    Client, Daemon, EMULATED_LIMITS, EMULATED_PROCESS, command, guard, need_native, os_error, prlimit, wait_until,
};
use crate::vitals::{Figures, Patient, descriptors, resident, spent, threads};
use nix::errno::Errno;

/// RLIMIT_NOFILE is lowered under a running server: connected clients stay served, new ones get BUSY or wait, nothing
/// spins, and when descriptors are there again every client gets in.
#[test]
fn descriptors_run_out_and_come_back() {
    guard(|| {
        need_native(EMULATED_LIMITS);
        let mut patient = Patient::start(2, &["--connections", "64"]);
        let mut first = Client::greeted(patient.address());
        let pid = patient.pid();
        prlimit(pid, &format!("nofile={}:4096", descriptors(pid)));
        let before = spent(pid);
        let mut waiting: Vec<Client> = (0..16).map(|_| patient.daemon.client()).collect();
        waiting.iter_mut().for_each(|client| client.send("hello world"));
        patient.daemon.wait_for(&os_error(Errno::EMFILE));
        first.echo(b"still served");
        // The second line comes a second after the first.
        patient.daemon.wait_for(&os_error(Errno::EMFILE));
        let used = spent(pid) - before;
        assert!(used.as_millis() < 300, "{used:?}");
        prlimit(pid, "nofile=4096:4096");
        let mut busy = 0;
        for client in &mut waiting {
            match &client.recv()[..] {
                b"hello world" => {}
                b"BUSY\n" => busy += 1,
                other => panic!("{:?}", String::from_utf8_lossy(other)),
            }
        }
        drop((first, waiting));
        assert_eq!(patient.figures().of("refused"), busy);
        patient.expect_recovered("descriptors");
        patient.expect_good_end();
    });
}

/// Every slot taken, every buffer full in both directions, every worker used, and the kv store full: the server
/// stays within what `--check` printed.
#[test]
fn the_budget_holds_at_full_load() {
    guard(|| {
        need_native(EMULATED_PROCESS);
        let args = ["--connections", "24", "--buffer", "262144", "--kv-entries", "65536", "--kv-bytes", "4194304"];
        let sockets = ["--tcp", "echo=127.0.0.1:0", "--tcp", "kv=127.0.0.1:0", "--udp", "time=127.0.0.1:0"];
        let mut check = command();
        check.args(["serve", "--check", "--workers", "4", "--control"]).arg(scratch("unused"));
        let check = check.args(sockets).args(args).output().unwrap();
        let text = String::from_utf8(check.stdout).unwrap().replace(": ", " ").replace("worst-case memory", "memory");
        let budget = Figures::parse(&text.replace(" KiB", ""));

        let patient = Patient::admit(4, &args, |args| Daemon::serve(&[&sockets, args].concat()));
        fill(&mut Client::connect(patient.daemon.addresses[1]));
        let mut stuffed: Vec<Client> = (0..24).map(|_| Client::greeted(patient.address())).collect();
        stuffed.iter().for_each(|client| client.0.set_nonblocking(true).unwrap());
        // A debug build is itself several times as big as what is delivered.
        let program = if cfg!(debug_assertions) { resident(patient.pid(), "RssFile") } else { 0 };
        let most = || resident(patient.pid(), "VmHWM").saturating_sub(program);
        let mut rounds = 0;
        wait_until("the buffers are full", || {
            for client in &mut stuffed {
                // What it reads makes room for more than one receive brought.
                let _ = client.0.read(&mut [0; 65_536]);
                while client.0.write(&[b'x'; 65_536]).is_ok() {}
            }
            rounds += 1;
            rounds >= 300 && most() >= budget.of("buffers")
        });
        // As many again wait in the backlog.
        let waiting: Vec<TcpStream> = (0..24).map(|_| TcpStream::connect(patient.address()).unwrap()).collect();
        assert_eq!(threads(patient.pid()), 5);
        let (most, open) = (most(), descriptors(patient.pid()) as u64);
        println!("{most} of {} KiB, {open} of {} descriptors", budget.of("memory"), budget.of("descriptors"));
        assert!(most <= budget.of("memory"), "{most} KiB used of {}", budget.of("memory"));
        assert!(open <= budget.of("descriptors"), "{open} descriptors of {}", budget.of("descriptors"));
        drop((stuffed, waiting));
    });
}

/// Sets keys until the store is full.
fn fill(client: &mut Client) {
    client.expect("READY\n");
    let value = "v".repeat(4_000);
    for key in 0.. {
        client.send(format!("SET key{key} {value}\n"));
        match &client.recv()[..] {
            b"OK\n" => {}
            b"ERROR: store full\n" => break,
            other => panic!("{:?}", String::from_utf8_lossy(other)),
        }
    }
    client.send("QUIT\n");
    client.expect("BYE\n");
    client.expect_end();
}
