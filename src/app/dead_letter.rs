//! Dead letters: messages of topics that could not be recorded. An admin replays one when its cause is fixed, or discards it.

use std::collections::HashMap;

use entity::dead_letter;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect, Statement};
use serde_json::json;

use super::App;
use super::error::{Check, Error, UserErrorCode};
use super::message::MAX_STORED_BYTES;
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_root};
use super::replay::Failed;
use super::rows::{Kind, any};
use super::trail::{self, Attempt, Target};
use super::viewer::{Actor, Admin};

impl Listed for dead_letter::Model {
    const LIST: List = List {
        name: "dead letter",
        table: "dead_letter",
        order: &[("recorded_at", Kind::Int), ("id", Kind::Int)],
        descending: true,
    };

    fn position(&self) -> Position {
        [Part::Int(self.recorded_at), Part::Int(self.id)].into()
    }
}

/// Whether the payload of the dead letter is the whole value of its message.
pub fn is_whole(letter: &dead_letter::Model) -> bool {
    letter.size.is_none_or(|size| usize::try_from(size).is_ok_and(|size| size <= MAX_STORED_BYTES))
}

/// Adds dead letters in the caller's transaction. A message that is one already stays as it is.
pub(super) async fn add(db: &impl ConnectionTrait, letters: &[dead_letter::Model]) -> Result<(), Error> {
    for letter in letters {
        // A column of bytes that can be null does not fit into `WriteGroup`. These rows are rare.
        let sql = "INSERT INTO dead_letter \
            (topic, \"partition\", message_offset, hash, reason, recorded_at, key, headers, size, payload) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (topic, \"partition\", message_offset, hash) DO NOTHING";
        let letter = letter.clone();
        let values = [
            letter.topic.into(),
            letter.partition.into(),
            letter.message_offset.into(),
            letter.hash.into(),
            letter.reason.into(),
            letter.recorded_at.into(),
            letter.key.into(),
            letter.headers.into(),
            letter.size.into(),
            letter.payload.into(),
        ];
        db.execute_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await?;
    }
    Ok(())
}

/// Returns a page of the dead letters, the newest first. With `topic`, only those of that topic.
pub async fn list(
    app: &App,
    _: &Admin,
    page: &Page,
    topic: Option<String>,
) -> Result<Slice<dead_letter::Model>, Error> {
    let filter = match topic {
        None => Filter::default(),
        // No stored text contains U+0000, and PostgreSQL refuses a parameter that does.
        Some(topic) => Filter {
            sql: " AND s.topic = r.topic".to_owned(),
            columns: vec![("topic", Kind::Text)],
            rows: if topic.contains('\0') { Vec::new() } else { vec![vec![topic.into()]] },
        },
    };
    of_root(app.database.read(), page, &filter).await
}

/// Finds dead letters by id. Leaves out those that do not exist.
pub async fn find(app: &App, _: &Admin, ids: Vec<i64>) -> Result<HashMap<i64, dead_letter::Model>, Error> {
    let by_id = any(app.database.backend(), dead_letter::Column::Id, ids);
    let rows = dead_letter::Entity::find().filter(by_id).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Counts the dead letters, by topic.
pub async fn counts(app: &App) -> Result<Vec<(String, i64)>, Error> {
    use dead_letter::Column;

    let counts = dead_letter::Entity::find()
        .select_only()
        .column(Column::Topic)
        .column_as(Column::Id.count(), "letters")
        .group_by(Column::Topic);
    Ok(counts.into_tuple().all(app.database.read()).await?)
}

/// Records the message of a dead letter, and deletes the dead letter. Refused if the message still cannot be recorded.
pub async fn replay(app: &App, actor: &Actor, id: i64) -> Result<dead_letter::Model, Error> {
    let attempt = Attempt::new(actor, "replayDeadLetter").on(Target::DeadLetter(id));
    let replayed = async {
        let letter = load(app, id).await?;
        let replay =
            app.replay.get().ok_or_else(|| Error::Internal("no replay of dead letters was given".to_owned()))?;
        match replay(letter.clone()).await {
            Ok(()) => end(app, &attempt, letter, None).await,
            Err(Failed::Message(reason)) => {
                let message = format!("the message still cannot be recorded: {reason}");
                Err(Error::refused(&["id"], UserErrorCode::Invalid, message))
            }
            Err(Failed::Now(error)) => Err(error),
        }
    };
    app.conclude(&attempt, replayed).await
}

/// Deletes a dead letter without recording its message. The trail keeps the reason.
pub async fn discard(app: &App, actor: &Actor, id: i64, reason: &str) -> Result<dead_letter::Model, Error> {
    let attempt = Attempt::new(actor, "discardDeadLetter").on(Target::DeadLetter(id));
    let discarded = async {
        let mut check = Check::default();
        check.text(&["reason"], reason);
        check.finish(Some(()))?;
        let letter = load(app, id).await?;
        end(app, &attempt, letter, Some(reason)).await
    };
    app.conclude(&attempt, discarded).await
}

async fn load(app: &App, id: i64) -> Result<dead_letter::Model, Error> {
    let letter = dead_letter::Entity::find_by_id(id).one(app.database.write()).await?;
    letter.ok_or_else(|| Error::refused(&["id"], UserErrorCode::NotFound, "no dead letter has this id"))
}

/// Deletes a dead letter and adds that to the trail. Of two requests at a time, the second one is refused.
async fn end(
    app: &App,
    attempt: &Attempt<'_>,
    letter: dead_letter::Model,
    discarded_because: Option<&str>,
) -> Result<dead_letter::Model, Error> {
    let tx = app.database.begin().await?;
    let now = app.clock.ask(&tx).await?;
    let deleted = dead_letter::Entity::delete_by_id(letter.id).exec(&tx).await?;
    if deleted.rows_affected == 0 {
        return Err(Error::refused(&["id"], UserErrorCode::NotFound, "no dead letter has this id"));
    }
    // The content of the message is left out: it may name a customer.
    let before = trail::state(json!({
        "topic": letter.topic, "partition": letter.partition, "offset": letter.message_offset, "size": letter.size,
    }))?;
    let after = discarded_because.map(|reason| trail::state(json!({ "discardedBecause": reason }))).transpose()?;
    trail::add(&tx, &[attempt.entry(now, Some(before), after)]).await?;
    tx.commit().await?;
    Ok(letter)
}
