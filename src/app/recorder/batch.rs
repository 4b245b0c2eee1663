//! One batch, one transaction: lock → insert facts → load and fold → decide and post → commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use entity::{CustomerId, LedgerEntryKind, award, customer, ledger_entry, purchase, refund};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
};

use super::changed::ChangedAwards;
use super::evaluation;
use super::evaluation::Evaluation;
use super::facts;
use super::facts::Verdict;
use super::folding::Recorded as RecordedPurchase;
use super::posting;
use super::prepared::{Preparation, TooLong};
use super::repair;
use super::repair::Repair;
use crate::app::campaigns::CampaignSet;
use crate::app::database::CAMPAIGNS_LOCK;
use crate::app::error::Error;
use crate::app::error::UserErrorCode;
use crate::app::jobs::queue::{self, Wanted};
use crate::app::recorder::context::Commit;
use crate::app::recorder::context::Context;
use crate::app::recorder::fact::AdjustPoints;
use crate::app::recorder::fact::Fact;
use crate::app::recorder::fact::Recorded;
use crate::app::recorder::fact::Refusal;
use crate::app::rows::{any, insert_new, update};
use crate::app::stored::customer::blank;
use crate::app::stored::running::Running;
use crate::engine::evaluate::Range;
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
    pub(super) unrecorded: HashMap<CustomerId, Vec<RecordedPurchase>>,
}

impl Batch<'_> {
    pub(super) fn backend(&self) -> DatabaseBackend {
        self.tx.get_database_backend()
    }

    /// Adds what is not recorded yet of a stretch to what is loaded of it.
    pub(super) fn add_unrecorded(&self, customer: CustomerId, loaded: &mut Vec<RecordedPurchase>, stretch: &Range) {
        let unrecorded = self.unrecorded.get(&customer).map(Vec::as_slice).unwrap_or_default();
        for recorded in unrecorded.iter().filter(|recorded| stretch.contains(&recorded.purchase.key)) {
            match loaded.binary_search_by(|other| other.purchase.key.cmp(&recorded.purchase.key)) {
                Ok(at) => loaded[at] = recorded.clone(),
                Err(at) => loaded.insert(at, recorded.clone()),
            }
        }
    }
}

/// What became of a batch.
pub(super) enum Committed {
    /// One answer for each fact, in order.
    Answers(Vec<Result<Recorded, Refusal>>),
    /// Nothing was written: a change of this customer's is to be prepared.
    TooLong(TooLong),
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
    /// A job asks for it.
    evaluation: bool,
    /// Something of it was deferred before this batch.
    was_deferred: bool,
    /// Made by this batch.
    new: bool,
}

impl Touched {
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
            evaluation: false,
            new: false,
        }
    }

    /// Whether this batch evaluates it: a replay or a refusal changes nothing, not even what a job would.
    pub(super) fn is_evaluated(&self) -> bool {
        self.changed || self.repair.is_some() || self.evaluation
    }

    /// Whether a job asks that what is deferred of it be evaluated.
    pub(super) fn is_asked_for(&self) -> bool {
        self.evaluation
    }

    /// The version that this batch's commit makes, if it changes anything.
    pub(super) fn next_version(&self) -> i64 {
        self.row.version + 1
    }

    /// Once it is committed.
    fn commit(&self) -> Commit {
        let entries = self.entries.iter().cloned().map(Arc::new).collect();
        Commit { before: self.before, customer: Arc::new(self.row.clone()), entries }
    }
}

/// By external id: the order in which they are locked, decided and posted.
pub(super) type Customers = BTreeMap<String, Touched>;

/// Records the facts, unless a change of theirs is long and not prepared. Takes what is prepared.
pub(super) async fn commit(
    context: &Context,
    shard: i32,
    facts: &[&Fact],
    preparation: &mut Preparation,
) -> Result<Committed, Error> {
    let tx = context.database.begin().await?;
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        // A statement of its own: what is read next is read after the wait.
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock_shared({CAMPAIGNS_LOCK})")).await?;
    }
    let campaigns = context.campaigns.current(&tx).await?;
    let batch = Batch {
        tx: &tx,
        campaigns,
        now: context.clock.now(),
        shard,
        fold_purchases: context.fold_purchases,
        most_refolded: preparation.may_be_repeated().then_some(context.fold_purchases),
        unrecorded: HashMap::new(),
    };
    let mut customers = lock_customers(&batch, facts).await?;
    let mut prepared = preparation.prepared.take();
    let unprepared = customers.iter().find(|(_, customer)| customer.repair.is_some() && prepared.is_none());
    if let Some((name, _)) = unprepared.filter(|_| batch.most_refolded.is_some()) {
        return Ok(Committed::TooLong(TooLong { customer: name.clone(), touches: Vec::new(), repair: true }));
    }
    let verdicts = facts::record(&batch, facts, &mut customers).await?;
    repair::recount(&batch, &mut customers, prepared.as_mut()).await?;
    let evaluated = match evaluation::evaluate(&batch, &customers, prepared).await? {
        Evaluation::Done(evaluated) => evaluated,
        Evaluation::TooLong(too_long) => return Ok(Committed::TooLong(too_long)),
    };
    posting::post(&batch, &mut customers, evaluated).await?;
    save_customers(&batch, &mut customers).await?;
    let deferred = request_jobs(&batch, &customers).await?;
    tx.commit().await?;
    if deferred {
        context.job_wanted.notify_one();
    }
    for customer in customers.values().filter(|customer| customer.changed) {
        context.tell(&customer.commit());
    }
    Ok(Committed::Answers(answer(facts, verdicts, &customers)))
}

/// Makes the customers that are new, locks all in the byte order of their external ids, then loads them.
async fn lock_customers(batch: &Batch<'_>, facts: &[&Fact]) -> Result<Customers, Error> {
    let names: BTreeSet<&str> = facts.iter().map(|fact| fact.customer()).collect();
    // A job makes no customers, a repair neither.
    let making = facts.iter().filter(|fact| !matches!(fact, Fact::Evaluation(_) | Fact::Repair(_)));
    let making: BTreeSet<&str> = making.map(|fact| fact.customer()).collect();
    let made = |name: &&str| customer::Model {
        recorded_at: batch.now.0,
        evaluated_revision: batch.campaigns.revision.number,
        ..blank(name)
    };
    let blanks: Vec<customer::Model> = making.iter().map(made).collect();
    let without_id = [customer::Column::Id];
    let new = insert_new::<customer::Entity>(batch.tx, &blanks, &without_id, customer::Column::ExternalId).await?;
    let new: BTreeSet<String> = new.into_iter().collect();
    let named = || any(batch.backend(), customer::Column::ExternalId, names.iter().map(|name| (*name).to_owned()));
    lock_in_order(batch, customer::Entity::find().filter(named()), customer::Column::ExternalId).await?;
    // Only now: a statement that waits for a lock sees what was committed before it began to wait.
    let rows = customer::Entity::find().filter(named()).all(batch.tx).await?;
    let named_by = |kind: fn(&Fact) -> bool| -> BTreeSet<&str> {
        facts.iter().filter(|fact| kind(fact)).map(|fact| fact.customer()).collect()
    };
    let repaired = named_by(|fact| matches!(fact, Fact::Repair(_)));
    let evaluated = named_by(|fact| matches!(fact, Fact::Evaluation(_)));
    rows.into_iter()
        .map(|row| {
            let repair = repaired.contains(row.external_id.as_str());
            let running = Running::parse(&row.running);
            // A repair makes them anew, also where they cannot be read.
            let running = if repair { running.unwrap_or_default() } else { running? };
            let touched = Touched {
                new: new.contains(&row.external_id),
                repair: repair.then(|| Repair::of(running.clone())),
                evaluation: evaluated.contains(row.external_id.as_str()),
                ..Touched::of(row, running)
            };
            Ok((touched.row.external_id.clone(), touched))
        })
        .collect()
}

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

/// Writes the customers that changed. One that was made for facts which were then refused is unmade: a refusal changes
/// nothing.
async fn save_customers(batch: &Batch<'_>, customers: &mut Customers) -> Result<(), Error> {
    let mut saved = Vec::new();
    let mut unmade = Vec::new();
    for customer in customers.values_mut() {
        if customer.new && !customer.changed {
            unmade.push(customer.row.id.0);
            continue;
        }
        if !customer.changed {
            continue;
        }
        customer.row.evaluated_revision = batch.campaigns.revision.number;
        customer.row.version = customer.next_version();
        customer.row.stamp = rand::random();
        customer.running.retain_counting(&batch.campaigns);
        customer.row.running = customer.running.to_text()?;
        saved.push(customer.row.clone());
    }
    update::<customer::Entity>(batch.tx, &saved).await?;
    if !unmade.is_empty() {
        let unmade = any(batch.backend(), customer::Column::Id, unmade);
        customer::Entity::delete_many().filter(unmade).exec(batch.tx).await?;
    }
    Ok(())
}

/// Asks for a job for each customer of whom this batch deferred something; whether there is any.
async fn request_jobs(batch: &Batch<'_>, customers: &Customers) -> Result<bool, Error> {
    let newly = customers.values().filter(|customer| customer.running.has_deferred() && !customer.was_deferred);
    let wanted: Vec<Wanted> = newly.map(|customer| Wanted::Customer(customer.row.id)).collect();
    queue::request(batch.tx, &wanted, batch.now).await?;
    Ok(!wanted.is_empty())
}

fn answer(facts: &[&Fact], verdicts: Vec<Verdict>, customers: &Customers) -> Vec<Result<Recorded, Refusal>> {
    // Shared: many facts of one customer may be in a batch.
    let awards: BTreeMap<&str, Arc<[award::Model]>> =
        customers.iter().map(|(name, customer)| (name.as_str(), customer.awards.newest().into())).collect();
    // Only a job meets a customer that is not there.
    let gone = Refusal { code: UserErrorCode::NotFound, path: "customerExternalId", message: "no such customer" };
    let answer = |(fact, verdict): (&&Fact, Verdict)| {
        let (replayed, earlier) = match verdict {
            Verdict::Refused(refusal) => return Err(refusal),
            Verdict::Replayed(entry) => (true, entry),
            Verdict::Accepted => (false, None),
        };
        let customer = customers.get(fact.customer()).ok_or(gone)?;
        let awards = if replayed { None } else { awards.get(fact.customer()).cloned() };
        let entry = match fact {
            Fact::Adjustment(adjustment) => earlier.or_else(|| posted_by(customer, adjustment)),
            _ => None,
        };
        let awards_changed = if replayed { 0 } else { customer.awards.count() };
        Ok(Recorded {
            replayed,
            customer: customer.row.clone(),
            awards: awards.unwrap_or_default(),
            awards_changed,
            entry,
            deferred: customer.running.has_deferred(),
        })
    };
    facts.iter().zip(verdicts).map(answer).collect()
}

/// The entry that an adjustment of this batch posted: they are posted in the order in which they were accepted.
fn posted_by(customer: &Touched, adjustment: &AdjustPoints) -> Option<ledger_entry::Model> {
    let same = |accepted: &AdjustPoints| accepted.idempotency_key == adjustment.idempotency_key;
    let index = customer.adjustments.iter().position(same)?;
    customer.entries.iter().filter(|entry| entry.kind == LedgerEntryKind::Adjustment).nth(index).cloned()
}
