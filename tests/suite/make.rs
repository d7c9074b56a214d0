//! Targets of the Makefile on a machine that has little more than cargo: each says what it lacks, and how to get it.

use std::os::unix::fs::symlink;
use std::process::Command;

use crate::logging::Folder;
use crate::support::guard;

/// What every machine has.
const PROGRAMS: [&str; 16] = [
    "awk", "bash", "cat", "dirname", "env", "grep", "make", "mktemp", "rm", "sed", "sh", "sort", "tee", "cargo",
    "rustc", "uname",
];
const LACKING: [(&str, &str); 9] = [
    ("scripts", "shellcheck is missing; get it with: apt-get install shellcheck"),
    ("deny", "cargo-deny is missing; get it with: cargo install --locked cargo-deny"),
    ("fuzz", "rustup is missing; see https://rustup.rs"),
    ("tsan", "rustup is missing; see https://rustup.rs"),
    ("miri", "rustup is missing; see https://rustup.rs"),
    ("qemu-test", "qemu-arm is missing; get it with: apt-get install qemu-user"),
    ("cross-build", "cc is missing; get it with: apt-get install gcc libc6-dev"),
    ("size", "cc is missing; get it with: apt-get install gcc libc6-dev"),
    ("board-test", "python3 is missing; get it with: apt-get install python3"),
];

#[test]
fn a_target_says_what_is_missing_and_how_to_get_it() {
    guard(|| {
        let folder = Folder::new("make");
        let path = std::env::var_os("PATH").unwrap();
        for name in PROGRAMS {
            let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists());
            symlink(program.unwrap_or_else(|| panic!("no {name}")), folder.file(name)).unwrap();
        }
        for (target, text) in LACKING {
            let mut make = Command::new("make");
            make.arg(target).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", folder.file("")).env("CI", "true");
            let output = make.env_remove("MAKEFLAGS").output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!output.status.success() && said.contains(text), "{target}: {said}");
        }
    });
}
