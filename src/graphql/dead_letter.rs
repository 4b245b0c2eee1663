//! Dead letters: messages of topics that could not be recorded, for admins to replay or discard.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::error::{ApiError, UserError, payload};

use super::page::Connection;
use super::scalar::{Count, DateTime};
use super::session::ContextExt;
use crate::app::dead_letter::{self, list};
use crate::app::error::{Error, UserErrorCode};
use crate::app::global_id::GlobalId;
use crate::app::message;
use crate::app::model;
use crate::app::reading::page::{Listed, PageArgs};
use crate::engine::time::Instant;

/// A header of a message.
#[derive(Clone, SimpleObject)]
pub struct DeadLetterHeader {
    /// The name. A message can have several headers with one name.
    name: String,
    /// The value as text, or in base64 if it is not UTF-8. Null if the header has no value.
    value: Option<String>,
}

/// A message of a topic that could not be recorded. It stays until an admin replays or discards it.
#[derive(Clone, SimpleObject)]
pub struct DeadLetter {
    /// An opaque id, unique across all types.
    #[graphql(owned)]
    pub(super) id: ID,
    /// The topic of the message.
    topic: String,
    /// The partition of the message.
    partition: i32,
    /// The offset of the message in its partition.
    offset: Count,
    /// Why the message could not be recorded, when it became a dead letter.
    reason: String,
    /// When the message became a dead letter, by the server's clock.
    recorded_at: DateTime,
    /// The key of the message as text, or in base64 if it is not UTF-8. Only the first 1 024 bytes. Null if it has none.
    key: Option<String>,
    /// The headers of the message, in order. At most 100 with 16 KiB.
    headers: Vec<DeadLetterHeader>,
    /// The size of the value in bytes. 0 if the message has no value.
    size: Count,
    /// The first 64 KiB of the value, in base64.
    payload: String,
}

impl From<Arc<model::DeadLetter>> for DeadLetter {
    fn from(row: Arc<model::DeadLetter>) -> Self {
        let header = |(name, value): message::Header| DeadLetterHeader { name, value: value.map(readable) };
        let row = Arc::unwrap_or_clone(row);
        Self {
            id: GlobalId::DeadLetter(row.id).into(),
            topic: row.topic,
            partition: i32::try_from(row.partition).unwrap_or(i32::MAX),
            offset: Count(row.message_offset),
            reason: row.reason,
            recorded_at: Instant(row.recorded_at).into(),
            key: row.key.map(readable),
            headers: message::headers(&row.headers).into_iter().map(header).collect(),
            size: Count(row.size.unwrap_or_default()),
            payload: BASE64_STANDARD.encode(row.payload),
        }
    }
}

fn readable(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| BASE64_STANDARD.encode(error.as_bytes()))
}

/// The result of `replayDeadLetter` and `discardDeadLetter`.
#[derive(SimpleObject)]
pub struct DeadLetterPayload {
    /// The dead letter as it was. It is deleted. Null if the mutation was refused.
    dead_letter: Option<DeadLetter>,
    /// The reasons why the mutation was refused. Empty if it was accepted.
    user_errors: Vec<UserError>,
}

impl DeadLetterPayload {
    fn new(ended: Result<model::DeadLetter, Error>) -> Result<Self, ApiError> {
        let (letter, user_errors) = payload(ended)?;
        Ok(Self { dead_letter: letter.map(|row| Arc::new(row).into()), user_errors })
    }
}

/// Decodes the argument `id`. Any id that is not of a dead letter is refused with `NOT_FOUND`.
fn letter_id(id: &ID) -> Result<i64, Error> {
    match GlobalId::parse(id) {
        Some(GlobalId::DeadLetter(id)) => Ok(id),
        _ => Err(Error::refused(&["id"], UserErrorCode::NotFound, "no dead letter has this id")),
    }
}

/// The part of [`super::Query`] that reads dead letters.
#[derive(Default)]
pub(super) struct DeadLetterQuery;

#[Object]
impl DeadLetterQuery {
    /// The messages of topics that could not be recorded, the newest first. Requires an admin token (`FORBIDDEN`).
    async fn dead_letters(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only messages of this topic.")] topic: Option<String>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<Connection<DeadLetter>, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        let page = model::DeadLetter::LIST.page(PageArgs { first, after, last, before })?;
        let slice = list(ctx.app(), &admin, &page, topic).await?;
        Ok(Connection::new(slice, Listed::cursor, |row| Arc::new(row).into()))
    }
}

/// The part of [`super::Mutation`] that ends dead letters.
#[derive(Default)]
pub struct DeadLetterMutation;

#[Object]
impl DeadLetterMutation {
    /// Records the message of a dead letter, and deletes the dead letter. A value of more than 64 KiB is read from its
    /// topic again. What is recorded already changes nothing. The error is `INVALID` if the message still cannot be
    /// recorded: then the dead letter stays. Requires an admin token (`FORBIDDEN`).
    async fn replay_dead_letter(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the dead letter.")] id: ID,
    ) -> Result<DeadLetterPayload, ApiError> {
        let actor = ctx.actor()?;
        DeadLetterPayload::new(async { dead_letter::replay(ctx.app(), &actor, letter_id(&id)?).await }.await)
    }

    /// Deletes a dead letter without recording its message. Requires an admin token (`FORBIDDEN`).
    async fn discard_dead_letter(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of the dead letter.")] id: ID,
        #[graphql(desc = "Why it is not needed, for the trail. At most 200 bytes.")] reason: String,
    ) -> Result<DeadLetterPayload, ApiError> {
        let actor = ctx.actor()?;
        DeadLetterPayload::new(async { dead_letter::discard(ctx.app(), &actor, letter_id(&id)?, &reason).await }.await)
    }
}
