//! Recomputing everything that is recorded, customer by customer, and telling each difference.
//!
//! What is recomputed: reached awards and running states from purchases and refunds, balances and sequences from the
//! ledger, budgets by replaying their decisions, statistics from the awards. Each chunk of customers is read in one
//! snapshot, so that it can run beside writers; memory is bounded by the chunk.

mod budgets;
mod customer;

use std::fmt;

use entity::customer as customers;
use sea_orm::{
    AccessMode, ColumnTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, IsolationLevel, QueryFilter,
    QueryOrder, QuerySelect, TransactionTrait,
};

use super::App;
use super::campaigns::CampaignSet;
use super::error::Error;
use super::recorder::Fact;
use super::viewer::Admin;

/// Customers in one snapshot.
const CHUNK: u64 = 64;

/// Something recorded that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The customer's external id; none: of all.
    pub customer: Option<String>,
    /// The campaign's id and name; none: of none.
    pub campaign: Option<(i64, String)>,
    /// What differs.
    pub what: String,
    /// As it is recorded.
    pub recorded: String,
    /// As it should be.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(customer) = &self.customer {
            write!(f, "customer {customer}: ")?;
        }
        if let Some((id, name)) = &self.campaign {
            write!(f, "campaign {id} ({name}): ")?;
        }
        write!(f, "{}: recorded {}, expected {}", self.what, self.recorded, self.expected)
    }
}

/// What an audit saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// Customers recomputed.
    pub customers: u64,
    /// Differences told.
    pub differences: u64,
    /// Customers that were repaired.
    pub repaired: u64,
}

/// Recomputes everything and tells each difference. With `repair`, what of a customer differs is then evaluated anew
/// through the write path, and the difference is posted.
pub async fn run(app: &App, repair: Option<&Admin>, mut tell: impl FnMut(&Difference)) -> Result<Audited, Error> {
    let mut audited = Audited::default();
    let mut after = 0;
    loop {
        let snapshot = snapshot(app).await?;
        let set = CampaignSet::load(&snapshot).await?;
        let chunk = customers::Entity::find()
            .filter(customers::Column::Id.gt(after))
            .order_by_asc(customers::Column::Id)
            .limit(CHUNK)
            .all(&snapshot)
            .await?;
        let Some(last) = chunk.last() else { break };
        after = last.id.0;
        audited.customers += chunk.len() as u64;
        let histories = customer::load(&snapshot, &chunk).await?;
        snapshot.commit().await?;
        for history in histories {
            let differences = customer::differences(&set, &history)?;
            differences.iter().for_each(&mut tell);
            audited.differences += differences.len() as u64;
            if repair.is_some() && !differences.is_empty() {
                let answer = app.recorder.record_when_free(Fact::Repair(history.row.external_id)).await?;
                let _ = answer.await.map_err(|_| Error::Unavailable)??;
                audited.repaired += 1;
            }
        }
    }
    let snapshot = snapshot(app).await?;
    let differences = budgets::differences(&snapshot).await?;
    snapshot.commit().await?;
    differences.iter().for_each(&mut tell);
    audited.differences += differences.len() as u64;
    Ok(audited)
}

/// A transaction in which everything is read as it was at one moment.
async fn snapshot(app: &App) -> Result<DatabaseTransaction, Error> {
    let read = app.database.read();
    Ok(if app.database.backend() == DatabaseBackend::Postgres {
        read.begin_with_config(Some(IsolationLevel::RepeatableRead), Some(AccessMode::ReadOnly)).await?
    } else {
        read.begin().await?
    })
}
