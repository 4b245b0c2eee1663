//! Recomputing everything that is recorded, customer by customer, and telling each difference.
//!
//! What is recomputed: reached awards and running states from purchases and refunds, balances and sequences from the
//! ledger, budgets by replaying their decisions, statistics from the awards. Each chunk of customers is read in one
//! snapshot, so that it can run beside writers. Everything is read in order and page by page (`pages`), each customer's
//! purchases are folded through every campaign side by side (`fold`), and what is recorded is compared as it comes
//! (`customer`, `ledger`): memory is bounded, whatever one customer has.
//!
//! A repair mends what follows from something else: awards, running states, checkpoints and balances of a customer by
//! evaluating it anew through the write path, which posts what its ledger lacks as entries with a reason; statistics
//! and what a budget has given by counting the awards again. What was only ever appended is the record itself: an entry
//! of the ledger (its `balanceAfter`, a gap in the sequence) or a budget's decision that is not as it was written is
//! told by every audit, and never written over.

pub(super) mod budgets;
pub(super) mod customer;
pub mod difference;
mod fold;
mod history;
mod ledger;
mod pages;

use std::collections::BTreeSet;

use entity::{CustomerId, customer as customers};
use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, DatabaseBackend, DatabaseTransaction};

use self::customer::Records;
use self::pages::{Customers, Pages, Row};
use super::App;
use super::campaign::recount::recount;
use super::campaigns::CampaignSet;
use super::error::Error;
use super::rows::Kind;
use super::viewer::Admin;
use crate::app::audit::difference::Difference;
use crate::app::recorder::fact::Fact;

/// The most customers in one snapshot.
const CHUNK: usize = 64;

/// What an audit saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Customers recomputed.
    pub customers: u64,
    /// Differences told.
    pub differences: u64,
    /// Customers that were repaired.
    pub repaired: u64,
    /// Campaigns whose counters were repaired.
    pub campaigns_repaired: u64,
}

/// Recomputes everything and tells each difference. With `repair`, what of a customer differs is then evaluated anew
/// through the write path, and the difference is posted; the counters of campaigns are counted again.
pub async fn run(app: &App, repair: Option<&Admin>, mut tell: impl FnMut(&Difference)) -> Result<Audited, Error> {
    let mut audited = Audited::default();
    let snapshot = snapshot(app).await?;
    audited.differences += budgets::audit(&snapshot, &mut tell).await?;
    snapshot.commit().await?;
    let mut recounted = BTreeSet::new();
    if let Some(admin) = repair {
        // Budgets first: what of them is free decides about awards that a repair gives.
        recount_all(app, admin, &mut recounted).await?;
    }
    audit_customers(app, repair, &mut audited, &mut tell).await?;
    if let Some(admin) = repair {
        // Then what repairs of customers moved, starting from counters that did not know what was wrong.
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
        256 + self.external_id.len() + self.running.len()
    }
}

async fn audit_customers(
    app: &App,
    repair: Option<&Admin>,
    audited: &mut Audited,
    mut tell: impl FnMut(&Difference),
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

/// The next customers, by key.
async fn chunk(snapshot: &DatabaseTransaction, after: CustomerId) -> Result<Vec<customers::Model>, Error> {
    let mut pages = Pages::<customers::Model>::after(snapshot, vec![after.0.into()], CustomerId(i64::MAX));
    pages.fill().await?;
    Ok(pages.page().iter().take(CHUNK).cloned().collect())
}

/// A transaction in which everything is read as it was at one moment, however long that takes.
async fn snapshot(app: &App) -> Result<DatabaseTransaction, Error> {
    let snapshot = app.database.long_snapshot().await?;
    if app.database.backend() == DatabaseBackend::Postgres {
        snapshot.execute_unprepared(SNAPSHOT).await?;
    }
    Ok(snapshot)
}

/// Each page is a search of an index, whatever the server knows of
/// tables that have grown since it analysed them.
const SNAPSHOT: &str = "SET LOCAL enable_hashjoin = off; \
    SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_seqscan = off; \
    SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off";
