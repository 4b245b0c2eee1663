//! Everything that has an id of its own: Relay's nodes.

use async_graphql::futures_util::future::try_join_all;
use async_graphql::{Context, ID, Interface, Object};

use super::award::Award;
use super::campaign::Campaign;
use super::customer::{Customer, extent};
use super::error::ApiError;
use super::id::GlobalId;
use super::ledger::LedgerEntry;
use super::loaders::{FindAward, FindCampaign, FindCustomer, FindLedgerEntry, FindPurchase};
use super::purchase::Purchase;
use super::session::ContextExt;
use crate::app::error::Error;

/// The most ids of one `nodes`.
const MAX_IDS: usize = 100;

/// Something with an id of its own.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque; of everything, not only of its type."))]
pub(super) enum Node {
    /// A customer.
    Customer(Customer),
    /// A purchase.
    Purchase(Purchase),
    /// A campaign.
    Campaign(Campaign),
    /// An award.
    Award(Award),
    /// A ledger entry.
    LedgerEntry(LedgerEntry),
}

/// See [`super::Query`].
#[derive(Default)]
pub(super) struct NodeQuery;

#[Object]
impl NodeQuery {
    /// Anything by its id; null: there is no such thing, or it may not be seen.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of a customer, purchase, campaign, award or ledger entry.")] id: ID,
    ) -> Option<Result<Node, ApiError>> {
        find(ctx, id).await.transpose()
    }

    /// Several by their ids, in that order; null for each that there is not, or that may not be seen.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most 100.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Node>>, ApiError> {
        ctx.viewer().require_reader()?;
        if ids.len() > MAX_IDS {
            return Err(Error::BadUserInput(format!("`ids` must be at most {MAX_IDS}")).into());
        }
        try_join_all(ids.into_iter().map(|id| find(ctx, id))).await
    }
}

async fn find(ctx: &Context<'_>, id: ID) -> Result<Option<Node>, ApiError> {
    ctx.viewer().require_reader()?;
    let loaders = ctx.loaders();
    Ok(match GlobalId::parse(&id) {
        Some(GlobalId::Customer(name)) => {
            loaders.load_one(FindCustomer(name, None, extent(ctx))).await?.map(|it| Customer::from(it).into())
        }
        Some(GlobalId::Purchase(name)) => loaders.load_one(FindPurchase(name)).await?.map(|row| Purchase(row).into()),
        Some(GlobalId::Campaign(id)) => loaders.load_one(FindCampaign(id)).await?.map(|row| Campaign(row).into()),
        Some(GlobalId::Award(customer, number)) => {
            loaders.load_one(FindAward(customer, number)).await?.map(|row| Award(row).into())
        }
        Some(GlobalId::LedgerEntry(customer, sequence)) => {
            let entry = loaders.load_one(FindLedgerEntry(customer, sequence)).await?;
            entry.map(|row| LedgerEntry::from(row).into())
        }
        None => None,
    })
}
