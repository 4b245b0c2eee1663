//! Refunds from topics that wait for their purchase. A topic of refunds may be ahead of the topic of purchases, so a refund whose purchase
//! is not recorded, or allows it in no content yet, is kept. Each commit that records a content of the purchase wakes it. After
//! [`MAX_WAIT`] it becomes a dead letter.
//!
//! No refund is missed: it is stored first and then tried once more, and a commit looks for refunds only afterwards. So at least one of
//! the two sees the other. If the node dies in between, a sweep finds the refund.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use entity::{dead_letter, waiting_fact};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Statement,
};
use tokio_util::sync::CancellationToken;

use super::App;
use super::error::Error;
use super::message::Message;
use super::recorder::fact::Fact;
use super::refund::{RecordRefund, find_purchases, may_be_allowed_by_another};
use super::rows::any;
use super::{campaign, dead_letter as letters};
use crate::engine::time::Instant;

/// How long a refund waits. `docs/events.md` states it.
pub const MAX_WAIT: Duration = Duration::from_hours(7 * 24);
/// The maximum number of refunds that wait. Those beyond it are dead letters.
pub const MAX_ROWS: u64 = 1_000_000;
/// The number of refunds that are tried together.
const CHUNK: u64 = 512;
/// How long after a try the next sweep tries a refund again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The maximum number of refunds that one sweep tries.
const MAX_SWEPT: u64 = 5_120;

/// Returns the row of a refund of a message that waits from now on.
pub fn row(message: &Message, refund: &RecordRefund, reason: &str, now: Instant) -> Result<waiting_fact::Model, Error> {
    let content = serde_json::to_string(refund).map_err(|error| Error::Internal(format!("a refund: {error}")))?;
    let dead_letter::Model {
        topic,
        partition,
        message_offset,
        hash,
        reason,
        recorded_at,
        key,
        headers,
        size,
        payload,
        ..
    } = message.dead(reason, now);
    Ok(waiting_fact::Model {
        id: 0,
        purchase_external_id: refund.purchase_external_id.clone(),
        refund_external_id: refund.external_id.clone(),
        content,
        reason,
        tried_at: now.0,
        expires_at: now.plus(i64::try_from(MAX_WAIT.as_micros()).unwrap_or(i64::MAX)).0,
        topic,
        partition,
        message_offset,
        hash,
        recorded_at,
        key,
        headers,
        size,
        payload,
    })
}

/// Makes all batches, on all nodes, look for refunds that wait, from now on.
pub(super) async fn announce(app: &App) -> Result<(), Error> {
    campaign::keep_facts(app).await
}

/// Adds refunds in the caller's transaction. One that waits already stays as it is.
pub(super) async fn add(db: &impl ConnectionTrait, rows: &[waiting_fact::Model]) -> Result<(), Error> {
    for row in rows {
        let sql = "INSERT INTO waiting_fact (purchase_external_id, refund_external_id, content, reason, tried_at, expires_at, \
            topic, \"partition\", message_offset, hash, recorded_at, key, headers, size, payload) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) \
            ON CONFLICT (topic, \"partition\", message_offset, hash, refund_external_id) DO NOTHING";
        let row = row.clone();
        let values = [
            row.purchase_external_id.into(),
            row.refund_external_id.into(),
            row.content.into(),
            row.reason.into(),
            row.tried_at.into(),
            row.expires_at.into(),
            row.topic.into(),
            row.partition.into(),
            row.message_offset.into(),
            row.hash.into(),
            row.recorded_at.into(),
            row.key.into(),
            row.headers.into(),
            row.size.into(),
            row.payload.into(),
        ];
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// Stores refunds that wait, in a commit of their own, and tries them once.
pub async fn keep(app: &App, rows: &[waiting_fact::Model]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    announce(app).await?;
    let tx = app.database.begin().await?;
    add(&tx, rows).await?;
    tx.commit().await?;
    app.woken.wake(rows.iter().map(|row| row.purchase_external_id.clone()));
    Ok(())
}

/// Tries the refunds of purchases of which contents are recorded, until `stop` is cancelled.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.woken.changed() => {}
        }
        loop {
            let purchases = app.woken.take();
            if purchases.is_empty() || stop.is_cancelled() {
                break;
            }
            if let Err(error) = try_those_of(&app, purchases).await {
                tracing::warn!(error = %error, "refunds that wait could not be tried: the next sweep tries them");
            }
        }
    }
}

/// Tries the refunds that wait for these purchases.
pub async fn try_those_of(app: &App, purchases: Vec<String>) -> Result<(), Error> {
    let of_purchases = any(app.database.backend(), waiting_fact::Column::PurchaseExternalId, purchases);
    let mut after = 0;
    loop {
        let rows = waiting_fact::Entity::find()
            .filter(of_purchases.clone())
            .filter(waiting_fact::Column::Id.gt(after))
            .order_by_asc(waiting_fact::Column::Id)
            .limit(CHUNK)
            .all(app.database.write())
            .await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.id;
        try_all(app, rows).await?;
    }
}

/// Tries refunds that were not tried lately, and makes dead letters of those that have waited too long. A job calls this every minute.
pub(super) async fn sweep(app: &App) -> Result<(), Error> {
    let now = app.clock.ask(app.database.read()).await?;
    let before = now.minus(i64::try_from(TRY_AGAIN_AFTER.as_micros()).unwrap_or(i64::MAX));
    let mut tried = 0;
    while tried < MAX_SWEPT {
        let rows = waiting_fact::Entity::find()
            .filter(waiting_fact::Column::TriedAt.lte(before.0))
            .order_by_asc(waiting_fact::Column::TriedAt)
            .order_by_asc(waiting_fact::Column::Id)
            .limit(CHUNK)
            .all(app.database.write())
            .await?;
        if rows.is_empty() {
            break;
        }
        tried += rows.len() as u64;
        try_all(app, rows).await?;
    }
    Ok(())
}

/// Tries refunds once. Those that are recorded, or refused for good, do not wait any more.
async fn try_all(app: &App, rows: Vec<waiting_fact::Model>) -> Result<(), Error> {
    let now = app.clock.now();
    let purchases = rows.iter().map(|row| row.purchase_external_id.clone()).collect::<BTreeSet<_>>();
    let purchases = find_purchases(app, purchases.into_iter().collect()).await?;
    let (mut recorded, mut dead, mut waiting) = (Vec::new(), Vec::new(), BTreeMap::<String, Vec<i64>>::new());
    let mut answers = Vec::new();
    for row in rows {
        let refund: RecordRefund = serde_json::from_str(&row.content)
            .map_err(|error| Error::Internal(format!("waiting fact {}: {error}", row.id)))?;
        let purchase = purchases.get(&refund.purchase_external_id);
        match refund.check_by(&app.database, &app.clock, &[], purchase).await {
            Ok(refund) => answers.push((row, app.recorder.record_when_free(Fact::Refund(refund)).await?)),
            Err(error) if may_be_allowed_by_another(&error) && row.expires_at > now.0 => {
                waiting.entry(error.to_string()).or_default().push(row.id);
            }
            Err(Error::Refused(errors)) => dead.push((row, Error::Refused(errors).to_string())),
            Err(error) => return Err(error),
        }
    }
    for (row, answer) in answers {
        match answer.await.map_err(|_| Error::Unavailable)? {
            Ok(Ok(_)) => recorded.push(row.id),
            Ok(Err(refusal)) => dead.push((row, refusal.at(&[]).to_string())),
            Err(error) if error.is_retryable() => return Err(error),
            // It must not hold up the others for ever.
            Err(error) => {
                let reason = error.masked();
                tracing::error!(reason, id = row.id, error = %error, "a refund that waited could not be recorded");
                dead.push((row, reason));
            }
        }
    }
    let tx = app.database.begin().await?;
    for (reason, ids) in waiting {
        waiting_fact::Entity::update_many()
            .col_expr(waiting_fact::Column::TriedAt, Expr::value(now.0))
            .col_expr(waiting_fact::Column::Reason, Expr::value(reason))
            .filter(any(app.database.backend(), waiting_fact::Column::Id, ids))
            .exec(&tx)
            .await?;
    }
    let ended: Vec<i64> = recorded.into_iter().chain(dead.iter().map(|(row, _)| row.id)).collect();
    let letters: Vec<dead_letter::Model> = dead.into_iter().map(|(row, reason)| letter(row, reason, now)).collect();
    letters::add(&tx, &letters).await?;
    if !ended.is_empty() {
        let ended = any(app.database.backend(), waiting_fact::Column::Id, ended);
        waiting_fact::Entity::delete_many().filter(ended).exec(&tx).await?;
    }
    Ok(tx.commit().await?)
}

fn letter(row: waiting_fact::Model, reason: String, now: Instant) -> dead_letter::Model {
    let waiting_fact::Model { topic, partition, message_offset, hash, key, headers, size, payload, .. } = row;
    let recorded_at = now.0;
    dead_letter::Model {
        id: 0,
        topic,
        partition,
        message_offset,
        hash,
        reason,
        recorded_at,
        key,
        headers,
        size,
        payload,
    }
}

/// Counts the refunds that wait, and remembers their number.
pub async fn count(app: &App) -> Result<u64, Error> {
    let count = waiting_fact::Entity::find().count(app.database.read()).await?;
    app.waiting_facts.store(count, Ordering::Relaxed);
    Ok(count)
}
