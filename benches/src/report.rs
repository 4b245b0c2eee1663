//! What a run has measured, as one line of JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cpu::{Cpu, MACHINE};
use crate::latency::Latencies;

/// The longest part of a failed response that is reported, in bytes.
const MAX_SAMPLE_BYTES: usize = 500;

/// The results of the requests that ended while the run was measured. A failed request has no latency.
#[derive(Default)]
pub struct Results {
    pub latencies: Latencies,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// What the first failure looked like.
    pub sample: Option<String>,
}

impl Results {
    pub fn fail(&mut self, kind: String, response: &[u8]) {
        self.sample.get_or_insert_with(|| {
            let end = response.len().min(MAX_SAMPLE_BYTES);
            String::from_utf8_lossy(&response[..end]).into_owned()
        });
        *self.failures.entry(kind).or_default() += 1;
    }

    pub fn extend(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (kind, count) in other.failures {
            *self.failures.entry(kind).or_default() += count;
        }
        self.sample = self.sample.take().or(other.sample);
    }
}

/// Returns what a run has measured. Latencies are in milliseconds, and `cpu_micros` is for each request that succeeded.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 requests")]
pub fn report(results: Results, elapsed: Duration, cpu: &Cpu) -> Value {
    let Results { latencies, failures, sample } = results;
    let count = latencies.count();
    let spent = cpu.iter().filter(|(name, _)| count > 0 && *name != MACHINE);
    let cpu_micros: BTreeMap<&String, f64> =
        spent.map(|(name, seconds)| (name, seconds * 1e6 / count as f64)).collect();
    json!({
        "count": count,
        "seconds": elapsed.as_secs_f64(),
        "rate": count as f64 / elapsed.as_secs_f64(),
        "latency_ms": latencies.summary(),
        "failed": failures.values().sum::<u64>(),
        "failures": failures,
        "first_failure": sample,
        "cpu_seconds": cpu,
        "cpu_micros": cpu_micros,
    })
}
