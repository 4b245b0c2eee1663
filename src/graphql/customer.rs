//! Customers and their balances.

use std::sync::Arc;

use async_graphql::{Context, Description, ID, Object, OneofObject, SimpleObject};

use super::award::{Award, AwardStatus};
use super::error::ApiError;
use super::ledger::LedgerEntry;
use super::loaders::{AwardsOf, FindCustomer, LedgerOf, PurchasesOf, RedemptionsOf, ViewOf};
use super::page::Connection;
use super::progress::CampaignProgress;
use super::purchase_revision::{PurchaseConnection, edge};
use super::redemption::{Redemption, RedemptionState};
use super::scalar::{AsOf, Count, DateTime, Duration, Points};
use super::session::ContextExt;
use crate::app::award::AwardFilter;
use crate::app::cursor::Cursor;
use crate::app::customer::{Current, list, require_version};
use crate::app::error::Error;
use crate::app::global_id::GlobalId;
use crate::app::reading::page::{Listed, PageArgs};
use crate::app::reading::snapshot::{Extent, Snapshot, View};
use crate::app::{self, model};
use crate::engine::external_id::ExternalId;
use crate::engine::time::{Instant, IsoDuration};

/// A customer of the shop. A customer exists from its first accepted purchase or adjustment.
#[derive(Clone, Description)]
pub struct Customer {
    row: Arc<model::Customer>,
    view: Option<View>,
}

/// A customer of whom only the row was read: progress and awards are loaded when they are selected.
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
    /// An opaque id, unique across all types.
    pub(super) async fn id(&self) -> ID {
        GlobalId::Customer(ExternalId::stored(&self.row.external_id)).into()
    }

    /// The shop's id of the customer, unique among customers.
    async fn external_id(&self) -> &str {
        &self.row.external_id
    }

    /// The balance of the customer's points, with its version and its cursor.
    async fn balance(&self, ctx: &Context<'_>) -> Result<Balance, ApiError> {
        Balance::of(ctx, &self.row, self.view.as_ref()).await
    }

    /// Where the customer stands at the current instant in each `ACTIVE` or `PAUSED` campaign, the most recently
    /// created campaign first. This is what a progress bar and a countdown need.
    async fn progress(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Return only this campaign, or nothing if it is not running.")] campaign_id: Option<ID>,
    ) -> Result<Vec<CampaignProgress>, ApiError> {
        CampaignProgress::load(ctx, &self.row, self.view.as_ref(), campaign_id).await
    }

    /// The customer's awards of every status, unless filtered. The latest `earnedAt` is first.
    #[expect(clippy::too_many_arguments, reason = "the API defines these arguments")]
    async fn awards(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
        #[graphql(desc = "Only awards with one of these statuses.")] status: Option<Vec<AwardStatus>>,
        #[graphql(desc = "Only awards of this campaign.")] campaign_id: Option<ID>,
    ) -> Result<Connection<Award>, ApiError> {
        let page = model::Award::LIST.page(PageArgs { first, after, last, before })?;
        // No campaign has the key 0, so an id that names no campaign finds no award.
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

    /// Every movement of the customer's points, the highest `sequence` first. `pointsUpdated(after:)` accepts the
    /// cursors of this list.
    async fn ledger(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<Connection<LedgerEntry>, ApiError> {
        let page = app::ledger::page(PageArgs { first, after, last, before })?;
        let slice = ctx.loaders().load_one(LedgerOf(self.row.id, self.row.ledger_sequence, page.clone())).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, Listed::cursor, |row| LedgerEntry::of(self.clone(), Arc::new(row))))
    }

    /// The customer's redemptions and reservations, the most recently made first.
    async fn redemptions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
        #[graphql(desc = "Only those in one of these states.")] state: Option<Vec<RedemptionState>>,
    ) -> Result<Connection<Redemption>, ApiError> {
        let page = model::Redemption::LIST.page(PageArgs { first, after, last, before })?;
        let states = state.map(|states| {
            let mut states: Vec<_> = states.into_iter().map(app::redemption::State::from).collect();
            states.sort_unstable();
            states.dedup();
            states
        });
        let slice = ctx.loaders().load_one(RedemptionsOf(self.row.id, page.clone(), states)).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(Connection::new(slice, Listed::cursor, |row| Redemption(Arc::new(row))))
    }

    /// The customer's recorded purchases, the latest `purchasedAt` first.
    async fn purchases(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
    ) -> Result<PurchaseConnection, ApiError> {
        let page = model::Purchase::LIST.page(PageArgs { first, after, last, before })?;
        let slice = ctx.loaders().load_one(PurchasesOf(self.row.id, page.clone())).await?;
        let slice = slice.unwrap_or_else(|| page.cut(Vec::new()));
        Ok(PurchaseConnection::with_edges(slice, edge))
    }
}

/// A customer's points at an instant. `available + pending + reserved` is the sum of the ledger, less points that have expired and
/// whose `EXPIRY` entry is not posted yet.
#[derive(Clone, Debug, Description)]
pub struct Balance {
    balance: app::customer::Balance,
    cursor: Cursor,
    /// The snapshot that the balance was computed from. `None` if all points are available and none expire.
    snapshot: Option<Arc<Snapshot>>,
}

#[Object(use_type_description)]
impl Balance {
    /// The points that can be spent now. Negative while a deficit is open: reversals and adjustments took more than was there. The next
    /// points that become available pay it off.
    async fn available(&self) -> Points {
        Points(self.balance.available)
    }

    /// The points that were awarded but cannot be spent yet, because the campaign holds them back (`holdFor`).
    async fn pending(&self) -> Points {
        Points(self.balance.pending)
    }

    /// The points that are set aside by reservations.
    async fn reserved(&self) -> Points {
        Points(self.balance.reserved)
    }

    /// The available points that expire first, and when they do. Null if none of the available points expire.
    async fn expiring_next(&self) -> Option<PointsAt> {
        self.balance.expiring_next.map(PointsAt::from)
    }

    /// The pending points that become available first, and when they do. Null if no points are pending.
    async fn maturing_next(&self) -> Option<PointsAt> {
        self.balance.maturing_next.map(PointsAt::from)
    }

    /// The available points that expire by then.
    async fn expiring(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "From `asOf` on, such as `P30D`; at most `P3660D`.")] within: Duration,
    ) -> Result<Points, ApiError> {
        let span =
            IsoDuration::parse(&within.0).ok().filter(|span| (1..=IsoDuration::MAX_MICROS).contains(&span.micros()));
        let too_long = || Error::BadUserInput("within: must be a span above zero and at most P3660D".to_owned());
        let span = span.ok_or_else(too_long)?;
        let Some(snapshot) = &self.snapshot else { return Ok(Points(0)) };
        // The clock changes this from one instant to the next.
        ctx.reads().note_other();
        let as_of = self.balance.as_of;
        // Boxed, so that the futures of the other fields stay small.
        let expiring = app::customer::expiring(ctx.app(), snapshot, as_of, as_of.plus(span.micros()));
        let expiring = Box::pin(expiring).await?;
        Ok(Points(expiring.ok_or(Error::Unavailable)?))
    }

    /// All points ever awarded, less reversals: the points of all `STANDING` awards. Adjustments are not included, and neither is what
    /// expired or was spent.
    async fn lifetime(&self) -> Points {
        Points(self.balance.lifetime)
    }

    /// The instant at which the balance holds, by the server's clock. Countdowns can use it as the current time. Of two balances of a
    /// customer with the same `version`, the later one is newer.
    async fn as_of(&self) -> AsOf {
        AsOf(self.balance.as_of)
    }

    /// The version of the customer. It grows by one with each commit that changes anything of the customer: purchases,
    /// refunds, awards, entries or progress. To read your own writes, pass the version of the mutation's response as
    /// `atLeastVersion`.
    async fn version(&self) -> Count {
        Count(self.balance.version)
    }

    /// An opaque cursor that stands for exactly this balance. Pass it as `pointsUpdated(after:)` to receive what
    /// follows.
    async fn cursor(&self) -> String {
        self.cursor.to_text()
    }
}

impl Balance {
    /// The balance at the current time, of this row or of a newer one.
    pub async fn of(ctx: &Context<'_>, row: &model::Customer, view: Option<&View>) -> Result<Self, ApiError> {
        if let Some(view) = view {
            return Ok(Self::of_snapshot(ctx, &view.snapshot));
        }
        if row.due_at.is_none() {
            let balance = app::customer::Balance::of_pool(row, ctx.now());
            return Ok(Self { balance, cursor: Cursor::of(row), snapshot: None });
        }
        let view = Box::pin(ctx.loaders().load_one(ViewOf(row.external_id.clone(), row.version))).await?;
        let view = view.ok_or(Error::Unavailable)?;
        Ok(Self::of_snapshot(ctx, &view.snapshot))
    }

    fn of_snapshot(ctx: &Context<'_>, snapshot: &Arc<Snapshot>) -> Self {
        let balance = app::customer::Balance::of_snapshot(snapshot, ctx.now());
        let cursor = Cursor::of(&snapshot.customer);
        Self { balance, cursor, snapshot: snapshot.points.is_some().then(|| Arc::clone(snapshot)) }
    }
}

/// A number of points and an instant.
#[derive(Clone, Debug, SimpleObject)]
pub struct PointsAt {
    /// How many points.
    points: Points,
    /// When something happens to them.
    at: DateTime,
}

impl From<(Instant, i64)> for PointsAt {
    fn from((at, points): (Instant, i64)) -> Self {
        Self { points: Points(points), at: at.into() }
    }
}

/// Identifies a customer, by exactly one of these.
#[derive(OneofObject)]
pub enum CustomerBy {
    /// The opaque `id` of the customer.
    Id(ID),
    /// The shop's id of the customer.
    ExternalId(String),
}

/// The part of [`super::Query`] that reads customers.
#[derive(Default)]
pub struct CustomerQuery;

#[Object]
impl CustomerQuery {
    /// The customer that the token belongs to. Never null for the token of a customer: a customer of whom nothing is
    /// recorded has a balance of 0 and the version 0. Null for the token of a storefront or admin.
    async fn me(
        &self,
        ctx: &Context<'_>,
        #[graphql(
            desc = "A `Balance.version` that the caller has seen. The result is not older. If the customer has no such \
            version, the error is `BAD_USER_INPUT`."
        )]
        at_least_version: Option<Count>,
    ) -> Option<Result<Customer, ApiError>> {
        let myself = match ctx.viewer().require_reader() {
            Ok(reader) => reader.myself()?.to_owned(),
            Err(error) => return Some(Err(error.into())),
        };
        find(ctx, myself, at_least_version).await.transpose()
    }

    /// A customer. Null if nothing is recorded of the customer or the caller may not see it. The token of a customer
    /// always finds its own customer.
    async fn customer(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The customer to read.")] by: CustomerBy,
        #[graphql(
            desc = "A `Balance.version` that the caller has seen. The result is not older. If the customer has no such \
            version, the error is `BAD_USER_INPUT`."
        )]
        at_least_version: Option<Count>,
    ) -> Option<Result<Customer, ApiError>> {
        if let Err(error) = ctx.viewer().require_reader() {
            return Some(Err(error.into()));
        }
        let name = match by {
            CustomerBy::ExternalId(external_id) => ExternalId::parse(external_id).ok()?,
            CustomerBy::Id(id) => match GlobalId::parse(&id)? {
                GlobalId::Customer(external_id) => external_id,
                _ => return None,
            },
        };
        find(ctx, name.into(), at_least_version).await.transpose()
    }

    /// All customers, the most recently recorded first. Requires a storefront or admin token (`FORBIDDEN`).
    async fn customers(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The first n items, 0 to 100. The default is 20 if `last` is absent.")] first: Option<i32>,
        #[graphql(desc = "Only items that follow this cursor in the list.")] after: Option<String>,
        #[graphql(desc = "The last n items, 0 to 100. It cannot be combined with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only items that precede this cursor in the list.")] before: Option<String>,
        #[graphql(desc = "Only customers whose external id begins with this text.")] external_id_prefix: Option<String>,
    ) -> Result<Connection<Customer>, ApiError> {
        let shop = ctx.viewer().require_shop()?;
        let page = model::Customer::LIST.page(PageArgs { first, after, last, before })?;
        let slice = list(ctx.app(), &shop, &page, external_id_prefix.as_deref()).await?;
        Ok(Connection::new(slice, Listed::cursor, |row| Arc::new(row).into()))
    }
}

/// How much of a customer the current field must load. Only progress may require purchases; balances and awards do not.
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
