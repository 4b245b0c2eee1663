//! The metrics of requests, by root field: the schema bounds their number, and clients can choose any number of operation names.

use std::time::Duration;

use ::metrics::{Counter, Histogram, counter, histogram};

use crate::gate::OperationKind;
use crate::metrics;

/// The metrics of the root fields of one operation. They are looked up once.
pub(super) struct RequestMetrics {
    fields: Vec<FieldMetrics>,
}

struct FieldMetrics {
    seconds: Histogram,
    ok: Counter,
    error: Counter,
    refused: Counter,
}

impl RequestMetrics {
    pub(super) fn new(operation: OperationKind, fields: &[String]) -> Self {
        let operation = operation.as_str();
        let metrics = |field: &String| {
            let count = |outcome| requests(operation, field, outcome);
            FieldMetrics {
                seconds: histogram!(metrics::REQUEST_SECONDS, "operation" => operation, "field" => field.clone()),
                ok: count("ok"),
                error: count("error"),
                refused: count("refused"),
            }
        };
        Self { fields: fields.iter().map(metrics).collect() }
    }

    /// Records a query or mutation.
    pub(super) fn record(&self, outcome: &'static str, time: Duration) {
        for field in &self.fields {
            field.seconds.record(time.as_secs_f64());
        }
        self.count(outcome, 1);
    }

    /// Adds to the counters of an outcome.
    pub(super) fn count(&self, outcome: &'static str, times: u64) {
        for FieldMetrics { ok, error, refused, .. } in &self.fields {
            match outcome {
                "ok" => ok.increment(times),
                "refused" => refused.increment(times),
                _ => error.increment(times),
            }
        }
    }
}

/// Counts a request that was not executed.
pub(super) fn count_refused() {
    requests("none", "none", "refused").increment(1);
}

fn requests(operation: &'static str, field: &str, outcome: &'static str) -> Counter {
    counter!(metrics::REQUESTS, "operation" => operation, "field" => field.to_owned(), "outcome" => outcome)
}
