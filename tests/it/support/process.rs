//! What a process of our own takes, as Linux tells it.

use std::fs;
use std::time::Duration;

/// Linux counts a process's time in hundredths of a second, whatever its clock's rate is.
const TICK: Duration = Duration::from_millis(10);

/// Bytes of memory that it holds now.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok()).expect("a number of kB") * 1024
}

/// The time that it has computed, all threads together, those that ended included.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process that runs");
    // The name may contain anything; what follows it does not.
    let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|ticks| ticks.parse::<u32>().expect("a number of ticks")).sum();
    TICK * ticks
}

/// How many sockets it has open.
pub(crate) fn open_sockets(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that runs");
    // One that is closed meanwhile leads nowhere.
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// How many files and sockets it may have open.
pub(crate) fn open_files_max(pid: u32) -> usize {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("a process that runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("its limit");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number")
}
