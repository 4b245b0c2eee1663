//! What a process uses, according to Linux.

use std::fs;
use std::time::Duration;

/// Linux reports the time of a process in hundredths of a second, whatever the rate of its clock is.
const TICK: Duration = Duration::from_millis(10);

/// The resident memory of a process in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The resident memory of a process in bytes, without what it has mapped from files, such as its own code.
pub(crate) fn anonymous_bytes(pid: u32) -> u64 {
    status_bytes(pid, "RssAnon:")
}

fn status_bytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line with this field");
    line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok()).expect("a number of kB") * 1024
}

/// The CPU time that a process has used, including that of threads that have ended.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
    // The name of the process may contain anything, but the fields after it do not contain a parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|ticks| ticks.parse::<u32>().expect("a number of ticks")).sum();
    TICK * ticks
}

/// The number of sockets that a process has open.
pub(crate) fn open_sockets(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that runs");
    // A file that is closed in the meantime cannot be read.
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The most files and sockets that a process may have open.
pub(crate) fn open_files_max(pid: u32) -> usize {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process that runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line `Max open files`");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number")
}
