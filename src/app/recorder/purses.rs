//! Opens the purses of the customers that a batch changes: loads the lots that the batch can touch, and lets the time pass to the
//! instant of the commit. This module only reads. The number of its statements does not depend on the batch.
//!
//! A customer whose points are all in the pool needs no statement.

use std::collections::{BTreeMap, HashMap};

use entity::{CustomerId, LedgerEntryKind, ledger_entry, lot};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};

use super::evaluation::Evaluated;
use super::touched::{Batch, Customers, Touched};
use crate::app::error::Error;
use crate::app::rows::any;
use crate::app::stored::lot::{self as lots, Search};
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
    /// No lot that was not loaded changes before this instant.
    unloaded_due_at: Option<Instant>,
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
        let purse = Purse::new(customer.row.balance, sums, last);
        Self { purse, passed: Passed::default(), stored: BTreeMap::new(), unloaded_due_at, to: customer.now }
    }

    /// A purse that was computed from the ledger, of a customer with these stored lots.
    pub(super) fn replayed(mut purse: Purse, stored: &[lot::Model], now: Instant) -> Self {
        let passed = purse.advance(now);
        let stored = stored.iter().map(|row| (lots::key(row), lots::parts(row))).collect();
        Self { purse, passed, stored, unloaded_due_at: None, to: now }
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
        if customer.running.held.is_some() || self.purse.lots().next().is_some() {
            customer.running.held = Some(Held::of(self.purse.sums(), self.purse.now()));
        }
    }
}

/// Opens the purses of the customers that the batch evaluates, but for those under repair.
pub(super) async fn open(batch: &Batch<'_>, customers: &Customers, evaluated: &[Evaluated]) -> Result<Opening, Error> {
    let opens = |customer: &Touched| customer.is_evaluated() || customer.posts_due;
    let changing = customers.iter().filter(|(_, customer)| opens(customer) && customer.repair.is_none());
    let mut purses: Purses = changing.map(|(name, customer)| (name.clone(), Opened::of(customer))).collect();
    if let Some(name) = load_due(batch, customers, &mut purses).await? {
        return Ok(Opening::TooManyDue(name));
    }
    load_touched(batch, customers, evaluated, &mut purses).await?;
    for opened in purses.values_mut() {
        opened.passed = opened.purse.advance(opened.to);
    }
    load_spent(batch, customers, evaluated, &mut purses).await?;
    Ok(Opening::Done(purses))
}

/// Loads the lots that mature or expire up to the commit, and the first ones after it. Returns a customer of whom too many are due, unless
/// the batch only posts what is due: then it posts a part.
async fn load_due(batch: &Batch<'_>, customers: &Customers, purses: &mut Purses) -> Result<Option<String>, Error> {
    let mut ids: HashMap<CustomerId, &str> = HashMap::new();
    let mut due = Vec::new();
    for (name, customer) in customers {
        let Some(opened) = purses.get_mut(name).filter(|opened| opened.is_due(customer.now)) else { continue };
        ids.insert(customer.row.id, name.as_str());
        due.push((customer.row.id, Instant::EPOCH));
        opened.unloaded_due_at = None;
    }
    for search in [Search::Pending, Search::Spendable] {
        for row in lots::load_first(batch.tx, search, due.iter().copied(), MAX_DUE + 1).await? {
            if let Some(opened) = ids.get(&row.customer_id).and_then(|name| purses.get_mut(*name)) {
                opened.add(&row);
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
    for (name, opened) in purses.iter() {
        let Some(customer) = customers.get(name) else { continue };
        let mut add = |dates: Dates| {
            if let Place::Lot(key) = Place::of(dates, customer.now) {
                keys.push((customer.row.id, key));
            }
        };
        for (key, _) in opened.purse.lots() {
            let expires_at = Some(key.expires_at).filter(|at| *at != Instant::FOREVER);
            add(Dates { available_at: None, expires_at });
        }
        customer.adjustments.iter().for_each(|adjustment| add(adjustment.dates()));
        for one in evaluated.iter().filter(|one| one.customer == *name && one.campaign.rule.dates_points()) {
            one.diff.dates().for_each(&mut add);
        }
    }
    keys.sort_unstable_by_key(|(customer, key)| (customer.0, *key));
    keys.dedup();
    let names: HashMap<CustomerId, &String> = customers.iter().map(|(name, one)| (one.row.id, name)).collect();
    let of = |id: CustomerId| names.get(&id).and_then(|name| customers.get(*name));
    let first = keys.iter().filter_map(|(id, _)| of(*id)).filter(|customer| customer.running.held.is_none());
    let first: Vec<(CustomerId, i64)> = first.map(|customer| (customer.row.id, customer.row.lifetime)).collect();
    for (id, gained) in load_gained(batch, first).await? {
        if let Some(opened) = names.get(&id).and_then(|name| purses.get_mut(*name)) {
            opened.purse.set_gained(gained);
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
    for (name, customer) in customers {
        if purses.get(name).is_none_or(|opened| opened.purse.sums().in_lots == 0) {
            continue;
        }
        let lost = evaluated.iter().filter(|one| one.customer == *name).map(|one| one.diff.points_lost());
        let adjusted = customer.adjustments.iter().map(|adjustment| -adjustment.points.min(0));
        let points = lost.chain(adjusted).fold(0_i64, i64::saturating_add);
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
