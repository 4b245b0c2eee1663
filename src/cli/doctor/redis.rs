//! Redis: whether it responds, and what it does when its memory is full.

use super::finding::{Code, Finding};
use super::units::bytes;
use crate::cache::redis::{MemorySettings, memory_settings};
use crate::config::Redis;

const SUBJECT: &str = "`redis.url`";

/// Connects and reads the memory settings, which takes at most two seconds.
pub(super) async fn examine(config: &Redis) -> Vec<Finding> {
    let Some(servers) = &config.servers else { return Vec::new() };
    match memory_settings(servers, config.timeout).await {
        Ok(Some(settings)) => settings.iter().flat_map(decide).collect(),
        Ok(None) => vec![Finding::advice(
            Code::RedisMemoryUnknown,
            SUBJECT,
            "the user may not read the memory settings",
            "Give the user the right `+info`, so that nodes can warn about settings that stop Redis when it is full.",
        )],
        Err(error) => vec![Finding::problem(
            Code::RedisUnreachable,
            SUBJECT,
            error,
            "Start Redis or correct the URL: until then, reads go to the database, and live updates of other nodes come up to two \
             seconds later.",
        )],
    }
}

/// Decides about the settings of one server.
fn decide(settings: &MemorySettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if settings.is_unlimited() {
        findings.push(Finding::problem(
            Code::RedisMemoryLimit,
            SUBJECT,
            "`maxmemory` is 0",
            "Set `maxmemory`: without a limit, Redis grows until the machine runs out of memory.",
        ));
    }
    if !settings.keeps_what_is_used() {
        let effect = if settings.evicts_nothing() {
            "Redis rejects entries once it is full"
        } else {
            "Redis may evict entries that are used often, and keep others"
        };
        findings.push(Finding::advice(
            Code::RedisEviction,
            SUBJECT,
            format!("`maxmemory-policy` is {}, with a limit of {}", settings.policy, bytes(settings.max_bytes)),
            format!("Set `maxmemory-policy` to allkeys-lru or allkeys-lfu: with another policy, {effect}."),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_has_a_limit_and_evicts_what_is_used_least() {
        let decided = |max_bytes, policy: &str| -> Vec<Code> {
            let settings = MemorySettings { max_bytes, policy: policy.to_owned() };
            decide(&settings).into_iter().map(|finding| finding.code).collect()
        };
        for policy in ["allkeys-lru", "allkeys-lfu"] {
            assert_eq!(decided(1, policy), []);
            assert_eq!(decided(0, policy), [Code::RedisMemoryLimit]);
        }
        for policy in ["noeviction", "volatile-lru", "allkeys-random"] {
            assert_eq!(decided(1, policy), [Code::RedisEviction], "{policy}");
        }
        assert_eq!(decided(0, "noeviction"), [Code::RedisMemoryLimit, Code::RedisEviction]);
    }
}
