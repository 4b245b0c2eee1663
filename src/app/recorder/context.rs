//! What every batch needs, and the announcement of commits to subscribers.

use std::sync::Arc;

use entity::{customer, ledger_entry};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::job_turns::JobTurns;
use crate::app::campaign::set::Campaigns;
use crate::app::clock::Clock;
use crate::app::database::Database;
use crate::app::woken::Woken;
use crate::live::Hub;
use crate::live::hints::Hints;

/// The changes of a commit to one customer, which are announced to the subscribers of the customer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// The stamp of the version that the commit changed. 0 if the customer was new.
    pub before: i64,
    /// The customer after the commit.
    pub customer: Arc<customer::Model>,
    /// The posted ledger entries, in order. Empty if only progress changed.
    pub entries: Vec<Arc<ledger_entry::Model>>,
}

#[derive(Clone)]
pub(in crate::app) struct Context {
    pub(in crate::app) database: Database,
    pub(in crate::app) campaigns: Arc<Campaigns>,
    pub(in crate::app) clock: Clock,
    pub(in crate::app) live: Hub<Commit>,
    pub(in crate::app) hints: Option<Arc<Hints>>,
    /// The maximum number of purchases of the past that one commit evaluates.
    pub(in crate::app) fold_purchases: usize,
    /// Notified when a commit has requested a job.
    pub(in crate::app) job_wanted: Arc<Notify>,
    /// Notified when a commit has written events.
    pub(in crate::app) events_kept: Arc<Notify>,
    pub(in crate::app) job_turns: Arc<JobTurns>,
    pub(in crate::app) woken: Arc<Woken>,
}

impl Context {
    /// Announces a commit to the subscribers of the customer on this node and on others.
    pub(super) fn tell(&self, commit: &Commit) {
        let customer = &commit.customer;
        self.live.wake(&customer.external_id, customer.version, || Some(commit.clone()));
        if let Some(hints) = &self.hints {
            hints.send(&customer.external_id, customer.version, commit);
        }
    }
}
