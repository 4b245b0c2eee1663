//! What hinders the ingestion of topics on this node, for `/readyz`. Requests are served nevertheless.

use parking_lot::Mutex;

/// The state of the ingestion.
#[derive(Debug, Default)]
pub struct IngestStatus {
    problem: Mutex<Option<String>>,
}

impl IngestStatus {
    /// Notes what hinders the ingestion. `None`: nothing.
    pub fn note(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    /// Returns what hinders the ingestion. `None`: nothing, or no topic is read.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}
