//! The memory that the configuration allows a node to use, against the memory that there is.

use std::fs;
use std::path::Path;

use super::finding::{Code, Finding};
use super::units::bytes;
use crate::app::database::SQLITE_PAGES_BYTES;
use crate::app::reading::lookback::LOADED_MEMORY_BYTES;
use crate::cache::redis::MAX_SENDING_BYTES;
use crate::config::Config;
use crate::gate::Limits;
use crate::ingest::events;
use crate::ingest::topics::CLIENT_BUFFER_BYTES;

/// What a node takes when it is idle.
const IDLE_BYTES: u64 = 48 << 20;
/// What a connection takes: a follower takes 14 KiB.
const CONNECTION_BYTES: u64 = 16 << 10;
/// The share of the memory that the budgets may take, in percent. The rest is for responses that are being computed, for what the
/// allocator rounds up, and for the files that the system keeps in memory.
const SHARE_PERCENT: u64 = 80;

/// A part of a node that uses memory up to a limit.
struct Budget {
    /// The key of the configuration, or what has a fixed limit.
    name: &'static str,
    bytes: u64,
}

/// Compares all budgets with the memory of the machine and of the control group.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    limit_bytes().and_then(|limit| decide(&budgets(config), limit)).into_iter().collect()
}

fn budgets(config: &Config) -> Vec<Budget> {
    let mut budgets = Vec::new();
    let mut add = |name, bytes| budgets.push(Budget { name, bytes });
    let of = |bytes: usize| bytes as u64;
    add("`cache.l1_bytes`", config.cache.l1_bytes);
    add("`writer.queue_bytes`", of(config.writer.queue_bytes));
    add("`http.unfinished_bytes`", of(config.http.unfinished_bytes));
    add("`http.connections` with 16 KiB each", of(config.http.connections).saturating_mul(CONNECTION_BYTES));
    if let Some(kafka) = &config.kafka {
        if !kafka.facts_topics.is_empty() {
            add(
                "`kafka.buffer_bytes` and the buffers of the Kafka client",
                of(kafka.buffer_bytes) + CLIENT_BUFFER_BYTES,
            );
        }
        if events::are_published(kafka) {
            add("events on their way to Kafka", events::CLIENT_BUFFER_BYTES);
        }
    }
    if config.redis.servers.is_some() {
        add("entries on their way to Redis", of(MAX_SENDING_BYTES));
    }
    if config.database.url.expose().starts_with("sqlite:") {
        add("the page caches of SQLite", SQLITE_PAGES_BYTES);
    }
    let gate = Limits::default();
    add("the documents and plans of requests", gate.documents_bytes + gate.plans_bytes);
    add("purchases that are read for progress", LOADED_MEMORY_BYTES);
    add("an idle node", IDLE_BYTES);
    budgets
}

/// Decides whether the budgets fit into the memory.
fn decide(budgets: &[Budget], limit: u64) -> Option<Finding> {
    let sum = budgets.iter().fold(0_u64, |sum, budget| sum.saturating_add(budget.bytes));
    if sum <= limit / 100 * SHARE_PERCENT {
        return None;
    }
    let mut largest: Vec<&Budget> = budgets.iter().collect();
    largest.sort_by_key(|budget| std::cmp::Reverse(budget.bytes));
    let parts: Vec<String> = largest.iter().map(|budget| format!("{} {}", budget.name, bytes(budget.bytes))).collect();
    let measured = format!("a node may use {} of {}: {}", bytes(sum), bytes(limit), parts.join(", "));
    let advice = "Lower the largest budgets, or give the node more memory.";
    Some(if sum > limit {
        let advice = format!("{advice} When memory runs out, the system kills the node.");
        Finding::problem(Code::MemoryBudgets, "memory", measured, advice)
    } else {
        let advice = format!("{advice} The budgets should leave a fifth of the memory for everything else.");
        Finding::advice(Code::MemoryBudgets, "memory", measured, advice)
    })
}

/// Returns the memory of the machine, or the limit of the control group if that is lower. `None` if the system does not say.
fn limit_bytes() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| machine_bytes(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = group_files(&groups).into_iter().filter_map(|file| group_bytes(&read(Path::new(&file))?));
    limits.chain(machine).min()
}

/// Reads the size of the memory from `/proc/meminfo`.
fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns the files that may contain a limit for the control groups in `/proc/self/cgroup`, with those of the groups around
/// them. In a container, a group is usually seen at the root.
fn group_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|group| Path::new(root).join(group).join(name).display().to_string()));
    }
    files
}

/// Reads a limit. `max` means that there is none. Version 1 says the same with a number that no machine has.
fn group_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn budgets_must_leave_a_fifth_of_the_memory() {
        let decided = |first, second| {
            let budgets = [Budget { name: "a", bytes: first }, Budget { name: "b", bytes: second }];
            decide(&budgets, 1_000).map(|finding| (finding.severity, finding.measured))
        };
        assert_eq!(decided(300, 500), None);
        let measured = |sum, parts| format!("a node may use {sum} bytes of 1000 bytes: {parts}");
        assert_eq!(decided(300, 501), Some((Severity::Advice, measured(801, "b 501 bytes, a 300 bytes"))));
        assert_eq!(decided(300, 700), Some((Severity::Advice, measured(1000, "b 700 bytes, a 300 bytes"))));
        assert_eq!(decided(1_001, 0), Some((Severity::Problem, measured(1001, "a 1001 bytes, b 0 bytes"))));
        assert_eq!(decided(u64::MAX, 1).unwrap().0, Severity::Problem);
    }

    #[test]
    fn the_limit_is_that_of_the_machine_or_of_its_control_groups() {
        assert_eq!(machine_bytes("MemTotal:       24684084 kB\nMemFree: 1 kB\n"), Some(24_684_084 * 1024));
        assert_eq!(machine_bytes(""), None);
        let v2 = ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(group_files("0::/a/b\n"), v2);
        let v1 = [
            "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(group_files("5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n1:name=systemd:/a\n"), v1);
        assert_eq!(group_bytes("max\n"), None);
        assert_eq!(group_bytes("536870912\n"), Some(512 << 20));
    }

    #[test]
    fn every_budget_counts() {
        let mut config = Config::defaults().unwrap();
        let sum = |config: &Config| budgets(config).iter().map(|budget| budget.bytes).sum::<u64>();
        let before = sum(&config);
        config.cache.l1_bytes += 1;
        config.writer.queue_bytes += 10;
        config.http.unfinished_bytes += 100;
        config.http.connections += 1;
        assert_eq!(sum(&config), before + 111 + CONNECTION_BYTES);
        config.kafka = Some(crate::config::Kafka::for_tests("127.0.0.1:1", "orders"));
        assert_eq!(sum(&config), before + 111 + CONNECTION_BYTES + (1 << 20) + CLIENT_BUFFER_BYTES);
        config.database.url = "postgres://a/b".to_owned().into();
        let expected = before + 111 + CONNECTION_BYTES + (1 << 20) + CLIENT_BUFFER_BYTES - SQLITE_PAGES_BYTES;
        assert_eq!(sum(&config), expected);
    }
}
