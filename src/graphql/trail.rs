//! The trail: what admins did, and what they were refused.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object};

use super::campaign::Campaign;
use super::customer::Customer;
use super::error::{ApiError, UserErrorCode};
use super::id::GlobalId;
use super::loaders::{CustomerOf, FindCampaign, RewardOf};
use super::node::Node;
use super::page::Connection;
use super::reward::Reward;
use super::scalar::DateTime;
use super::session::ContextExt;
use crate::app::model;
use crate::app::reading::page::{Listed, PageArgs};
use crate::app::reading::trail::list;
use crate::app::trail::{Target, refused, target};
use crate::engine::time::Instant;

/// One thing that an admin did, or tried to do and was refused. Each mutation that only admins may use leaves one entry.
/// There is none for a repeated `idempotencyKey`, which changes nothing, nor for a request that fails with a GraphQL
/// error.
#[derive(Clone, Description)]
pub struct TrailEntry(pub Arc<model::TrailEntry>);

#[Object(use_type_description)]
impl TrailEntry {
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::TrailEntry(self.0.id).into()
    }

    /// When the action took effect or was refused, by the server's clock.
    async fn at(&self) -> DateTime {
        Instant(self.0.at).into()
    }

    /// Who it was: the subject of the token. For a subcommand of the server, its name, such as `import`.
    async fn subject_of_token(&self) -> &str {
        &self.0.subject_of_token
    }

    /// The role of the token: `admin`. For a subcommand of the server, `process`.
    async fn role(&self) -> &str {
        &self.0.role
    }

    /// The name of the mutation.
    async fn action(&self) -> &str {
        &self.0.action
    }

    /// The campaign or the customer that the action is about. For `createCampaign` and `cloneCampaign`, the new campaign;
    /// for a refused `cloneCampaign`, the campaign to clone. Null if the object does not exist or was deleted.
    async fn node(&self, ctx: &Context<'_>) -> Option<Result<Node, ApiError>> {
        let loaders = ctx.loaders();
        let found = match target(&self.0)? {
            Target::Campaign(id) => {
                loaders.load_one(FindCampaign(id)).await.map(|row| row.map(|row| Campaign(row).into()))
            }
            Target::Reward(id) => loaders.load_one(RewardOf(id)).await.map(|row| row.map(|row| Reward(row).into())),
            Target::Customer(id) => {
                loaders.load_one(CustomerOf(id)).await.map(|row| row.map(|row| Customer::from(row).into()))
            }
        };
        found.map_err(ApiError::from).transpose()
    }

    /// The state before the change, as JSON text. A campaign has its definition in the form of `CampaignInput`, or for
    /// `activateCampaign`, `pauseCampaign`, `resumeCampaign` and `endCampaign` its status and its boundaries. A customer has
    /// its balance. A part of more than 16 KiB is replaced by its size and its SHA-256. Null if there was nothing before, if
    /// the action was refused, or if the data of the customer was erased.
    async fn before(&self) -> Option<&str> {
        self.0.before.as_deref()
    }

    /// The state after the change, as JSON text, in the form of `before`. For `adjustPoints`, it also has the ledger entry.
    /// Null if there is nothing after, if the action was refused, or if the data of the customer was erased.
    async fn after(&self) -> Option<&str> {
        self.0.after.as_deref()
    }

    /// The codes of the `userErrors` with which the action was refused, each once. Empty if it took effect.
    async fn refused(&self) -> Result<Vec<UserErrorCode>, ApiError> {
        Ok(refused(&self.0)?.into_iter().map(UserErrorCode::from).collect())
    }

    /// The id of the request, which its response has in the header `x-request-id`. A client or a proxy may have chosen it.
    /// All operations of a WebSocket have the id of its handshake.
    async fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The network address of the client. Null for a subcommand of the server.
    async fn address(&self) -> Option<&str> {
        self.0.address.as_deref()
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
        Ok(Connection::new(slice, Listed::cursor, |row| TrailEntry(Arc::new(row))))
    }
}
