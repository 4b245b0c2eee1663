//! How far a consumer group has read each partition of its topics, and what stops a partition.
//!
//! The position in SQL decides where reading goes on, because it is stored after the effects of the messages, in the same database. So a
//! database that was restored reads again what it lost. A position moves forward only: a consumer that was frozen and lost the
//! partition cannot move it back. Only [`resume`] can, and it makes earlier consumers' positions invalid.

use std::collections::HashMap;

use entity::{dead_letter, ingest_position, waiting_fact};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Statement, Value};

use super::App;
use super::error::Error;
use super::{dead_letter as letters, waiting_fact as waiting};
use crate::engine::time::Instant;

/// A partition of a topic, as a consumer group reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub group: String,
    pub topic: String,
    pub partition: i32,
}

/// Why a partition is not read. The database stores the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Retention, or somebody, has deleted messages that were not read.
    Lost { from: i64, to: i64 },
    /// Another message is where the last one was, or the topic ends before it: the topic was deleted and made again.
    OtherTopic,
    /// Too many messages in a row became dead letters.
    Failing,
}

impl Stop {
    /// The stored name, which the log has too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost { .. } => "lost",
            Self::OtherTopic => "other_topic",
            Self::Failing => "failing",
        }
    }
}

/// The message up to which everything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    pub offset: i64,
    pub hash: String,
}

/// Loads the positions of a group, by topic and partition.
pub async fn load(app: &App, group: &str) -> Result<HashMap<(String, i32), ingest_position::Model>, Error> {
    of_group(app.database.write(), group).await
}

/// Like [`load`], without an application.
pub async fn of_group(
    db: &impl ConnectionTrait,
    group: &str,
) -> Result<HashMap<(String, i32), ingest_position::Model>, Error> {
    let of_group = ingest_position::Column::GroupName.eq(group);
    let rows = ingest_position::Entity::find().filter(of_group).all(db).await?;
    let by_partition =
        |row: ingest_position::Model| Some(((row.topic.clone(), i32::try_from(row.partition).ok()?), row));
    Ok(rows.into_iter().filter_map(by_partition).collect())
}

/// What became of messages that were not recorded at once.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub dead: Vec<dead_letter::Model>,
    pub waiting: Vec<waiting_fact::Model>,
}

const ADVANCE: &str = "INSERT INTO ingest_position \
    (group_name, topic, \"partition\", last_offset, last_hash, resumes, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
    ON CONFLICT (group_name, topic, \"partition\") DO UPDATE \
    SET last_offset = excluded.last_offset, last_hash = excluded.last_hash, updated_at = excluded.updated_at \
    WHERE ingest_position.resumes = excluded.resumes \
    AND (ingest_position.last_offset IS NULL OR ingest_position.last_offset < excluded.last_offset)";

/// Stores, in one commit, what is kept of messages, and that everything up to `last` is done. A position that is further already, or
/// that was set since the caller read `resumes`, stays.
pub async fn advance(app: &App, place: &Place, resumes: i64, last: &Last, kept: &Kept) -> Result<(), Error> {
    if !kept.waiting.is_empty() {
        waiting::announce(app).await?;
    }
    let tx = app.database.begin().await?;
    letters::add(&tx, &kept.dead).await?;
    waiting::add(&tx, &kept.waiting).await?;
    let values: [Value; 7] = [
        place.group.clone().into(),
        place.topic.clone().into(),
        i64::from(place.partition).into(),
        last.offset.into(),
        last.hash.clone().into(),
        resumes.into(),
        app.clock.now().0.into(),
    ];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), ADVANCE, values)).await?;
    Ok(tx.commit().await?)
}

const STOP: &str = "INSERT INTO ingest_position \
    (group_name, topic, \"partition\", resumes, updated_at, stopped, stopped_at, lost_from, lost_to) \
    VALUES ($1, $2, $3, $4, $5, $6, $5, $7, $8) \
    ON CONFLICT (group_name, topic, \"partition\") DO UPDATE \
    SET stopped = excluded.stopped, stopped_at = excluded.stopped_at, lost_from = excluded.lost_from, lost_to = excluded.lost_to \
    WHERE ingest_position.resumes = excluded.resumes AND ingest_position.stopped IS NULL";

/// Stores that the partition is not read any more until [`resume`] is called.
pub async fn stop(app: &App, place: &Place, resumes: i64, stop: Stop) -> Result<(), Error> {
    let lost = match stop {
        Stop::Lost { from, to } => (Some(from), Some(to)),
        Stop::OtherTopic | Stop::Failing => (None, None),
    };
    let values: [Value; 8] = [
        place.group.clone().into(),
        place.topic.clone().into(),
        i64::from(place.partition).into(),
        resumes.into(),
        app.clock.now().0.into(),
        stop.name().into(),
        lost.0.into(),
        lost.1.into(),
    ];
    let db = app.database.write();
    db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), STOP, values)).await?;
    Ok(())
}

/// Where [`resume`] lets reading go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// At the beginning of the partition.
    Beginning,
    /// At this offset.
    Offset(i64),
    /// After the last message that is done.
    Position,
}

/// Lets a partition be read again. Without `from`, a partition that failed too often goes on where it stopped, and any other one is
/// read from its beginning: facts that were recorded already change nothing. Returns where reading goes on, or `None` if the partition
/// is not stopped and `from` is not given.
pub async fn resume(app: &App, place: &Place, from: Option<i64>) -> Result<Option<From>, Error> {
    let tx = app.database.begin().await?;
    let key = (place.group.clone(), place.topic.clone(), i64::from(place.partition));
    let row = ingest_position::Entity::find_by_id(key).one(&tx).await?;
    let stopped = row.and_then(|row| row.stopped);
    let from = match (from, stopped.as_deref()) {
        (Some(offset), _) => From::Offset(offset),
        (None, None) => return Ok(None),
        (None, Some(stopped)) if stopped == Stop::Failing.name() => From::Position,
        (None, Some(_)) => From::Beginning,
    };
    let last = match from {
        From::Beginning => "last_offset = NULL, last_hash = NULL, ".to_owned(),
        From::Offset(offset) => format!("last_offset = {}, last_hash = NULL, ", offset.max(0) - 1),
        From::Position => String::new(),
    };
    let sql = format!(
        "INSERT INTO ingest_position (group_name, topic, \"partition\", last_offset, resumes, updated_at) \
         VALUES ($1, $2, $3, $4, 1, $5) ON CONFLICT (group_name, topic, \"partition\") DO UPDATE SET {last}stopped = NULL, \
         stopped_at = NULL, lost_from = NULL, lost_to = NULL, resumes = ingest_position.resumes + 1, updated_at = excluded.updated_at"
    );
    let offset = match from {
        From::Offset(offset) => Some(offset.max(0) - 1),
        From::Beginning | From::Position => None,
    };
    let now: Instant = app.clock.now();
    let values: [Value; 5] = [
        place.group.clone().into(),
        place.topic.clone().into(),
        i64::from(place.partition).into(),
        offset.into(),
        now.0.into(),
    ];
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, values)).await?;
    tx.commit().await?;
    Ok(Some(from))
}
