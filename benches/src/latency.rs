//! Latencies, exact to a microsecond. All of them are kept, four bytes each, so that no percentile is an estimate.

use std::time::Duration;

use serde_json::{Value, json};

const MICROS_PER_MILLI: f64 = 1000.0;

#[derive(Default)]
pub struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.micros.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub fn extend(&mut self, other: Self) {
        self.micros.extend(other.micros);
    }

    pub fn count(&self) -> usize {
        self.micros.len()
    }

    /// Returns percentiles in milliseconds. They are null if nothing was recorded.
    pub fn summary(mut self) -> Value {
        self.micros.sort_unstable();
        json!({
            "p50": self.at(500), "p90": self.at(900), "p99": self.at(990), "p999": self.at(999), "max": self.at(1000),
        })
    }

    /// Returns the latency that so many of 1 000 do not exceed. The latencies must be sorted.
    fn at(&self, per_mille: usize) -> Option<f64> {
        let rank = (self.micros.len() * per_mille).div_ceil(1000).max(1);
        self.micros.get(rank - 1).map(|micros| f64::from(*micros) / MICROS_PER_MILLI)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact() {
        let mut latencies = Latencies::default();
        (1..=1000).rev().for_each(|millis| latencies.record(Duration::from_millis(millis)));
        assert_eq!(
            latencies.summary(),
            json!({ "p50": 500.0, "p90": 900.0, "p99": 990.0, "p999": 999.0, "max": 1000.0 })
        );
        assert_eq!(Latencies::default().summary()["p99"], Value::Null);
    }
}
