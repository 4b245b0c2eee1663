//! The trail: what admins did, and what they were refused.

use async_graphql::{Context, ID, Object, SimpleObject};

use super::error::{ApiError, UserErrorCode};
use super::page::Connection;
use super::scalar::DateTime;
use super::session::ContextExt;
use crate::app::global_id::GlobalId;
use crate::app::model;
use crate::app::reading::page::{Listed, PageArgs};
use crate::app::reading::trail::list;
use crate::app::trail::{Target, refused, target};
use crate::engine::time::Instant;

/// One thing that an admin did, or tried to do and was refused. Each mutation that only admins may use leaves one entry.
/// There is none for a mutation that changes nothing, such as one with a repeated `idempotencyKey`, nor for a request that
/// fails with a GraphQL error.
#[derive(Clone, SimpleObject)]
#[graphql(complex)]
pub struct TrailEntry {
    /// An opaque id, unique across all types.
    #[graphql(owned)]
    pub(super) id: ID,
    /// When the action took effect or was refused, by the server's clock.
    at: DateTime,
    /// Who it was: the subject of the token. For a subcommand of the server, its name, such as `import`.
    subject_of_token: String,
    /// The role of the token: `admin`. For a subcommand of the server, `process`.
    role: String,
    /// The name of the mutation.
    action: String,
    /// The state before the change, as JSON text. A campaign has its definition in the form of `CampaignInput`, or for
    /// `activateCampaign`, `pauseCampaign`, `resumeCampaign` and `endCampaign` its status and its boundaries. A customer has
    /// its balance. A job has its `state`, `attempts` and `runAt`. A part of more than 16 KiB is replaced by its size and its
    /// SHA-256. Null if there was nothing before, if the action was refused, or if the data of the customer was erased.
    before: Option<String>,
    /// The state after the change, as JSON text, in the form of `before`. For `adjustPoints`, it also has the ledger entry.
    /// Null if there is nothing after, if the action was refused, or if the data of the customer was erased.
    after: Option<String>,
    /// The codes of the `userErrors` with which the action was refused, each once. Empty if it took effect.
    refused: Result<Vec<UserErrorCode>, ApiError>,
    /// The id of the request, which its response has in the header `x-request-id`. A client or a proxy may have chosen it.
    /// All operations of a WebSocket have the id of its handshake.
    request_id: String,
    /// The network address of the client. Null for a subcommand of the server.
    address: Option<String>,
    #[graphql(skip)]
    pub(super) target: Option<Target>,
}

impl From<model::TrailEntry> for TrailEntry {
    fn from(row: model::TrailEntry) -> Self {
        let refused = refused(&row).map(|codes| codes.into_iter().map(UserErrorCode::from).collect());
        Self {
            id: GlobalId::TrailEntry(row.id).into(),
            at: Instant(row.at).into(),
            refused: refused.map_err(ApiError::from),
            target: target(&row),
            subject_of_token: row.subject_of_token,
            role: row.role,
            action: row.action,
            before: row.before,
            after: row.after,
            request_id: row.request_id,
            address: row.address,
        }
    }
}

/// The part of [`super::Query`] that reads the trail.
#[derive(Default)]
pub struct TrailQuery;

#[Object]
impl TrailQuery {
    /// What admins did and what they were refused, newest first. Requires an admin token (`FORBIDDEN`).
    async fn trail(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only entries of these mutations, at most 100. With more, the error is `BAD_USER_INPUT`.")]
        action: Option<Vec<String>>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<Connection<TrailEntry>, ApiError> {
        let admin = ctx.viewer().require_admin()?;
        let page = model::TrailEntry::LIST.page(PageArgs { first, after, last, before })?;
        let slice = list(ctx.app(), &admin, &page, action).await?;
        Ok(Connection::new(slice, Listed::cursor, TrailEntry::from))
    }
}
