//! A batch under way and the customers that it has locked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use entity::{CustomerId, customer, ledger_entry, purchase, refund};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryOrder, QuerySelect, QueryTrait, Select,
};

use super::changed::ChangedAwards;
use super::context::Commit;
use super::fact::AdjustPoints;
use super::recount::Repair;
use crate::app::campaigns::CampaignSet;
use crate::app::error::Error;
use crate::app::stored::recorded::Recorded;
use crate::app::stored::running::Running;
use crate::engine::account::Account;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// What a batch is made in.
pub(super) struct Batch<'a> {
    pub(super) tx: &'a DatabaseTransaction,
    pub(super) campaigns: Arc<CampaignSet>,
    pub(super) now: Instant,
    pub(super) shard: i32,
    /// Purchases of the past that it evaluates at most.
    pub(super) fold_purchases: usize,
    /// Folds again no more purchases than that of one customer and campaign: what needs more is prepared. None: however many.
    pub(super) most_refolded: Option<usize>,
    /// Purchases as a later transaction will record them; they take the place of what is stored.
    pub(super) unrecorded: HashMap<CustomerId, Vec<Recorded>>,
}

impl Batch<'_> {
    pub(super) fn backend(&self) -> DatabaseBackend {
        self.tx.get_database_backend()
    }

    /// Adds what is not recorded yet of a stretch to what is loaded of it.
    pub(super) fn add_unrecorded(&self, customer: CustomerId, loaded: &mut Vec<Recorded>, stretch: &Stretch) {
        let unrecorded = self.unrecorded.get(&customer).map(Vec::as_slice).unwrap_or_default();
        for recorded in unrecorded.iter().filter(|recorded| stretch.contains(&recorded.purchase.key)) {
            match loaded.binary_search_by(|other| other.purchase.key.cmp(&recorded.purchase.key)) {
                Ok(at) => loaded[at] = recorded.clone(),
                Err(at) => loaded.insert(at, recorded.clone()),
            }
        }
    }
}

/// A customer that the batch has locked.
pub(super) struct Touched {
    pub(super) row: customer::Model,
    /// The stamp that it was loaded with.
    pub(super) before: i64,
    pub(super) running: Running,
    /// New facts of this batch.
    pub(super) purchases: Vec<purchase::Model>,
    pub(super) refunds: Vec<refund::Model>,
    pub(super) adjustments: Vec<AdjustPoints>,
    /// What the batch posted.
    pub(super) awards: ChangedAwards,
    pub(super) entries: Vec<ledger_entry::Model>,
    /// Something of the customer changed, if only progress.
    pub(super) changed: bool,
    /// Everything is evaluated anew.
    pub(super) repair: Option<Repair>,
    /// A job asks that what is deferred of it be evaluated.
    pub(super) asked_for: bool,
    /// Something of it was deferred before this batch.
    pub(super) was_deferred: bool,
    /// Made by this batch.
    pub(super) new: bool,
}

impl Touched {
    /// The customer's sums.
    pub(super) fn account(&self) -> Account {
        let customer::Model { balance, lifetime, award_number, ledger_sequence, .. } = self.row;
        Account { balance, lifetime, awards: award_number, entries: ledger_sequence }
    }

    pub(super) fn set_account(&mut self, account: &Account) {
        let row = &mut self.row;
        (row.balance, row.lifetime) = (account.balance, account.lifetime);
        (row.award_number, row.ledger_sequence) = (account.awards, account.entries);
    }

    /// As it is loaded.
    pub(super) fn of(row: customer::Model, running: Running) -> Self {
        Self {
            was_deferred: running.has_deferred(),
            running,
            before: row.stamp,
            row,
            purchases: Vec::new(),
            refunds: Vec::new(),
            adjustments: Vec::new(),
            awards: ChangedAwards::default(),
            entries: Vec::new(),
            changed: false,
            repair: None,
            asked_for: false,
            new: false,
        }
    }

    /// Whether this batch evaluates it: a replay or a refusal changes nothing, not even what a job would.
    pub(super) fn is_evaluated(&self) -> bool {
        self.changed || self.repair.is_some() || self.asked_for
    }

    /// The version that this batch's commit makes, if it changes anything.
    pub(super) fn next_version(&self) -> i64 {
        self.row.version + 1
    }

    /// Once it is committed.
    pub(super) fn commit(&self) -> Commit {
        let entries = self.entries.iter().cloned().map(Arc::new).collect();
        Commit { before: self.before, customer: Arc::new(self.row.clone()), entries }
    }
}

/// By external id: the order in which they are locked, decided and posted.
pub(super) type Customers = BTreeMap<String, Touched>;

/// Locks rows in the order of a column (PostgreSQL; SQLite's one writer needs no locks). Reads nothing that decides.
pub(super) async fn lock_in_order<E: EntityTrait>(
    batch: &Batch<'_>,
    select: Select<E>,
    order: E::Column,
) -> Result<(), Error> {
    if batch.backend() == DatabaseBackend::Postgres {
        let query = select.select_only().column(order).order_by_asc(order).lock_exclusive();
        batch.tx.query_all_raw(query.build(DatabaseBackend::Postgres)).await?;
    }
    Ok(())
}
