//! Recomputes what follows from the recorded facts, compares it with what is stored, and reports each difference.
//!
//! The audit recomputes reached awards, states and checkpoints from purchases and refunds, balances and sequences from the
//! ledger, budgets by replaying their decisions, and statistics from awards. It reads each chunk of customers in one snapshot,
//! so that it can run beside writers. It reads all rows in order and in pages (`pages`), folds the purchases of a customer in
//! all campaigns at the same time (`fold`), and compares each stored row as it arrives (`customer`, `ledger`). So memory is
//! bounded, however much is recorded of one customer. A job audits a sample of the customers from time to time
//! (`app::jobs::audit`).
//!
//! A repair fixes what can be recomputed. It evaluates a customer from the beginning through the write path, which corrects
//! awards, states, checkpoints and balances and posts what the ledger lacks, as entries with a reason. It counts the awards again
//! to correct statistics and budgets. It never deletes orphans, and never overwrites ledger entries and budget decisions, because they are the record
//! itself. If one of them is wrong, for example a `balanceAfter` or a gap in the sequence, every audit reports it.

pub(super) mod budgets;
pub(super) mod customer;
pub mod difference;
mod fold;
mod history;
mod ledger;
mod orphans;
mod pages;
mod stocks;

use std::collections::BTreeSet;

use entity::{CustomerId, customer as customers};
use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryOrder, QuerySelect};

use self::customer::Records;
use self::pages::{Customers, Pages, Row};
use super::App;
use super::campaign::recount::recount;
use super::campaign::set::CampaignSet;
use super::error::Error;
use super::rows::{Kind, Rows, first_of_each};
use super::viewer::Admin;
use crate::app::audit::difference::Difference;
use crate::app::recorder::fact::Fact;

/// The maximum number of customers in one snapshot.
const CHUNK: usize = 64;

/// The result of an audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// The number of customers that were recomputed.
    pub customers: u64,
    /// The number of differences that were reported.
    pub differences: u64,
    /// The number of customers that were repaired.
    pub repaired: u64,
    /// The number of campaigns whose counters were repaired.
    pub campaigns_repaired: u64,
}

/// Recomputes everything and calls `tell` with each difference. With `repair`, evaluates each customer that has a difference
/// again from the beginning, which posts what is missing, and recounts the counters of all activated campaigns.
pub async fn run(
    app: &App,
    repair: Option<&Admin>,
    mut tell: impl FnMut(&Difference) + Send,
) -> Result<Audited, Error> {
    let mut audited = Audited::default();
    let snapshot = snapshot(app).await?;
    audited.differences += budgets::audit(&snapshot, &mut tell).await?;
    audited.differences += orphans::audit(&snapshot, &mut tell).await?;
    audited.differences += stocks::audit(&snapshot, &mut tell).await?;
    snapshot.commit().await?;
    let mut recounted = BTreeSet::new();
    if let Some(admin) = repair {
        // Budgets come first: they decide about the awards that the repair of a customer creates.
        recount_all(app, admin, &mut recounted).await?;
    }
    audit_customers(app, repair, &mut audited, &mut tell).await?;
    if let Some(admin) = repair {
        stocks::repair(app).await?;
        // Then again: the repair of a customer restores statuses and points of awards without changing the counters.
        recount_all(app, admin, &mut recounted).await?;
    }
    audited.campaigns_repaired = recounted.len() as u64;
    Ok(audited)
}

async fn recount_all(app: &App, admin: &Admin, recounted: &mut BTreeSet<i64>) -> Result<(), Error> {
    for campaign in app.campaigns().await?.all().iter().filter(|campaign| campaign.life.activated) {
        if recount(app, admin, campaign.id()).await? {
            recounted.insert(campaign.id().0);
        }
    }
    Ok(())
}

/// Draws a random sample of at most `size` customers. A customer that follows a gap in the keys is more likely to be drawn.
pub async fn sample(app: &App, size: usize) -> Result<BTreeSet<CustomerId>, Error> {
    let db = app.database.read();
    let newest: Option<i64> = customers::Entity::find()
        .select_only()
        .column(customers::Column::Id)
        .order_by_desc(customers::Column::Id)
        .into_tuple()
        .one(db)
        .await?;
    let Some(newest) = newest.filter(|newest| *newest > 0) else { return Ok(BTreeSet::new()) };
    let mut drawn = Rows::new(db.get_database_backend(), &[("drawn", Kind::Int)]);
    for _ in 0..size {
        drawn.push(vec![rand::random_range(1..=newest).into()]);
    }
    let found = first_of_each(db, "t.id", "customer", drawn, "s.id >= r.drawn", "s.id", 1).await?;
    let ids = found.iter().map(|row| row.try_get("", "id")).collect::<Result<_, _>>()?;
    Ok(ids)
}

/// Recomputes one customer, in a snapshot of its own. Returns the number of differences.
pub async fn run_customer(app: &App, id: CustomerId) -> Result<u64, Error> {
    let snapshot = snapshot(app).await?;
    let set = CampaignSet::load(&snapshot).await?;
    let Some(row) = customers::Entity::find_by_id(id).one(&snapshot).await? else { return Ok(0) };
    let differences = Records::of(&snapshot, Customers { first: id, last: id }).audit(&set, &row, &mut |_| {}).await?;
    snapshot.commit().await?;
    Ok(differences)
}

impl Row for customers::Model {
    const SELECT: &'static str = "s.*";
    const FROM: &'static str = "customer AS s";
    const ORDER: &'static [(&'static str, Kind)] = &[("id", Kind::Int)];

    fn position(&self) -> Vec<Value> {
        vec![self.id.0.into()]
    }

    fn customer(&self) -> CustomerId {
        self.id
    }

    fn bytes(&self) -> usize {
        256 + self.external_id.len() + self.head.len()
    }
}

async fn audit_customers(
    app: &App,
    repair: Option<&Admin>,
    audited: &mut Audited,
    mut tell: impl FnMut(&Difference) + Send,
) -> Result<(), Error> {
    let mut after = CustomerId(0);
    loop {
        let snapshot = snapshot(app).await?;
        let set = CampaignSet::load(&snapshot).await?;
        let chunk = chunk(&snapshot, after).await?;
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { return Ok(()) };
        after = last.id;
        audited.customers += chunk.len() as u64;
        let mut records = Records::of(&snapshot, Customers { first: first.id, last: last.id });
        let mut differ = Vec::new();
        for row in &chunk {
            let differences = records.audit(&set, row, &mut tell).await?;
            audited.differences += differences;
            differ.extend((differences > 0).then(|| row.external_id.clone()));
        }
        drop(records);
        snapshot.commit().await?;
        for customer in differ.into_iter().filter(|_| repair.is_some()) {
            let answer = app.recorder.record_when_free(Fact::Repair(customer)).await?;
            let _ = answer.await.map_err(|_| Error::Unavailable)??;
            audited.repaired += 1;
        }
    }
}

/// Loads the next customers in the order of their keys.
async fn chunk(snapshot: &DatabaseTransaction, after: CustomerId) -> Result<Vec<customers::Model>, Error> {
    let mut pages = Pages::<customers::Model>::after(snapshot, vec![after.0.into()], CustomerId(i64::MAX));
    pages.fill().await?;
    Ok(pages.page().iter().take(CHUNK).cloned().collect())
}

/// Begins a transaction that sees the state at one moment. Its statements have no timeout.
async fn snapshot(app: &App) -> Result<DatabaseTransaction, Error> {
    let snapshot = app.database.long_snapshot().await?;
    if app.database.backend() == DatabaseBackend::Postgres {
        snapshot.execute_unprepared(SNAPSHOT).await?;
    }
    Ok(snapshot)
}

/// Makes PostgreSQL read each page by a search of an index, even if its statistics of a table are outdated.
const SNAPSHOT: &str = "SET LOCAL enable_hashjoin = off; \
    SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off";
