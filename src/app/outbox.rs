//! The outbox: events that are to be published. Each commit writes its events in its own transaction ([`super::recorder`]), and the relay
//! publishes them ([`super::jobs::relay`]).
//!
//! Events are in buckets by customer. One node publishes a bucket at a time, so the events of a customer stay in order. Within a bucket,
//! events are read by id. A transaction that is open for long may commit an event with a low id after events with higher ids were
//! published. It is never skipped: what tells an event that is to be published is not its place, but that nobody has marked it. The
//! events of one customer cannot overtake each other: its row is locked from the number to the commit, and a search leaves out only ids
//! below which no transaction can commit any more ([`transactions`]).
//!
//! On PostgreSQL, published events are marked, and a segment without others is truncated: deletes would leave rows that must be
//! vacuumed. SQLite has no such rows, so there they are deleted.

use std::time::Duration;

use entity::outbox;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseBackend, EntityTrait, FromQueryResult, QueryFilter, Statement};

use super::database::Database;
use super::error::Error;
use super::failure::is_lock_timeout;
use super::rows::any;
use crate::engine::time::Instant;

/// The number of buckets.
pub const BUCKETS: i32 = 8;
/// The maximum number of events of a bucket that are read at a time. Each has at most [`super::event::MAX_EVENT_BYTES`].
const MAX_READ: i64 = 32;
/// The number of events that one commit deletes, of those that nobody wants any more.
const MAX_CLEARED: i64 = 5_000;
/// The number of segments. They are tables of the schema.
const SEGMENTS: i32 = 4;
/// For how long events are written to a segment before it is the turn of the next one.
const SEGMENT_PERIOD: Duration = Duration::from_secs(600);

/// The bucket of the events of the customer with this external id. All messages with a key must stay in order, also those of a new customer
/// who comes back under the name of an erased one.
pub fn bucket(name: &str) -> i32 {
    // FNV-1a: nodes of all releases must agree about it.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    i32::try_from(hash % BUCKETS.unsigned_abs()).unwrap_or(0)
}

/// The segment to which events are written at this instant.
pub fn segment(now: Instant) -> i32 {
    let period = i64::try_from(SEGMENT_PERIOD.as_micros()).unwrap_or(i64::MAX);
    i32::try_from(now.0.div_euclid(period).rem_euclid(i64::from(SEGMENTS))).unwrap_or(0)
}

/// A bucket, and the id after which its events are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    pub bucket: i32,
    pub after: i64,
}

/// Reads the next events of buckets that are not published, each bucket in order.
pub async fn next(database: &Database, searches: &[Search]) -> Result<Vec<outbox::Model>, Error> {
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    // The condition on `published` must be the text of the index.
    let one = |(index, Search { bucket, .. }): (usize, &Search)| {
        format!(
            "SELECT * FROM (SELECT * FROM outbox WHERE bucket = {bucket} AND published = 0 AND id > ${} \
             ORDER BY bucket, id LIMIT {MAX_READ}) AS bucket_{bucket}",
            index + 1
        )
    };
    let sql = searches.iter().enumerate().map(one).collect::<Vec<_>>().join(" UNION ALL ");
    let values = searches.iter().map(|search| search.after.into());
    let rows = database.read().query_all_raw(Statement::from_sql_and_values(database.backend(), sql, values)).await?;
    Ok(rows.iter().map(|row| outbox::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}

/// The transactions of PostgreSQL at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transactions {
    /// All transactions before this one have ended.
    pub oldest: i64,
    /// No transaction from this one on had begun to write.
    pub next: i64,
}

/// Asks which transactions are open. Returns `None` on SQLite, where transactions commit in the order in which they write.
pub async fn transactions(database: &Database) -> Result<Option<Transactions>, Error> {
    if database.backend() != DatabaseBackend::Postgres {
        return Ok(None);
    }
    let sql = "SELECT pg_snapshot_xmin(now.snapshot)::text::bigint AS oldest, pg_snapshot_xmax(now.snapshot)::text::bigint AS next \
        FROM (SELECT pg_current_snapshot() AS snapshot) AS now";
    let row = database.read().query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| Error::Internal("a question about transactions has no answer".to_owned()))?;
    Ok(Some(Transactions { oldest: row.try_get("", "oldest")?, next: row.try_get("", "next")? }))
}

/// Notes that these events were published.
pub async fn mark(database: &Database, ids: &[i64]) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    let db = database.write();
    let published = any(database.backend(), outbox::Column::Id, ids.iter().copied());
    if database.backend() == DatabaseBackend::Postgres {
        // What names an erased customer does not wait for the end of the segment.
        let marked = outbox::Entity::update_many()
            .col_expr(outbox::Column::Published, 1.into())
            .filter(published.clone())
            .filter(outbox::Column::Erases.eq(0));
        marked.exec(db).await?;
        outbox::Entity::delete_many().filter(published).filter(outbox::Column::Erases.eq(1)).exec(db).await?;
    } else {
        outbox::Entity::delete_many().filter(published).exec(db).await?;
    }
    Ok(())
}

/// Deletes events of the customer `$1` that name it otherwise than `$2`, except for the one that tells of its erasure: at most `$3`.
pub const FORGET: &str = "DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox AS o \
    WHERE o.customer_id = $1 AND o.key <> $2 AND o.erases = 0 LIMIT $3)";

/// Whether an event waits that tells of an erasure.
pub async fn has_erasures(database: &Database) -> Result<bool, Error> {
    exists(database.read(), "outbox", "erases = 1 AND published = 0").await
}

async fn exists(db: &impl ConnectionTrait, table: &str, condition: &str) -> Result<bool, Error> {
    let sql = format!("SELECT 1 FROM {table} WHERE {condition} LIMIT 1");
    Ok(db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?.is_some())
}

/// Deletes all events.
pub async fn clear(database: &Database) -> Result<(), Error> {
    if database.backend() == DatabaseBackend::Postgres {
        database.write().execute_unprepared("TRUNCATE outbox").await?;
        return Ok(());
    }
    let sql = format!("DELETE FROM outbox WHERE id IN (SELECT id FROM outbox LIMIT {MAX_CLEARED})");
    while database.write().execute_unprepared(&sql).await?.rows_affected() > 0 {}
    Ok(())
}

/// Empties the segments whose events are all published, except for the one to which events are written. One that another transaction
/// uses, such as a backup, is left for later. Returns the number of segments that were emptied.
pub async fn trim(database: &Database, now: Instant) -> Result<usize, Error> {
    if database.backend() != DatabaseBackend::Postgres {
        return Ok(0);
    }
    let mut trimmed = 0;
    for number in (0..SEGMENTS).filter(|number| *number != segment(now)) {
        trimmed += usize::from(truncate(database, number).await?);
    }
    Ok(trimmed)
}

/// Truncates a segment whose events are all published.
async fn truncate(database: &Database, number: i32) -> Result<bool, Error> {
    let table = format!("outbox_{number}");
    let tx = database.begin().await?;
    // Without the lock, this may be out of date at once. It only saves the lock.
    if exists(&tx, &table, "published = 0").await? || !exists(&tx, &table, "true").await? {
        return Ok(false);
    }
    // No statement waits behind a lock that waits. Under the lock, no transaction has events in the segment that are not committed.
    if let Err(error) = tx.execute_unprepared(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")).await {
        return if is_lock_timeout(&error) { Ok(false) } else { Err(error.into()) };
    }
    if exists(&tx, &table, "published = 0").await? {
        return Ok(false);
    }
    tx.execute_unprepared(&format!("TRUNCATE {table}")).await?;
    tx.commit().await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_take_turns() {
        let minutes = |minutes: i64| Instant(minutes * 60_000_000);
        for (at, number) in [(0, 0), (9, 0), (10, 1), (39, 3), (40, 0), (-1, 3)] {
            assert_eq!(segment(minutes(at)), number, "{at}");
        }
    }

    #[test]
    fn a_name_has_one_bucket_for_ever() {
        let buckets: std::collections::BTreeSet<i32> = (0..100).map(|n| bucket(&format!("customer-{n}"))).collect();
        assert_eq!(buckets, (0..BUCKETS).collect());
        assert_eq!(["", "ada", "ü"].map(bucket), [5, 3, 2]);
    }
}
