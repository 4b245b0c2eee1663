//! A batch in progress and the customers that it has locked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use entity::{CustomerId, award, customer, ledger_entry, purchase, refund};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryOrder, QuerySelect, QueryTrait, Select,
};

use super::act::Act;
use super::changed::ChangedAwards;
use super::fact::{Done, Refusal};
use super::news::News;
use super::recount::Repair;
use crate::app::campaign::set::CampaignSet;
use crate::app::clock::Clock;
use crate::app::error::Error;
use crate::app::stored::running::Running;
use crate::engine::account::Account;
use crate::engine::external_id::is_erased;
use crate::engine::purchase::{Key, Purchase};
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The transaction of a batch, and the values that are fixed for the whole batch.
pub(super) struct Batch<'a> {
    pub(super) tx: &'a DatabaseTransaction,
    pub(super) campaigns: Arc<CampaignSet>,
    pub(super) now: Instant,
    pub(super) clock: Clock,
    pub(super) shard: i32,
    /// The maximum number of purchases of the past that the batch evaluates.
    pub(super) fold_purchases: usize,
    /// The maximum number of purchases of one customer that the batch folds again in one campaign. A change that needs more must
    /// be prepared first. `None` if there is no limit.
    pub(super) most_refolded: Option<usize>,
    /// Changes of purchases that a later transaction will record.
    pub(super) unrecorded: HashMap<CustomerId, Vec<Touch>>,
}

impl Batch<'_> {
    pub(super) fn backend(&self) -> DatabaseBackend {
        self.tx.get_database_backend()
    }

    /// Applies the unrecorded changes of a stretch to the loaded purchases.
    pub(super) fn add_unrecorded(&self, customer: CustomerId, loaded: &mut Vec<Purchase>, stretch: &Stretch) {
        let unrecorded = self.unrecorded.get(&customer).map(Vec::as_slice).unwrap_or_default();
        for touch in unrecorded.iter().filter(|touch| stretch.contains(touch.key())) {
            match (loaded.binary_search_by(|other| other.key.cmp(touch.key())), &touch.after) {
                (Ok(at), Some(after)) => loaded[at] = after.clone(),
                (Ok(at), None) => drop(loaded.remove(at)),
                (Err(at), Some(after)) => loaded.insert(at, after.clone()),
                (Err(_), None) => {}
            }
        }
    }
}

/// How the batch changes what a customer has at one place of its history. At least one side is there.
pub(super) struct Touch {
    /// `None` if nothing was there.
    pub(super) before: Option<Purchase>,
    /// `None` if the purchase went to another place or another customer.
    pub(super) after: Option<Purchase>,
}

impl Touch {
    pub(super) fn key(&self) -> &Key {
        let Some(purchase) = self.after.as_ref().or(self.before.as_ref()) else {
            unreachable!("a touch has a side: `touches` creates no other")
        };
        &purchase.key
    }
}

/// A purchase whose counting content, running sum or customer the batch changed.
pub(super) struct Revised {
    /// The row before the batch. `None` if the purchase is new.
    pub(super) before: Option<purchase::Model>,
    pub(super) after: purchase::Model,
}

/// A customer that the batch has locked.
pub(super) struct Touched {
    pub(super) row: customer::Model,
    /// The stamp that the customer was loaded with.
    pub(super) before: i64,
    pub(super) running: Running,
    /// The new purchases of this batch. Duplicates are not included; the same applies to refunds.
    pub(super) purchases: Vec<Purchase>,
    /// The purchases that belong to the customer, or did before the batch, and that the batch revised.
    pub(super) revised: Vec<Arc<Revised>>,
    pub(super) refunds: Vec<refund::Model>,
    /// The acts that are not decided yet, in the order in which they came in, each with the index of its fact.
    pub(super) acts: Vec<(usize, Act)>,
    /// What became of the acts, by the index of the fact.
    pub(super) done: HashMap<usize, Result<Done, Refusal>>,
    /// The awards that the batch changed.
    pub(super) awards: ChangedAwards,
    /// The ledger entries that the batch posted.
    pub(super) entries: Vec<Arc<ledger_entry::Model>>,
    /// Something of the customer changed, even if only progress.
    pub(super) changed: bool,
    /// Set if the customer is under repair, so that everything is evaluated from the beginning.
    pub(super) repair: Option<Repair>,
    /// A job asked for the evaluation of what is deferred.
    pub(super) asked_for: bool,
    /// The name that the customer gets, if the batch erases it.
    pub(super) erased_as: Option<String>,
    /// A part of the history was deferred before this batch.
    pub(super) was_deferred: bool,
    /// The customer was created by this batch.
    pub(super) new: bool,
    /// The instant of the commit for this customer: that of the batch, or of the customer's last commit if that is later.
    pub(super) now: Instant,
    /// A job asked to post what is due.
    pub(super) posts_due: bool,
    /// The batch changes when the clock next changes the customer's points.
    pub(super) due_changed: bool,
    /// What other systems are told of the batch. `None`: nothing.
    pub(super) news: Option<Box<News>>,
}

impl Touched {
    pub(super) fn account(&self) -> Account {
        let customer::Model { balance, lifetime, award_number, ledger_sequence, .. } = self.row;
        Account { balance, lifetime, awards: award_number, entries: ledger_sequence }
    }

    pub(super) fn set_account(&mut self, account: &Account) {
        let row = &mut self.row;
        (row.balance, row.lifetime) = (account.balance, account.lifetime);
        (row.award_number, row.ledger_sequence) = (account.awards, account.entries);
    }

    /// Creates the value for a customer that was just loaded.
    pub(super) fn of(row: customer::Model, running: Running, now: Instant) -> Self {
        let last = running.held.map_or(Instant::EPOCH, |held| held.at);
        Self {
            now: now.max(Instant(row.posted_at)).max(last),
            was_deferred: running.has_deferred(),
            running,
            before: row.stamp,
            row,
            purchases: Vec::new(),
            revised: Vec::new(),
            refunds: Vec::new(),
            acts: Vec::new(),
            done: HashMap::new(),
            awards: ChangedAwards::default(),
            entries: Vec::new(),
            changed: false,
            repair: None,
            asked_for: false,
            erased_as: None,
            new: false,
            posts_due: false,
            due_changed: false,
            news: None,
        }
    }

    /// Whether the customer was erased, or is by this batch. Nothing of it is evaluated any more.
    pub(super) fn is_erased(&self) -> bool {
        is_erased(&self.row.external_id)
    }

    /// Whether this batch evaluates the customer. Duplicates and refusals change nothing, so they do not lead to an evaluation,
    /// not even of what is deferred.
    pub(super) fn is_evaluated(&self) -> bool {
        self.changed || !self.acts.is_empty() || self.repair.is_some() || self.asked_for
    }

    /// Notes an award that is new or changed.
    pub(super) fn changed_award(&mut self, row: Arc<award::Model>) {
        if let Some(news) = &mut self.news {
            news.award(&row);
        }
        self.awards.push(row);
    }

    /// The version of the customer after the commit of this batch, if the batch changes the customer.
    pub(super) fn next_version(&self) -> i64 {
        self.row.version + 1
    }
}

/// The customers of a batch by external id, which is the order in which they are locked, decided and posted.
pub(super) type Customers = BTreeMap<String, Touched>;

/// Locks rows in the order of a column. Does nothing on SQLite, whose only writer needs no locks. The values of the rows must be
/// read afterwards, because this statement may see values from before the wait for the locks.
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
