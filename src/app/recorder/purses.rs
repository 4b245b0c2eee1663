//! Opens the purses of the customers that a batch changes: loads the lots that the batch can touch, and lets the time pass to the
//! instant of the commit. This module only reads. The number of its statements does not depend on the batch.
//!
//! A customer whose points are all in the pool needs no statement.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use entity::{CustomerId, LedgerEntryKind, RedemptionState, RewardId, ledger_entry, lot, redemption, reward};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, FromQueryResult as _, QueryFilter, QueryResult, QuerySelect};

use super::act::Act;
use super::evaluation::Evaluated;
use super::fact::NewRedemption;
use super::touched::{Batch, Customers, Touched};
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, any, join};
use crate::app::stored::lot::{self as lots, Search};
use crate::app::stored::redemption::{self as redemptions, Takings};
use crate::app::stored::running::Held;
use crate::engine::dates::Dates;
use crate::engine::lot::{Lot, LotKey, Place};
use crate::engine::purse::{Passed, Purse, Sums};
use crate::engine::time::Instant;

/// The maximum number of due lots that a commit processes together with other changes. If more are due, they are processed first, in
/// commits of their own.
const MAX_DUE: usize = 500;
/// The number of lots that are loaded first for a customer that spends points. It doubles until they are enough.
const FIRST_SPENT: usize = 16;

/// The purse of a customer while a batch changes it.
pub(super) struct Opened {
    pub(super) purse: Purse,
    /// What the clock did since the last commit.
    pub(super) passed: Passed,
    /// The lots that were loaded, as they are stored.
    stored: BTreeMap<LotKey, Lot>,
    /// No lot that was not loaded changes before this instant, and no reservation ends.
    unloaded_due_at: Option<Instant>,
    /// It is known what the points of the pool were spent on.
    is_held: bool,
    /// The redemptions that the batch can change, by number.
    pub(super) redemptions: BTreeMap<i64, redemption::Model>,
    /// What they took.
    pub(super) takings: Takings,
    /// The numbers of those that got codes.
    pub(super) with_codes: BTreeSet<i64>,
    /// The number of the last redemption.
    pub(super) last_redemption: i64,
    /// How many units the customer has redeemed or reserved of the rewards that it redeems now.
    pub(super) units: HashMap<RewardId, i64>,
    /// The rewards that the customer redeems now, as they were before their stock was locked.
    pub(super) rewards: HashMap<RewardId, reward::Model>,
    /// The instant to which the time passes. It is that of the commit, unless the commit only posts a part of what is due.
    to: Instant,
}

/// The purses by external id.
pub(super) type Purses = HashMap<String, Opened>;

/// The result of opening purses.
pub(super) enum Opening {
    Done(Purses),
    /// More than [`MAX_DUE`] lots of this customer are due.
    TooManyDue(String),
}

impl Opened {
    /// A purse without lots.
    pub(super) fn of(customer: &Touched) -> Self {
        let (sums, last) = match customer.running.held {
            None => (Sums::default(), customer.now),
            Some(held) => (held.sums(), held.at),
        };
        let unloaded_due_at = customer.row.due_at.map(Instant);
        let is_held = customer.running.held.is_some();
        let purse = Purse::new(customer.row.balance, sums, last);
        Self { unloaded_due_at, is_held, ..Self::with(purse, customer.now) }
    }

    fn with(purse: Purse, to: Instant) -> Self {
        Self {
            purse,
            passed: Passed::default(),
            stored: BTreeMap::new(),
            unloaded_due_at: None,
            is_held: true,
            redemptions: BTreeMap::new(),
            takings: Takings::new(),
            with_codes: BTreeSet::new(),
            last_redemption: 0,
            units: HashMap::new(),
            rewards: HashMap::new(),
            to,
        }
    }

    /// Replaces the purse by one that was computed from the ledger, of a customer with these stored lots.
    pub(super) fn replace(self, mut purse: Purse, stored: &[lot::Model]) -> Self {
        let passed = purse.advance(self.to);
        let stored = stored.iter().map(|row| (lots::key(row), lots::parts(row))).collect();
        Self { purse, passed, stored, unloaded_due_at: None, is_held: true, ..self }
    }

    fn add(&mut self, row: &lot::Model) {
        let (key, parts) = (lots::key(row), lots::parts(row));
        self.stored.insert(key, parts);
        self.purse.add_lot(key, parts);
    }

    fn is_due(&self, now: Instant) -> bool {
        self.unloaded_due_at.is_some_and(|at| at <= now)
    }

    /// Whether anything of the points of the customer changed since they were loaded.
    pub(super) fn has_changed(&self, customer: &Touched) -> bool {
        self.changed(customer.row.id).next().is_some()
            || !self.gone().is_empty()
            || self.due_at() != customer.row.due_at
    }

    fn due_at(&self) -> Option<i64> {
        [self.unloaded_due_at, self.purse.next_change()].into_iter().flatten().min().map(|at| at.0)
    }

    /// Returns the rewards whose stock the batch may change.
    pub(super) fn touched_rewards(&self) -> impl Iterator<Item = RewardId> {
        self.rewards.keys().copied().chain(self.redemptions.values().map(|row| row.reward_id))
    }

    /// Returns the lots that must be stored.
    pub(super) fn changed(&self, customer: CustomerId) -> impl Iterator<Item = lot::Model> {
        let is_new = |(key, lot): &(LotKey, Lot)| !lot.is_empty() && self.stored.get(key) != Some(lot);
        self.purse.lots().filter(is_new).map(move |(key, lot)| lots::to_row(customer, key, lot))
    }

    /// Returns the keys of the lots that must be deleted.
    pub(super) fn gone(&self) -> Vec<LotKey> {
        let kept: BTreeMap<LotKey, Lot> = self.purse.lots().filter(|(_, lot)| !lot.is_empty()).collect();
        self.stored.keys().filter(|key| !kept.contains_key(key)).copied().collect()
    }

    /// Stores the sums in the running states and the row of the customer.
    pub(super) fn keep(&self, customer: &mut Touched) {
        let due_at = self.due_at();
        customer.due_changed = customer.row.due_at != due_at;
        customer.row.due_at = due_at;
        if self.is_held {
            customer.running.held = Some(Held::of(self.purse.sums(), self.purse.now()));
        }
    }
}

/// Opens the purses of the customers that the batch evaluates. Those of customers under repair have no lots: they are replaced.
pub(super) async fn open(batch: &Batch<'_>, customers: &Customers, evaluated: &[Evaluated]) -> Result<Opening, Error> {
    let changing = customers.iter().filter(|(_, customer)| customer.is_evaluated() || customer.posts_due);
    let mut purses: Purses = changing.map(|(name, customer)| (name.clone(), Opened::of(customer))).collect();
    load_redemptions(batch, customers, &mut purses).await?;
    if let Some(name) = load_due(batch, customers, &mut purses).await? {
        return Ok(Opening::TooManyDue(name));
    }
    load_touched(batch, customers, evaluated, &mut purses).await?;
    for (_, opened) in purses.iter_mut().filter(|(name, _)| sound(customers, name).is_some()) {
        opened.passed = opened.purse.advance(opened.to);
    }
    load_spent(batch, customers, evaluated, &mut purses).await?;
    Ok(Opening::Done(purses))
}

/// Returns the customer if its stored points can be relied on.
fn sound<'a>(customers: &'a Customers, name: &str) -> Option<&'a Touched> {
    customers.get(name).filter(|customer| customer.repair.is_none())
}

/// Loads the redemptions that acts change, the reservations of customers of whom something is due, and what acts on rewards need.
async fn load_redemptions(batch: &Batch<'_>, customers: &Customers, purses: &mut Purses) -> Result<(), Error> {
    let mut names: HashMap<CustomerId, &str> = HashMap::new();
    let (mut stepped, mut due, mut redeeming) = (Vec::new(), Vec::new(), Vec::new());
    for (name, customer) in customers {
        let Some(opened) = purses.get(name) else { continue };
        let id = customer.row.id;
        names.insert(id, name);
        for (_, act) in &customer.acts {
            match act {
                Act::Step(step) => stepped.push((id, step.number)),
                Act::Redeem(redeem) => redeeming.push((id, redeem.reward)),
                Act::Adjust(_) => {}
            }
        }
        let has_reserved = customer.running.held.is_some_and(|held| held.reserved > 0);
        let needs_all = customer.repair.is_some() || customer.erased_as.is_some();
        let is_due = needs_all || (has_reserved && opened.is_due(customer.now));
        due.extend(is_due.then_some(id));
    }
    stepped.sort_unstable();
    stepped.dedup();
    let mut found = redemptions::load(batch.tx, stepped).await?;
    found.extend(redemptions::load_reserved(batch.tx, due).await?);
    found.sort_by_key(|row| (row.customer_id, row.number));
    found.dedup_by_key(|row| (row.customer_id, row.number));
    let of_found = || found.iter().map(|row| (row.customer_id, row.number));
    let takings = redemptions::load_takings(batch.tx, of_found()).await?;
    for name in load_given(batch, &found).await? {
        if let Some(opened) = names.get(&name.0).and_then(|of| purses.get_mut(*of)) {
            opened.with_codes.insert(name.1);
        }
    }
    for row in found {
        let Some(opened) = names.get(&row.customer_id).and_then(|name| purses.get_mut(*name)) else { continue };
        let name = (row.customer_id, row.number);
        if row.state == RedemptionState::Reserved
            && let Some(reservation) = redemptions::reservation(&row, &takings)
        {
            opened.purse.add_reservation(reservation);
        }
        opened.takings.extend(takings.get(&name).cloned().map(|taken| (name, taken)));
        opened.redemptions.insert(row.number, row);
    }
    load_rewards(batch, customers, purses, redeeming).await
}

/// Returns which of these redemptions got codes.
async fn load_given(batch: &Batch<'_>, rows: &[redemption::Model]) -> Result<Vec<(CustomerId, i64)>, Error> {
    let redeemed = rows.iter().filter(|row| row.state == RedemptionState::Redeemed);
    let mut named = Rows::new(batch.backend(), &[("customer_id", Kind::Int), ("number", Kind::Int)]);
    redeemed.for_each(|row| named.push(vec![row.customer_id.0.into(), row.number.into()]));
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let on = "t.customer_id = r.customer_id AND t.redemption_number = r.number";
    let what = "DISTINCT r.customer_id, r.number";
    let found = join(batch.tx, what, "reward_code", named, on, "").await?;
    let name = |row: &QueryResult| Ok((CustomerId(row.try_get("", "customer_id")?), row.try_get("", "number")?));
    Ok(found.iter().map(name).collect::<Result<_, DbErr>>()?)
}

/// Loads the rewards that customers redeem, how many units they have of them, and the numbers of their last redemptions.
async fn load_rewards(
    batch: &Batch<'_>,
    customers: &Customers,
    purses: &mut Purses,
    redeeming: Vec<(CustomerId, RewardId)>,
) -> Result<(), Error> {
    if redeeming.is_empty() {
        return Ok(());
    }
    let ids = redeeming.iter().map(|(_, reward)| reward.0);
    let found = reward::Entity::find().filter(any(batch.backend(), reward::Column::Id, ids)).all(batch.tx).await?;
    let found: HashMap<RewardId, reward::Model> = found.into_iter().map(|row| (row.id, row)).collect();
    let who = || any(batch.backend(), redemption::Column::CustomerId, redeeming.iter().map(|(customer, _)| customer.0));
    let last: Vec<(CustomerId, i64)> = redemption::Entity::find()
        .select_only()
        .column(redemption::Column::CustomerId)
        .column_as(redemption::Column::Number.max(), "number")
        .filter(who())
        .group_by(redemption::Column::CustomerId)
        .into_tuple()
        .all(batch.tx)
        .await?;
    let last: HashMap<CustomerId, i64> = last.into_iter().collect();
    let mut rows = Rows::new(batch.backend(), &[("customer_id", Kind::Int), ("reward_id", Kind::Int)]);
    redeeming.iter().for_each(|(customer, reward)| rows.push(vec![customer.0.into(), reward.0.into()]));
    let on = "t.customer_id = r.customer_id AND t.reward_id = r.reward_id AND t.state IN ('redeemed', 'reserved')";
    let has = join(batch.tx, "t.*", "redemption", rows, on, "").await?;
    let has = has.iter().map(|row| redemption::Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::new();
    for (name, customer) in customers {
        let id = customer.row.id;
        let Some(opened) = purses.get_mut(name) else { continue };
        for (_, wanted) in redeeming.iter().filter(|(redeeming, _)| *redeeming == id) {
            opened.rewards.extend(found.get(wanted).cloned().map(|row| (*wanted, row)));
        }
        opened.last_redemption = last.get(&id).copied().unwrap_or_default();
        for row in has.iter().filter(|row| row.customer_id == id && seen.insert((row.customer_id, row.number))) {
            let stands = redemptions::state_at(row, customer.now) == row.state;
            *opened.units.entry(row.reward_id).or_default() += if stands { row.quantity } else { 0 };
        }
    }
    Ok(())
}

/// Loads the lots that mature or expire up to the commit, and the first ones after it. Returns a customer of whom too many are due, unless
/// the batch only posts what is due: then it posts a part.
async fn load_due(batch: &Batch<'_>, customers: &Customers, purses: &mut Purses) -> Result<Option<String>, Error> {
    let mut ids: HashMap<CustomerId, &str> = HashMap::new();
    let mut due = Vec::new();
    for (name, customer) in customers {
        let is_due = |opened: &&mut Opened| opened.is_due(customer.now) && customer.repair.is_none();
        let Some(opened) = purses.get_mut(name).filter(is_due) else { continue };
        ids.insert(customer.row.id, name.as_str());
        due.push((customer.row.id, Instant::EPOCH));
        opened.unloaded_due_at = None;
    }
    for search in [Search::Pending, Search::Spendable] {
        // How many lots of a customer were loaded, and when the last of them changes.
        let mut loaded: HashMap<CustomerId, (usize, Instant)> = HashMap::new();
        for row in lots::load_first(batch.tx, search, due.iter().copied(), MAX_DUE + 1).await? {
            if let Some(opened) = ids.get(&row.customer_id).and_then(|name| purses.get_mut(*name)) {
                opened.add(&row);
                let key = lots::key(&row);
                let (count, last) = loaded.entry(row.customer_id).or_insert((0, Instant::EPOCH));
                (*count, *last) = (*count + 1, key.matures_at.unwrap_or(key.expires_at).max(*last));
            }
        }
        // There may be further lots, also of that instant.
        for (id, (_, last)) in loaded.into_iter().filter(|(_, (count, _))| *count > MAX_DUE) {
            if let Some(opened) = ids.get(&id).and_then(|name| purses.get_mut(*name)) {
                opened.unloaded_due_at = [opened.unloaded_due_at, Some(last)].into_iter().flatten().min();
            }
        }
    }
    for name in ids.into_values() {
        let Some((opened, customer)) = purses.get_mut(name).zip(customers.get(name)) else { continue };
        opened.to = opened.purse.due_until(customer.now, MAX_DUE);
        if opened.to < customer.now && customer.is_evaluated() {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Loads the lots from which the differences take points and to which they give some, and those that due lots join.
async fn load_touched(
    batch: &Batch<'_>,
    customers: &Customers,
    evaluated: &[Evaluated],
    purses: &mut Purses,
) -> Result<(), Error> {
    let mut keys: Vec<(CustomerId, LotKey)> = Vec::new();
    let mut add = |customer: &Touched, dates: Dates| {
        if let Place::Lot(key) = Place::of(dates, customer.now) {
            keys.push((customer.row.id, key));
        }
    };
    for (name, opened) in purses.iter() {
        let Some(customer) = sound(customers, name) else { continue };
        for (key, _) in opened.purse.lots() {
            let expires_at = Some(key.expires_at).filter(|at| *at != Instant::FOREVER);
            add(customer, Dates { available_at: None, expires_at });
        }
        for (_, act) in &customer.acts {
            if let Act::Adjust(adjustment) = act {
                add(customer, adjustment.dates());
            }
        }
        for taking in opened.takings.values().flatten() {
            if let Place::Lot(key) = taking.place {
                add(customer, Dates { available_at: None, expires_at: Some(key.expires_at) });
            }
        }
    }
    for one in evaluated.iter().filter(|one| one.campaign.rule.dates_points()) {
        let Some(customer) = sound(customers, &one.customer) else { continue };
        one.diff.dates().for_each(|dates| add(customer, dates));
    }
    keys.sort_unstable_by_key(|(customer, key)| (customer.0, *key));
    keys.dedup();
    let names: HashMap<CustomerId, &String> = customers.iter().map(|(name, one)| (one.row.id, name)).collect();
    // From now on, it must be known what the points of the pool were spent on.
    let redeems = |customer: &Touched| customer.acts.iter().any(|(_, act)| !matches!(act, Act::Adjust(_)));
    let has_lots = |id: CustomerId| keys.binary_search_by_key(&id.0, |(of, _)| of.0).is_ok();
    let first = customers.values().filter(|customer| customer.running.held.is_none() && customer.repair.is_none());
    let first = first.filter(|customer| has_lots(customer.row.id) || redeems(customer));
    let first: Vec<(CustomerId, i64)> = first.map(|customer| (customer.row.id, customer.row.lifetime)).collect();
    for (id, gained) in load_gained(batch, first).await? {
        if let Some(opened) = names.get(&id).and_then(|name| purses.get_mut(*name)) {
            opened.purse.set_gained(gained);
            opened.is_held = true;
        }
    }
    for row in lots::load(batch.tx, keys).await? {
        if let Some(opened) = names.get(&row.customer_id).and_then(|name| purses.get_mut(*name)) {
            opened.add(&row);
        }
    }
    Ok(())
}

/// Returns all points that came in of customers whose points were all in the pool until now. `lifetimes` are those of the customers.
async fn load_gained(batch: &Batch<'_>, lifetimes: Vec<(CustomerId, i64)>) -> Result<HashMap<CustomerId, i64>, Error> {
    let mut gained: HashMap<CustomerId, i64> = lifetimes.into_iter().collect();
    if gained.is_empty() {
        return Ok(gained);
    }
    use ledger_entry::Column::{CustomerId as OfCustomer, Kind, Points};
    let adjusted: Vec<(CustomerId, i64)> = ledger_entry::Entity::find()
        .select_only()
        .column(OfCustomer)
        .column_as(Expr::cust("CAST(SUM(points) AS bigint)"), "points")
        .filter(any(batch.backend(), OfCustomer, gained.keys().map(|id| id.0)))
        .filter(Kind.eq(LedgerEntryKind::Adjustment))
        .filter(Points.gt(0))
        .group_by(OfCustomer)
        .into_tuple()
        .all(batch.tx)
        .await?;
    for (id, points) in adjusted {
        *gained.entry(id).or_default() += points;
    }
    Ok(gained)
}

/// Loads, in spending order, as many lots as the batch may take points from.
async fn load_spent(
    batch: &Batch<'_>,
    customers: &Customers,
    evaluated: &[Evaluated],
    purses: &mut Purses,
) -> Result<(), Error> {
    let mut spending: HashMap<CustomerId, (&str, i64)> = HashMap::new();
    let mut lost: HashMap<&str, i64> = HashMap::new();
    for (one, points) in evaluated.iter().map(|one| (one, one.diff.points_lost())).filter(|(_, points)| *points > 0) {
        let sum = lost.entry(one.customer.as_str()).or_default();
        *sum = sum.saturating_add(points);
    }
    for (name, customer) in customers {
        if customer.repair.is_some() || purses.get(name).is_none_or(|opened| opened.purse.sums().in_lots == 0) {
            continue;
        }
        let cost = |redeem: &NewRedemption| {
            purses.get(name).and_then(|opened| opened.rewards.get(&redeem.reward)).map_or(0, |reward| reward.cost)
        };
        let taken = customer.acts.iter().map(|(_, act)| act.takes_at_most(cost));
        let points = taken.fold(lost.get(name.as_str()).copied().unwrap_or(0), i64::saturating_add);
        if points > 0 {
            spending.insert(customer.row.id, (name, points));
        }
    }
    let mut most = FIRST_SPENT;
    while !spending.is_empty() {
        let after = spending.iter().filter_map(|(id, (name, _))| Some((*id, customers.get(*name)?.now)));
        let mut found: HashMap<CustomerId, (usize, i64)> = HashMap::new();
        for row in lots::load_first(batch.tx, Search::Spendable, after, most).await? {
            let (count, left) = found.entry(row.customer_id).or_default();
            *count += 1;
            *left += row.left;
            if let Some(opened) = spending.get(&row.customer_id).and_then(|(name, _)| purses.get_mut(*name)) {
                opened.add(&row);
            }
        }
        spending.retain(|id, (_, points)| found.get(id).is_some_and(|(count, left)| *count == most && left < points));
        most *= 2;
    }
    Ok(())
}
