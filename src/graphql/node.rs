//! Everything that has an id of its own: Relay's nodes.

use async_graphql::futures_util::future::try_join_all;
use async_graphql::{Context, ID, Interface, Object};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::ContextExt;
use super::award::Award;
use super::campaign::Campaign;
use super::customer::{Customer, extent};
use super::error::ApiError;
use super::ledger::LedgerEntry;
use super::loaders::{FindAward, FindCampaign, FindCustomer, FindLedgerEntry, FindPurchase};
use super::purchase::Purchase;
use crate::app::error::Error;
use crate::app::model::{CampaignId, CustomerId};

/// The most ids of one `nodes`.
const MAX_IDS: usize = 100;

/// What an id stands for. Opaque to clients. A customer's is made of its external id, so that one that was never heard
/// of has an id too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GlobalId {
    /// By external id.
    Customer(String),
    /// By external id.
    Purchase(String),
    /// By key.
    Campaign(CampaignId),
    /// By customer and number.
    Award(CustomerId, i64),
    /// By customer and sequence.
    LedgerEntry(CustomerId, i64),
}

impl GlobalId {
    /// Reads what [`ID::from`] wrote.
    pub(super) fn parse(id: &ID) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(id.as_str()).ok()?).ok()?;
        let (kind, rest) = text.split_once(':')?;
        let pair = || {
            let (customer, number) = rest.split_once(':')?;
            Some((CustomerId(customer.parse().ok()?), number.parse().ok()?))
        };
        let name = (!rest.is_empty() && !rest.contains('\0')).then(|| rest.to_owned());
        match kind {
            "Customer" => name.map(Self::Customer),
            "Purchase" => name.map(Self::Purchase),
            "Campaign" => rest.parse().ok().map(|id| Self::Campaign(CampaignId(id))),
            "Award" => pair().map(|(customer, number)| Self::Award(customer, number)),
            "LedgerEntry" => pair().map(|(customer, sequence)| Self::LedgerEntry(customer, sequence)),
            _ => None,
        }
    }

    /// The campaign that the id stands for.
    pub(in crate::graphql) fn campaign(id: &ID) -> Option<CampaignId> {
        match Self::parse(id) {
            Some(Self::Campaign(id)) => Some(id),
            _ => None,
        }
    }
}

impl From<GlobalId> for ID {
    fn from(id: GlobalId) -> Self {
        let text = match id {
            GlobalId::Customer(external_id) => format!("Customer:{external_id}"),
            GlobalId::Purchase(external_id) => format!("Purchase:{external_id}"),
            GlobalId::Campaign(CampaignId(id)) => format!("Campaign:{id}"),
            GlobalId::Award(CustomerId(customer), number) => format!("Award:{customer}:{number}"),
            GlobalId::LedgerEntry(CustomerId(customer), sequence) => format!("LedgerEntry:{customer}:{sequence}"),
        };
        Self(URL_SAFE_NO_PAD.encode(text))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        for id in [
            GlobalId::Customer("a:b".to_owned()),
            GlobalId::Purchase("ü".to_owned()),
            GlobalId::Campaign(CampaignId(7)),
            GlobalId::Award(CustomerId(1), 2),
            GlobalId::LedgerEntry(CustomerId(3), 4),
        ] {
            assert_eq!(GlobalId::parse(&ID::from(id.clone())), Some(id));
        }
        for text in ["", "Customer", "Customer:", "Nothing:1", "Campaign:x", "Award:1", "Customer:a\0"] {
            assert_eq!(GlobalId::parse(&ID(URL_SAFE_NO_PAD.encode(text))), None, "{text}");
        }
        assert_eq!(GlobalId::parse(&ID("not base64!".to_owned())), None);
    }
}
