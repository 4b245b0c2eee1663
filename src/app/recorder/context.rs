//! What every batch needs, and whom a commit is announced to.

use std::sync::Arc;

use entity::{customer, ledger_entry};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::app::campaigns::Campaigns;
use crate::app::clock::Clock;
use crate::app::database::Database;
use crate::live::Hub;
use crate::live::hints::Hints;

/// What a commit changed of one customer: what its subscribers are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// The stamp of the version that it changed; 0: there was none.
    pub before: i64,
    /// After the commit.
    pub customer: Arc<customer::Model>,
    /// Posted by it, in order; none: only progress moved.
    pub entries: Vec<Arc<ledger_entry::Model>>,
}

/// What every batch needs.
#[derive(Clone)]
pub(in crate::app) struct Context {
    pub(in crate::app) database: Database,
    pub(in crate::app) campaigns: Arc<Campaigns>,
    pub(in crate::app) clock: Clock,
    pub(in crate::app) live: Hub<Commit>,
    pub(in crate::app) hints: Option<Arc<Hints>>,
    /// Purchases of the past that one commit evaluates at most.
    pub(in crate::app) fold_purchases: usize,
    /// Is notified when a commit asked for a job.
    pub(in crate::app) job_wanted: Arc<Notify>,
}

impl Context {
    /// What was committed, to whoever follows it on this node and on others.
    pub(super) fn tell(&self, commit: &Commit) {
        let customer = &commit.customer;
        self.live.wake(&customer.external_id, customer.version, || Some(commit.clone()));
        if let Some(hints) = &self.hints {
            hints.send(&customer.external_id, customer.version, commit);
        }
    }
}
