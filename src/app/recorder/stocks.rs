//! The stock of the rewards that a batch touches. Its rows are locked last, in the order of the ids of rewards, after budgets.
//!
//! The units of a reservation that is over are free at its end, without the lock of its customer. So the units that such reservations
//! hold are counted under the lock of the stock, and do not count for whoever redeems now.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use entity::{RedemptionState, RewardId, redemption, reward, reward_code, stock};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DatabaseBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::act::Act;
use super::fact::StepKind;
use super::purses::{Opened, Purses};
use super::touched::{Batch, Customers, lock_in_order};
use crate::app::error::Error;
use crate::app::rows::any;
use crate::app::stored::reward as rewards;
use crate::engine::reward::{Offer, Units};
use crate::engine::time::Instant;

/// The rewards that a batch touches.
pub(super) struct Stocks {
    rewards: HashMap<RewardId, reward::Model>,
    rows: BTreeMap<RewardId, stock::Model>,
    /// The units of reservations that were over at `over_at` and are still counted in the rows.
    over: HashMap<RewardId, i64>,
    over_at: Instant,
    codes: HashMap<RewardId, VecDeque<reward_code::Model>>,
    changed: BTreeSet<RewardId>,
    given: Vec<reward_code::Model>,
}

/// Locks and reads the stock. Returns `None` if the batch must be repeated, because a reward has changed since the batch read it, or a
/// reservation that the batch commits has ended since.
pub(super) async fn lock(batch: &Batch<'_>, customers: &Customers, purses: &Purses) -> Result<Option<Stocks>, Error> {
    let touched: BTreeSet<RewardId> = purses.values().flat_map(Opened::touched_rewards).collect();
    if touched.is_empty() {
        return Ok(Some(Stocks::none()));
    }
    let ids = || touched.iter().map(|id| id.0);
    let stocks = || stock::Entity::find().filter(any(batch.backend(), stock::Column::RewardId, ids()));
    lock_in_order(batch, stocks(), stock::Column::RewardId).await?;
    if is_too_late(batch, customers, purses).await? {
        return Ok(None);
    }
    let rows = stocks().all(batch.tx).await?;
    let named = any(batch.backend(), reward::Column::Id, ids());
    let found = reward::Entity::find().filter(named).all(batch.tx).await?;
    let found: HashMap<RewardId, reward::Model> = found.into_iter().map(|row| (row.id, row)).collect();
    let same =
        |(id, known): (&RewardId, &reward::Model)| found.get(id).is_some_and(|now| now.revision == known.revision);
    if !purses.values().flat_map(|opened| &opened.rewards).all(same) {
        return Ok(None);
    }
    Ok(Some(Stocks {
        over: load_over(batch, &touched).await?,
        over_at: batch.now,
        codes: load_codes(batch, customers, purses).await?,
        rows: rows.into_iter().map(|row| (row.reward_id, row)).collect(),
        rewards: found,
        ..Stocks::none()
    }))
}

/// Whether a reservation that the batch commits has ended while the batch waited for the lock. Its units may be given to somebody else
/// by then. SQLite has one writer, so nobody can have taken them.
async fn is_too_late(batch: &Batch<'_>, customers: &Customers, purses: &Purses) -> Result<bool, Error> {
    let commits = customers.iter().flat_map(|(name, customer)| customer.acts.iter().map(move |(_, act)| (name, act)));
    let until = commits.filter_map(|(name, act)| match act {
        Act::Step(step) if step.kind == StepKind::Commit => {
            let row = purses.get(name)?.redemptions.get(&step.number)?;
            row.reserved_until.filter(|until| row.state == RedemptionState::Reserved && *until > batch.now.0)
        }
        _ => None,
    });
    let Some(first) = until.min().filter(|_| batch.backend() == DatabaseBackend::Postgres) else { return Ok(false) };
    Ok(batch.clock.ask(batch.tx).await?.0 >= first)
}

/// Counts the units of the reservations that are over and that no write has ended.
async fn load_over(batch: &Batch<'_>, touched: &BTreeSet<RewardId>) -> Result<HashMap<RewardId, i64>, Error> {
    use redemption::Column::{Quantity, ReservedUntil, RewardId as OfReward, State};
    let over: Vec<(RewardId, i64)> = redemption::Entity::find()
        .select_only()
        .column(OfReward)
        .column_as(Expr::cust("CAST(SUM(quantity) AS bigint)"), Quantity)
        .filter(any(batch.backend(), OfReward, touched.iter().map(|id| id.0)))
        .filter(State.eq(RedemptionState::Reserved))
        .filter(ReservedUntil.lte(batch.now.0))
        .group_by(OfReward)
        .into_tuple()
        .all(batch.tx)
        .await?;
    Ok(over.into_iter().collect())
}

/// Loads as many unused codes of each reward as the batch may give.
async fn load_codes(
    batch: &Batch<'_>,
    customers: &Customers,
    purses: &Purses,
) -> Result<HashMap<RewardId, VecDeque<reward_code::Model>>, Error> {
    let mut wanted: BTreeMap<RewardId, i64> = BTreeMap::new();
    for (name, customer) in customers {
        for (_, act) in &customer.acts {
            let named = |number| purses.get(name).and_then(|opened| opened.redemptions.get(&number));
            match act {
                Act::Redeem(redeem) if redeem.reserve_for.is_none() => {
                    *wanted.entry(redeem.reward).or_default() += redeem.quantity;
                }
                Act::Step(step) if step.kind == StepKind::Commit => {
                    if let Some(row) = named(step.number) {
                        *wanted.entry(row.reward_id).or_default() += row.quantity;
                    }
                }
                _ => {}
            }
        }
    }
    let mut codes = HashMap::new();
    for (id, quantity) in wanted {
        use reward_code::Column::{CustomerId, Position, RewardId};
        let unused = reward_code::Entity::find()
            .filter(RewardId.eq(id))
            .filter(CustomerId.is_null())
            .order_by_asc(Position)
            .limit(u64::try_from(quantity).unwrap_or_default())
            .all(batch.tx)
            .await?;
        codes.insert(id, VecDeque::from(unused));
    }
    Ok(codes)
}

impl Stocks {
    /// The stocks of a batch that touches no reward.
    fn none() -> Self {
        Self {
            rewards: HashMap::new(),
            rows: BTreeMap::new(),
            over: HashMap::new(),
            over_at: Instant::NEVER,
            codes: HashMap::new(),
            changed: BTreeSet::new(),
            given: Vec::new(),
        }
    }

    pub(super) fn reward(&self, id: RewardId) -> Option<&reward::Model> {
        self.rewards.get(&id)
    }

    pub(super) fn offer(&self, id: RewardId) -> Option<Offer> {
        self.reward(id).map(rewards::offer)
    }

    /// Returns the units of the reward at the instant of the batch.
    pub(super) fn units(&self, id: RewardId) -> Units {
        let units = self.rows.get(&id).map(rewards::units).unwrap_or_default();
        Units { reserved: units.reserved - self.over.get(&id).copied().unwrap_or_default(), ..units }
    }

    /// Counts units that are redeemed and reserved, or fewer of them.
    pub(super) fn count(&mut self, id: RewardId, redeemed: i64, reserved: i64) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.redeemed += redeemed;
        row.reserved += reserved;
        self.changed.insert(id);
    }

    /// Ends a reservation: its units are free.
    pub(super) fn end(&mut self, redemption: &redemption::Model) {
        self.count(redemption.reward_id, 0, -redemption.quantity);
        if redemption.reserved_until.is_some_and(|until| until <= self.over_at.0) {
            *self.over.entry(redemption.reward_id).or_default() -= redemption.quantity;
        }
    }

    /// Gives the next codes to a redemption. Returns whether it gave any: a reward without codes gives none.
    pub(super) fn give_codes(&mut self, redemption: &redemption::Model) -> bool {
        let before = self.given.len();
        let Some(codes) = self.codes.get_mut(&redemption.reward_id) else { return false };
        for _ in 0..redemption.quantity {
            let Some(code) = codes.pop_front() else { break };
            if let Some(row) = self.rows.get_mut(&redemption.reward_id) {
                row.codes_unused -= 1;
                row.codes_given += 1;
            }
            self.given.push(reward_code::Model {
                customer_id: Some(redemption.customer_id.0),
                redemption_number: Some(redemption.number),
                ..code
            });
        }
        self.given.len() > before
    }

    /// Returns the rows that changed.
    pub(super) fn into_changed(self) -> (Vec<stock::Model>, Vec<reward_code::Model>) {
        let Self { rows, changed, given, .. } = self;
        (rows.into_values().filter(|row| changed.contains(&row.reward_id)).collect(), given)
    }
}
