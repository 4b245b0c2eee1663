//! The beginning of a batch: the campaign lock, the campaign set, and the locks of the customers.
//!
//! While a batch holds the campaign lock shared, the campaign set cannot change. The customers are locked in the byte order of
//! their external ids, so that batches cannot deadlock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use entity::customer;
use sea_orm::sea_query::{ArrayType, Value};
use sea_orm::{
    ConnectionTrait as _, DatabaseBackend, DatabaseTransaction, EntityTrait, FromQueryResult as _, QueryFilter,
    Statement,
};

use super::context::Context;
use super::fact::Fact;
use crate::app::campaign::set::{CampaignSet, Revision};
use crate::app::database::CAMPAIGNS_LOCK;
use crate::app::error::Error;
use crate::app::rows::any;
use crate::engine::time::Instant;

/// Customers that must be locked too, each with the purchases that belong to it.
pub(super) type Unlocked = BTreeMap<String, BTreeSet<String>>;

/// What a batch has locked.
pub(super) struct Locked {
    /// The campaign set, which is valid until the transaction ends.
    pub(super) campaigns: Arc<CampaignSet>,
    /// The customers that exist.
    pub(super) rows: Vec<customer::Model>,
    /// The time when all were locked.
    pub(super) now: Instant,
}

/// Locks the customers of the facts and those in `others`, and loads them. SQLite needs no locks, because it has one writer.
pub(super) async fn lock(
    context: &Context,
    tx: &DatabaseTransaction,
    facts: &[&Fact],
    others: &Unlocked,
) -> Result<Locked, Error> {
    let others = others.keys().map(String::as_str);
    let names: BTreeSet<&str> = facts.iter().map(|fact| fact.customer()).chain(others).collect();
    let names = names.into_iter().map(str::to_owned);
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        return lock_at_once(context, tx, names.map(Value::from).collect()).await;
    }
    let campaigns = context.campaigns.current(tx).await?;
    let named = any(DatabaseBackend::Sqlite, customer::Column::ExternalId, names);
    let rows = customer::Entity::find().filter(named).all(tx).await?;
    Ok(Locked { campaigns, rows, now: context.clock.now() })
}

/// Does all of it in one round trip (PostgreSQL).
async fn lock_at_once(context: &Context, tx: &DatabaseTransaction, names: Vec<Value>) -> Result<Locked, Error> {
    let sql = "SELECT l.current_set_revision, l.revision_stamp, l.format, l.now, (l.customer).* FROM lock_customers($1, $2) AS l";
    let names = Value::Array(ArrayType::String, Some(Box::new(names)));
    let values = [CAMPAIGNS_LOCK.into(), names];
    let found = tx.query_all_raw(Statement::from_sql_and_values(DatabaseBackend::Postgres, sql, values)).await?;
    let [first, others @ .., last] = found.as_slice() else {
        return Err(Error::Internal("the database has no installation row".to_owned()));
    };
    let now = context.clock.told(Instant(last.try_get("", "now")?));
    let revision = context.campaigns.noticed(Revision::from_row(first))?;
    let campaigns = context.campaigns.at(tx, revision).await?;
    let rows = others.iter().map(|row| customer::Model::from_query_result(row, "")).collect::<Result<_, _>>()?;
    Ok(Locked { campaigns, rows, now })
}
