//! What hinders a part of this node that works on its own, for `/readyz`. Requests are served nevertheless.

use parking_lot::Mutex;

/// What hinders the ingestion of topics, or the publication of events.
#[derive(Debug, Default)]
pub struct Hindrance {
    problem: Mutex<Option<String>>,
}

impl Hindrance {
    /// Notes what hinders the part. `None`: nothing.
    pub fn note(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    /// Returns what hinders the part. `None`: nothing, or this node does not do it.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }
}
