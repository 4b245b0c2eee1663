//! Relay's `Node` interface: objects that can be read by their global id.

use std::sync::Arc;

use async_graphql::futures_util::future::try_join_all;
use async_graphql::{Context, ID, Interface, Object};

use super::award::Award;
use super::campaign::Campaign;
use super::customer::{Customer, extent};
use super::dead_letter::DeadLetter;
use super::error::ApiError;
use super::job::Job;
use super::ledger::LedgerEntry;
use super::loaders::{
    FindAward, FindCampaign, FindCustomer, FindDeadLetter, FindJob, FindLedgerEntry, FindPurchase, FindRedemption,
    FindReward, FindTrailEntry,
};
use super::purchase::Purchase;
use super::redemption::Redemption;
use super::reward::Reward;
use super::session::ContextExt;
use super::trail::TrailEntry;
use crate::app::error::Error;
use crate::app::global_id::GlobalId;

/// The maximum number of ids in one `nodes` query.
const MAX_IDS: usize = 100;

/// An object with a global id.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "An opaque id, unique across all types. `node` accepts it."))]
pub(super) enum Node {
    Customer(Customer),
    Purchase(Purchase),
    Campaign(Campaign),
    Award(Award),
    LedgerEntry(LedgerEntry),
    TrailEntry(TrailEntry),
    Reward(Reward),
    Redemption(Redemption),
    Job(Job),
    DeadLetter(DeadLetter),
}

/// The part of [`super::Query`] that reads objects by id.
#[derive(Default)]
pub(super) struct NodeQuery;

#[Object]
impl NodeQuery {
    /// The object with this id. Null if the object does not exist or the caller may not see it.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The `id` of any object of the interface `Node`.")] id: ID,
    ) -> Option<Result<Node, ApiError>> {
        find(ctx, id).await.transpose()
    }

    /// The objects with these ids, in the order of the ids. The result has a null for each object that does not exist
    /// or that the caller may not see.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most 100 ids. With more, the error is `BAD_USER_INPUT`.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Node>>, ApiError> {
        ctx.viewer().require_reader()?;
        if ids.len() > MAX_IDS {
            return Err(Error::BadUserInput(format!("`ids` must have at most {MAX_IDS} entries")).into());
        }
        try_join_all(ids.into_iter().map(|id| find(ctx, id))).await
    }
}

async fn find(ctx: &Context<'_>, id: ID) -> Result<Option<Node>, ApiError> {
    ctx.viewer().require_reader()?;
    let loaders = ctx.loaders();
    Ok(match GlobalId::parse(&id) {
        Some(GlobalId::Customer(name)) => {
            loaders.load_one(FindCustomer(name.into(), None, extent(ctx))).await?.map(|it| Customer::from(it).into())
        }
        Some(GlobalId::Purchase(name)) => {
            loaders.load_one(FindPurchase(name.into())).await?.map(|row| Purchase(row).into())
        }
        Some(GlobalId::Campaign(id)) => loaders.load_one(FindCampaign(id)).await?.map(|row| Campaign(row).into()),
        Some(GlobalId::Award(customer, number)) => {
            loaders.load_one(FindAward(customer, number)).await?.map(|row| Award(row).into())
        }
        Some(GlobalId::LedgerEntry(customer, sequence)) => {
            let entry = loaders.load_one(FindLedgerEntry(customer, sequence)).await?;
            entry.map(|row| LedgerEntry::from(row).into())
        }
        Some(GlobalId::Reward(id)) => loaders.load_one(FindReward(id)).await?.map(|row| Reward(row).into()),
        Some(GlobalId::Redemption(customer, number)) => {
            loaders.load_one(FindRedemption(customer, number)).await?.map(|row| Redemption(row).into())
        }
        Some(GlobalId::TrailEntry(id)) => {
            loaders.load_one(FindTrailEntry(id)).await?.map(|row| TrailEntry::from(Arc::unwrap_or_clone(row)).into())
        }
        Some(GlobalId::Job(id)) => loaders.load_one(FindJob(id)).await?.map(|row| Job::from(row).into()),
        Some(GlobalId::DeadLetter(id)) => {
            loaders.load_one(FindDeadLetter(id)).await?.map(|row| DeadLetter::from(row).into())
        }
        None => None,
    })
}
