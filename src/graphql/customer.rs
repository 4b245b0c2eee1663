//! Customers and their balances.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object, OneofObject, SimpleObject};

use super::award::{Award, AwardStatus};
use super::error::ApiError;
use super::id::GlobalId;
use super::ledger::LedgerEntry;
use super::loaders::{AwardsOf, FindCustomer, LedgerOf, PurchasesOf};
use super::page::Connection;
use super::progress::CampaignProgress;
use super::purchase::Purchase;
use super::scalar::{Count, DateTime, Points};
use super::session::ContextExt;
use crate::app::award::AwardFilter;
use crate::app::customer::{Current, balance, list, require_version};
use crate::app::reading::page::{Listed, PageArgs};
use crate::app::reading::points_update::Cursor;
use crate::app::reading::snapshot::{Extent, View};
use crate::app::{self, model};

/// Someone who buys, known by the shop's own id.
#[derive(Clone, Description)]
pub struct Customer {
    row: Arc<model::Customer>,
    view: Option<View>,
}

/// Of which no more than the row was read.
impl From<Arc<model::Customer>> for Customer {
    fn from(row: Arc<model::Customer>) -> Self {
        Self { row, view: None }
    }
}

impl From<Current> for Customer {
    fn from(Current { row, view }: Current) -> Self {
        Self { row, view }
    }
}

#[Object(use_type_description)]
impl Customer {
    /// Opaque; of everything, not only of customers.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Customer(self.row.external_id.clone()).into()
    }

    /// The shop's id of this customer.
    async fn external_id(&self) -> &str {
        &self.row.external_id
    }

    /// Points as they are now.
    async fn balance(&self, ctx: &Context<'_>) -> Balance {
        Balance::of(ctx, &self.row)
    }

    /// Where the customer stands in each running campaign: what a progress bar and a countdown need.
    async fn progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only in this campaign.")] campaign_id: Option<ID>,
    ) -> Result<Vec<CampaignProgress>, ApiError> {
        CampaignProgress::of(ctx, &self.row, self.view.as_ref(), campaign_id).await
    }

    /// The customer's awards, newest first.
    #[expect(clippy::too_many_arguments, reason = "the arguments that the API gives it")]
    async fn awards(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many, at most 100. Without `first` and `last`: 20.")] first: Option<i32>,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only what precedes this cursor.")] before: Option<String>,
        #[graphql(desc = "Only those with one of these statuses.")] status: Option<Vec<AwardStatus>>,
        #[graphql(desc = "Only those of this campaign.")] campaign_id: Option<ID>,
    ) -> Result<Connection<Award>, ApiError> {
        let page = model::Award::LIST.page(PageArgs { first, after, last, before })?;
        // No campaign has the key 0: an id that is none finds no award.
        let campaign = campaign_id.map(|id| GlobalId::campaign(&id).unwrap_or(model::CampaignId(0)));
        let statuses = status.map(|statuses| {
            let mut statuses: Vec<_> = statuses.into_iter().map(app::award::Status::from).collect();
            statuses.sort_unstable();
            statuses.dedup();
            statuses
        });
        let filter = AwardFilter { statuses, campaign };
        let known = self.view.as_ref().filter(|_| filter == AwardFilter::default());
        if let Some(slice) = known.and_then(|view| view.snapshot.awards(&page)) {
            return Ok(Connection::new(slice, |row| row.cursor(), Award));
        }
        let slice = ctx.loaders().load_one(AwardsOf(self.row.id, page.clone(), filter)).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, Listed::cursor, |row| Award(Arc::new(row))))
    }

    /// Every movement of the customer's points, newest first. Its edges' cursors are accepted by `pointsUpdated(after:)`.
    async fn ledger(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many, at most 100. Without `first` and `last`: 20.")] first: Option<i32>,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only what precedes this cursor.")] before: Option<String>,
    ) -> Result<Connection<LedgerEntry>, ApiError> {
        let page = app::ledger::page(PageArgs { first, after, last, before })?;
        let slice = ctx.loaders().load_one(LedgerOf(self.row.id, page.clone())).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, Listed::cursor, |row| LedgerEntry::of(self.clone(), Arc::new(row))))
    }

    /// The customer's purchases, newest first.
    async fn purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many, at most 100. Without `first` and `last`: 20.")] first: Option<i32>,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only what precedes this cursor.")] before: Option<String>,
    ) -> Result<Connection<Purchase>, ApiError> {
        let page = model::Purchase::LIST.page(PageArgs { first, after, last, before })?;
        let slice = ctx.loaders().load_one(PurchasesOf(self.row.id, page.clone())).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, Listed::cursor, |row| Purchase(Arc::new(row))))
    }
}

/// A customer's points at an instant.
#[derive(Clone, Debug, SimpleObject)]
pub struct Balance {
    /// What can be spent now. Negative when points were taken back that had been spent.
    available: Points,
    /// Awarded, but not to be spent yet.
    pending: Points,
    /// All points ever awarded, less reversals.
    lifetime: Points,
    /// The server's clock at which this holds; for countdowns.
    as_of: DateTime,
    /// Grows by one with every commit that changed anything of this customer. Pass it as `atLeastVersion` to read your own
    /// writes anywhere.
    version: Count,
    /// The ledger up to exactly this balance: pass it to `pointsUpdated(after:)`.
    cursor: String,
}

impl Balance {
    /// As of now.
    pub fn of(ctx: &Context<'_>, customer: &model::Customer) -> Self {
        let balance = balance(customer, ctx.app().clock.now());
        Self {
            available: Points(balance.available),
            pending: Points(balance.pending),
            lifetime: Points(balance.lifetime),
            as_of: balance.as_of.into(),
            version: Count(balance.version),
            cursor: Cursor::of(customer).to_text(),
        }
    }
}

/// How a customer is named.
#[derive(OneofObject)]
pub enum CustomerBy {
    /// By its `id`.
    Id(ID),
    /// By the shop's own id.
    ExternalId(String),
}

/// See [`super::Query`].
#[derive(Default)]
pub struct CustomerQuery;

#[Object]
impl CustomerQuery {
    /// The customer that the token speaks for. Never null for a customer's token: one without purchases has balance zero,
    /// version 0. Null for all others.
    async fn me(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A `Balance.version` that was seen: nothing older is answered.")] at_least_version: Option<
            Count,
        >,
    ) -> Option<Result<Customer, ApiError>> {
        let myself = match ctx.viewer().require_reader() {
            Ok(reader) => reader.myself()?.to_owned(),
            Err(error) => return Some(Err(error.into())),
        };
        find(ctx, myself, at_least_version).await.transpose()
    }

    /// A customer; null: there is no such customer, or it may not be seen.
    async fn customer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] by: CustomerBy,
        #[graphql(desc = "A `Balance.version` that was seen: nothing older is answered.")] at_least_version: Option<
            Count,
        >,
    ) -> Option<Result<Customer, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let name = match by {
            CustomerBy::ExternalId(external_id) => external_id,
            CustomerBy::Id(id) => match GlobalId::parse(&id)? {
                GlobalId::Customer(external_id) => external_id,
                _ => return None,
            },
        };
        find(ctx, name, at_least_version).await.transpose()
    }

    /// All customers, the latest to be heard of first. For storefronts and admins.
    async fn customers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first so many, at most 100. Without `first` and `last`: 20.")] first: Option<i32>,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
        #[graphql(desc = "The last so many, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Only what precedes this cursor.")] before: Option<String>,
        #[graphql(desc = "Only those whose external id begins so.")] external_id_prefix: Option<String>,
    ) -> Result<Connection<Customer>, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        let page = model::Customer::LIST.page(PageArgs { first, after, last, before })?;
        let slice = list(ctx.app(), &shop, &page, external_id_prefix.as_deref()).await?;
        Ok(Connection::new(slice, Listed::cursor, |row| Arc::new(row).into()))
    }
}

/// What a field that answers a customer is asked for. Balances and awards are told without a look at purchases.
pub(super) fn extent(ctx: &Context<'_>) -> Extent {
    if ctx.look_ahead().field("progress").exists() { Extent::Progress } else { Extent::Balance }
}

async fn find(
    ctx: &Context<'_>,
    external_id: String,
    at_least_version: Option<Count>,
) -> Result<Option<Customer>, ApiError> {
    let at_least = at_least_version.map(|version| version.0);
    let Some(current) = ctx.loaders().load_one(FindCustomer(external_id, at_least, extent(ctx))).await? else {
        return Ok(None);
    };
    require_version(&current.row, at_least)?;
    Ok(Some(current.into()))
}
