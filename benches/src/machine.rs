//! The machine and the programs that the figures are from. No names of hosts or people: they would say nothing.

use std::fs;
use std::process::Command;

/// One line each.
pub fn lines() -> Vec<String> {
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    let kernel = read("/proc/sys/kernel/osrelease");
    let virtual_one =
        read("/proc/cpuinfo").lines().any(|line| line.starts_with("flags") && line.contains("hypervisor"));
    let kind = if virtual_one { "virtual machine" } else { "machine" };
    let mut lines = vec![
        format!("A {kind} with {count} processors ({processor}) and {:.0} GiB.", memory.unwrap_or(0.0) / 1_048_576.0),
        format!("Linux {} on {}.", kernel.trim(), std::env::consts::ARCH),
    ];
    let lock = include_str!("../Cargo.lock");
    let crates = ["tokio", "threadpool"].map(|name| format!("{name} {}", locked(lock, name).unwrap_or("?")));
    lines.push(format!("{}.", crates.join(", ")));
    let tools = [("rustc", "--version"), ("python3", "--version"), ("memcached", "-V"), ("valgrind", "--version")];
    let versions: Vec<String> = tools.iter().filter_map(|(program, option)| says(program, option)).collect();
    lines.push(format!("{}.", versions.join(", ")));
    if let Some(commit) = says("git", "rev-parse --short HEAD") {
        lines.push(format!("lastorders at commit {commit}, as `cargo build --release` makes it."));
    }
    lines
}

/// The day, as `YYYY-MM-DD`.
pub fn date() -> String {
    says("date", "+%F").unwrap_or_default()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path);
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// A crate's version in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    Some(after.split_once('"')?.0)
}

/// The first line that a program prints.
fn says(program: &str, words: &str) -> Option<String> {
    let output = Command::new(program)
        .args(words.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next()?.to_string())
}
