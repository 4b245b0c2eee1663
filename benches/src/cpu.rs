//! The CPU time of processes, from `/proc`.
//!
//! The time of a process includes that of its descendants: those that run, and those that have ended and were waited
//! for. So the process of a PostgreSQL server stands for all of its back ends.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::clock;

/// Clock ticks per second in `/proc/PID/stat`. Linux has the same value on all architectures that the project supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process to measure, written as `NAME=PID`.
#[derive(Clone, Debug)]
pub struct Watched {
    pub name: String,
    pub pid: u32,
}

impl FromStr for Watched {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, pid) = text.split_once('=').context("expected NAME=PID")?;
        ensure!(!name.is_empty(), "the name is empty");
        Ok(Self { name: name.to_owned(), pid: pid.parse()? })
    }
}

/// The CPU seconds of a span, by the name of the process.
pub type Cpu = BTreeMap<String, f64>;

/// The name for the load generator itself.
const LOAD: &str = "load";
/// The name for everything that runs on the machine.
pub const MACHINE: &str = "machine";

/// The CPU time that was used up to an instant.
pub struct Snapshot {
    pub at: Instant,
    own: f64,
    machine: f64,
    watched: Vec<f64>,
}

impl Snapshot {
    pub fn take(watched: &[Watched]) -> anyhow::Result<Self> {
        Ok(Self { own: own_seconds()?, machine: machine_seconds()?, watched: tree_seconds(watched)?, at: clock::now() })
    }

    /// Returns what was used since an earlier snapshot of the same processes.
    pub fn since(&self, before: &Self, watched: &[Watched]) -> Cpu {
        let spans = self.watched.iter().zip(&before.watched).map(|(after, before)| after - before);
        let mut cpu: Cpu = watched.iter().map(|process| process.name.clone()).zip(spans).collect();
        cpu.insert(LOAD.to_owned(), self.own - before.own);
        cpu.insert(MACHINE.to_owned(), self.machine - before.machine);
        cpu
    }
}

struct Process {
    parent: u32,
    ticks: u64,
}

/// Returns the CPU seconds that this process itself has used.
fn own_seconds() -> anyhow::Result<f64> {
    let process = parse(&fs::read_to_string("/proc/self/stat")?).context("/proc/self/stat")?;
    Ok(seconds(process.ticks))
}

/// Returns the CPU seconds that anything on the machine has used.
fn machine_seconds() -> anyhow::Result<f64> {
    busy(&fs::read_to_string("/proc/stat")?).map(seconds).context("/proc/stat")
}

/// Sums the ticks of the first line of `/proc/stat`, except for `idle`, `iowait`, and those of guests, which `user`
/// includes.
fn busy(stat: &str) -> Option<u64> {
    let ticks: Vec<u64> = stat.lines().next()?.split_ascii_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
    Some([0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum())
}

/// Returns the CPU seconds that each of the processes has used, with its descendants.
fn tree_seconds(watched: &[Watched]) -> anyhow::Result<Vec<f64>> {
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    let processes = all()?;
    watched
        .iter()
        .map(|Watched { name, pid }| {
            ensure!(processes.contains_key(pid), "{name}: no process {pid}");
            let family = processes.keys().filter(|candidate| descends(&processes, **candidate, *pid));
            Ok(seconds(family.map(|pid| processes[pid].ticks).sum()))
        })
        .collect()
}

fn descends(processes: &HashMap<u32, Process>, mut pid: u32, ancestor: u32) -> bool {
    loop {
        if pid == ancestor {
            return true;
        }
        match processes.get(&pid) {
            Some(process) if process.parent != 0 => pid = process.parent,
            _ => return false,
        }
    }
}

fn all() -> anyhow::Result<HashMap<u32, Process>> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the two calls.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        processes.extend(parse(&text).map(|process| (pid, process)));
    }
    Ok(processes)
}

/// Reads the parent and the sum of `utime`, `stime`, `cutime` and `cstime`. The name in parentheses may contain spaces.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..15).map(number).sum::<Option<u64>>()?;
    Some(Process { parent: fields.get(1)?.parse().ok()?, ticks })
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 ticks")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read() {
        let process = parse("7 (a b) c) S 3 7 7 0 -1 4 1 2 0 0 10 20 30 40 20 0").expect("a process");
        assert_eq!((process.parent, process.ticks), (3, 100));
    }

    #[test]
    fn the_busy_time_of_the_machine_is_read() {
        assert_eq!(busy("cpu  1 2 4 100 100 8 16 32 100 100\ncpu0 1 1 1 1"), Some(63));
    }

    #[test]
    fn a_process_has_its_descendants() {
        let process = |parent| Process { parent, ticks: 1 };
        let processes = HashMap::from([(1, process(0)), (2, process(1)), (3, process(2)), (4, process(1))]);
        assert!(descends(&processes, 3, 2) && descends(&processes, 2, 2));
        assert!(!descends(&processes, 4, 2));
    }
}
