//! The commands of docs/from-python.md, run as a reader would type them.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::network::{ip, own_network};
use crate::support::{Daemon, command, guard};

const DOCUMENT: &str = include_str!("../../docs/from-python.md");

/// A line of the document for `sh`, with the tested daemon, and with files in `directory`.
fn shell(line: &str, directory: &Path) -> Command {
    let tested = command();
    let words: Vec<_> = std::iter::once(tested.get_program()).chain(tested.get_args()).collect();
    let words = words.join(" ".as_ref()).into_string().unwrap();
    let line = line.replacen("lastorders", &words, 1).replace("./", &format!("{}/", directory.display()));
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// Runs a command beside the server. What the document says of it comes from the command, or is a line of the server's.
fn run(line: &str, server: &mut Daemon, directory: &Path) {
    let (line, shown) = line.split_once(" # ").expect("the document says what it shows");
    let output = shell(line, directory).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    if !text.contains(shown) {
        println!("{line}: {text}");
        server.wait_for(shown);
    }
}

/// Each server of the document starts and stops well, and each command beside it shows what the document says.
#[test]
fn the_commands_for_python_programmers_do_what_they_say() {
    guard(|| {
        // Ports that are the tests' own, and a route to the groups.
        own_network();
        ip("route add 224.0.0.0/4 dev lo");
        let directory = std::env::temp_dir().join(format!("lastorders-documents-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let blocks = DOCUMENT.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
        let mut count = 0;
        for block in blocks {
            let mut lines = block.lines();
            let serve = lines.next().unwrap();
            let mut server = Daemon::spawn(&mut shell(&format!("exec {serve}"), &directory));
            server.wait_for("Server started on ");
            for line in lines {
                run(line, &mut server, &directory);
                count += 1;
            }
            server.signal(Signal::SIGTERM);
            server.wait_ok();
        }
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(count >= 10, "{count} commands found");
    });
}
