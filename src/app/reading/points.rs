//! The points of a customer as a function of the clock: what is in lots, as of one commit.
//!
//! Only customers whose points wait, expire or are reserved have this part of a snapshot. It contains the lots that change next, and all
//! reservations. So it serves until the first instant at which a lot changes that it does not contain; then it is loaded again.

use std::collections::HashMap;

use entity::CustomerId;
use sea_orm::DatabaseTransaction;
use serde::{Deserialize, Serialize};

use crate::app::error::Error;
use crate::app::stored::lot::{self as lots, Search};
use crate::app::stored::redemption as redemptions;
use crate::app::stored::running::Held;
use crate::engine::lot::{LotKey, Place};
use crate::engine::purse::Purse;
use crate::engine::time::Instant;

/// The number of lots that a snapshot contains of those that mature next, and of those that expire next.
const NEXT_LOTS: usize = 64;

/// What a customer holds, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    purse: Purse,
    /// The purse is right before this instant. `None`: forever.
    until: Option<Instant>,
    /// The purse contains the lots that can be spent and that expire before this instant. `None`: all.
    complete_to: Option<Instant>,
}

/// The points of a customer to load.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub customer: CustomerId,
    /// The sum of the posted entries.
    pub balance: i64,
    pub held: Held,
}

impl Points {
    /// Whether the points at `now` follow from what was loaded.
    pub fn hold(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Returns what the customer holds at `now`, or at the last commit if that is later.
    pub fn at(&self, now: Instant) -> Purse {
        let mut purse = self.purse.clone();
        purse.advance(now);
        purse
    }

    /// Returns the first instant after `now` at which the clock changes the points. `None`: that does not follow from what was loaded.
    pub fn changes_at(&self, now: Instant) -> Option<Instant> {
        let next = self.at(now).next_change();
        let until = self.until.unwrap_or(Instant::FOREVER);
        self.hold(now).then(|| next.map_or(until, |next| next.min(until)))
    }

    /// Returns the points that are available at `now` and expire by `by`. `None`: that does not follow from what was loaded.
    pub fn expiring(&self, now: Instant, by: Instant) -> Option<i64> {
        self.complete_to.is_none_or(|to| by < to).then(|| self.at(now).expiring(by))
    }

    /// Whether both say the same at an instant at which both hold.
    pub fn agree(&self, other: &Self) -> bool {
        let sums = |points: &Self, now| {
            let purse = points.at(now);
            (purse.available(), purse.sums(), purse.next_change())
        };
        let now = self.purse.now().max(other.purse.now());
        !self.hold(now) || !other.hold(now) || sums(self, now) == sums(other, now)
    }
}

/// Loads the points of customers for balances at `now`.
pub async fn load(
    tx: &DatabaseTransaction,
    wanted: Vec<Wanted>,
    now: Instant,
) -> Result<HashMap<CustomerId, Points>, Error> {
    let mut found = HashMap::with_capacity(wanted.len());
    let (mut open, mut most) = (wanted, NEXT_LOTS);
    // More lots are due than are loaded if nobody posted what expired for long. Then more are loaded.
    while !open.is_empty() {
        let loaded = load_first(tx, &open, most).await?;
        open.retain(|one| loaded.get(&one.customer).is_none_or(|points| !points.hold(now)));
        found.extend(loaded.into_iter().filter(|(_, points)| points.hold(now)));
        most *= 8;
    }
    Ok(found)
}

/// Loads all lots of a customer.
pub async fn load_all(tx: &DatabaseTransaction, wanted: Wanted) -> Result<Option<Points>, Error> {
    let mut found = HashMap::from([(wanted.customer, blank(&wanted))]);
    load_reservations(tx, &[wanted], &mut found).await?;
    for row in lots::load_all(tx, [wanted.customer]).await? {
        if let Some(points) = found.get_mut(&row.customer_id) {
            points.purse.add_lot(lots::key(&row), lots::parts(&row));
        }
    }
    Ok(found.remove(&wanted.customer))
}

/// Loads the reservations that stand, and the lots that get something back when they end.
async fn load_reservations(
    tx: &DatabaseTransaction,
    wanted: &[Wanted],
    found: &mut HashMap<CustomerId, Points>,
) -> Result<(), Error> {
    let reserving = wanted.iter().filter(|one| one.held.reserved > 0).map(|one| one.customer);
    let rows = redemptions::load_reserved(tx, reserving).await?;
    let takings = redemptions::load_takings(tx, rows.iter().map(|row| (row.customer_id, row.number))).await?;
    let mut keys: Vec<(CustomerId, LotKey)> = Vec::new();
    for row in rows {
        let Some(reservation) = redemptions::reservation(&row, &takings) else { continue };
        for taking in &reservation.takings {
            keys.extend(if let Place::Lot(key) = taking.place { Some((row.customer_id, key)) } else { None });
        }
        if let Some(points) = found.get_mut(&row.customer_id) {
            points.purse.add_reservation(reservation);
        }
    }
    keys.sort_unstable();
    keys.dedup();
    for row in lots::load(tx, keys).await? {
        if let Some(points) = found.get_mut(&row.customer_id) {
            points.purse.add_lot(lots::key(&row), lots::parts(&row));
        }
    }
    Ok(())
}

async fn load_first(
    tx: &DatabaseTransaction,
    wanted: &[Wanted],
    most: usize,
) -> Result<HashMap<CustomerId, Points>, Error> {
    let mut found: HashMap<CustomerId, Points> = wanted.iter().map(|one| (one.customer, blank(one))).collect();
    load_reservations(tx, wanted, &mut found).await?;
    for search in [Search::Pending, Search::Spendable] {
        let mut loaded: HashMap<CustomerId, Vec<LotKey>> = HashMap::new();
        let after = wanted.iter().map(|one| (one.customer, Instant::EPOCH));
        for row in lots::load_first(tx, search, after, most).await? {
            if let Some(points) = found.get_mut(&row.customer_id) {
                points.purse.add_lot(lots::key(&row), lots::parts(&row));
                loaded.entry(row.customer_id).or_default().push(lots::key(&row));
            }
        }
        for (customer, keys) in loaded.into_iter().filter(|(_, keys)| keys.len() == most) {
            let Some(points) = found.get_mut(&customer) else { continue };
            let last = keys.iter().map(|key| key.matures_at.unwrap_or(key.expires_at)).max();
            points.until = [points.until, last].into_iter().flatten().min();
            if search == Search::Spendable {
                points.complete_to = last;
            }
        }
    }
    Ok(found)
}

fn blank(wanted: &Wanted) -> Points {
    let purse = Purse::new(wanted.balance, wanted.held.sums(), wanted.held.at);
    Points { purse, until: None, complete_to: None }
}
