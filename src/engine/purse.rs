//! What a customer holds: the pool, the lots, the reservations and the deficit, and how commits and the clock change them.
//!
//! A purse need not contain all lots. The caller loads those that an operation can touch: the lots that are due, the places of the
//! awards that change, and in spending order as many available lots as may be taken from. The sums are those of all lots.
//!
//! Invariants at rest, that is, after [`Purse::settle`]:
//! - `available + pending + reserved` is the sum of the posted entries.
//! - While there is a deficit, nothing is left in the pool and in available lots.
//! - Nothing is left in a lot that has expired.
//!
//! The pool is like a lot that has always been available and never expires.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dates::Dates;
use super::lot::{Lot, LotKey, Place};
use super::time::Instant;

/// Points of a customer by what can be done with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// What is left of pending lots.
    pub pending: i64,
    /// The points of the reservations that stand.
    pub reserved: i64,
    /// What is left of available lots.
    pub in_lots: i64,
    /// What is reserved of the pool.
    pub pool_reserved: i64,
    /// What is spent of the pool.
    pub pool_spent: i64,
}

/// Points that a redemption or a reservation took from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taking {
    /// The pool or an available lot.
    pub place: Place,
    pub points: i64,
}

/// Points that are set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The number of the redemption among those of the customer.
    pub number: i64,
    /// The reservation is over from this instant on.
    pub until: Instant,
    pub takings: Vec<Taking>,
}

/// An `EXPIRY` entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// When the lot expired.
    pub expires_at: Instant,
    /// Below zero, except for points that a reversal gets back.
    pub points: i64,
}

/// What the clock did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// In the order in which they are posted.
    pub expiries: Vec<Expiry>,
    /// The numbers of the reservations that are over.
    pub lapsed: Vec<i64>,
}

/// The points of an award on their way from one place to another, because its dates changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moving {
    /// What had expired and comes back, by a positive `EXPIRY` entry.
    pub revived: i64,
    left: i64,
    /// What is spent or reserved, and goes along as spent.
    pub spent: i64,
    /// What had expired and has expired by the new date too.
    expired: i64,
}

/// What a customer holds at an instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purse {
    /// Everything is as it is at this instant.
    now: Instant,
    sums: Sums,
    pool: Lot,
    /// What was taken although nothing was left.
    deficit: i64,
    lots: BTreeMap<LotKey, Lot>,
    reservations: BTreeMap<(Instant, i64), Vec<Taking>>,
}

impl Purse {
    /// A purse without any lots. `balance` is the sum of the posted entries, and `now` the instant of the last commit.
    pub fn new(balance: i64, sums: Sums, now: Instant) -> Self {
        let available = balance - sums.pending - sums.reserved;
        let left = available.max(0) - sums.in_lots;
        Self {
            now,
            sums,
            pool: Lot { left, reserved: sums.pool_reserved, spent: sums.pool_spent, expired: 0 },
            deficit: (-available).max(0),
            lots: BTreeMap::new(),
            reservations: BTreeMap::new(),
        }
    }

    /// Adds a stored lot, unless the purse contains it already.
    pub fn add_lot(&mut self, key: LotKey, lot: Lot) {
        self.lots.entry(key).or_insert(lot);
    }

    pub fn add_reservation(&mut self, reservation: Reservation) {
        self.reservations.insert((reservation.until, reservation.number), reservation.takings);
    }

    pub fn now(&self) -> Instant {
        self.now
    }

    pub fn sums(&self) -> Sums {
        Sums { pool_reserved: self.pool.reserved, pool_spent: self.pool.spent, ..self.sums }
    }

    /// Says what is spent of the pool, for a customer whose points were all in the pool until now: all points that ever came in, `gained`,
    /// less what is left.
    pub fn set_gained(&mut self, gained: i64) {
        self.pool.spent = gained - self.pool.left;
    }

    /// What can be spent. Below zero while a deficit is open.
    pub fn available(&self) -> i64 {
        self.pool.left + self.sums.in_lots - self.deficit
    }

    /// What the sum of the posted entries must be.
    pub fn total(&self) -> i64 {
        self.available() + self.sums.pending + self.sums.reserved
    }

    pub fn lots(&self) -> impl Iterator<Item = (LotKey, Lot)> {
        self.lots.iter().map(|(key, lot)| (*key, *lot))
    }

    /// Returns the next instant at which the clock changes what is known here.
    pub fn next_change(&self) -> Option<Instant> {
        let matures = self.lots.keys().filter_map(|key| key.matures_at).min();
        let expires = self.spendable().next().map(|(key, _)| key.expires_at);
        let ends = self.reservations.keys().next().map(|(until, _)| *until);
        [matures, expires, ends].into_iter().flatten().min()
    }

    /// Returns the first expiry of available points, and the points that expire then.
    pub fn expiring_next(&self) -> Option<(Instant, i64)> {
        self.spendable().next().map(|(key, lot)| (key.expires_at, lot.left))
    }

    /// Returns the available points that expire by an instant.
    pub fn expiring(&self, by: Instant) -> i64 {
        self.spendable().take_while(|(key, _)| key.expires_at <= by).map(|(_, lot)| lot.left).sum()
    }

    /// Returns the first instant at which pending points become available, and how many do.
    pub fn maturing_next(&self) -> Option<(Instant, i64)> {
        let pending =
            || self.lots.iter().filter_map(|(key, lot)| key.matures_at.zip(Some(lot.left).filter(|left| *left > 0)));
        let (first, _) = pending().next()?;
        Some((first, pending().take_while(|(at, _)| *at == first).map(|(_, left)| left).sum()))
    }

    /// The available lots of which something is left, in spending order.
    fn spendable(&self) -> impl Iterator<Item = (&LotKey, &Lot)> {
        self.lots.iter().take_while(|(key, _)| key.matures_at.is_none()).filter(|(_, lot)| lot.left > 0)
    }

    /// Returns the instant up to which at most `most` of the lots and reservations that are due at `now` are due. It is the first one
    /// at which anything is due if more are due then.
    pub fn due_until(&self, now: Instant, most: usize) -> Instant {
        let matures = self.lots.keys().filter_map(|key| key.matures_at);
        let expires = self.spendable().map(|(key, _)| key.expires_at);
        let ends = self.reservations.keys().map(|(until, _)| *until);
        let mut due: Vec<Instant> = matures.chain(expires).chain(ends).filter(|at| *at <= now).collect();
        due.sort_unstable();
        match (due.first(), due.get(most)) {
            (Some(first), Some(beyond)) => beyond.minus(1).max(*first),
            _ => now,
        }
    }

    /// Lets the time pass: lots mature, reservations end, the deficit is covered and lots expire, instant by instant.
    pub fn advance(&mut self, to: Instant) -> Passed {
        let mut passed = Passed::default();
        while let Some(at) = self.next_change().filter(|at| *at <= to) {
            self.now = self.now.max(at);
            self.mature(at);
            while let Some(entry) = self.reservations.first_entry().filter(|entry| entry.key().0 <= at) {
                let (_, number) = *entry.key();
                let takings = entry.remove();
                self.release(&takings);
                passed.lapsed.push(number);
            }
            self.cover();
            self.expire(at, &mut passed.expiries);
        }
        self.now = self.now.max(to);
        passed
    }

    /// Pending lots that become available join the lot of their expiry, or the pool.
    fn mature(&mut self, at: Instant) {
        let due = |key: &LotKey, _: &mut Lot| key.matures_at.is_some_and(|matures_at| matures_at <= at);
        let matured: Vec<(LotKey, Lot)> = self.lots.extract_if(.., due).collect();
        for (key, lot) in matured {
            self.sums.pending -= lot.left;
            if key.expires_at == Instant::FOREVER {
                self.pool.add(lot);
            } else {
                self.sums.in_lots += lot.left;
                self.lots.entry(LotKey::available(key.expires_at)).or_default().add(lot);
            }
        }
    }

    /// Takes the deficit from what is available, in spending order.
    fn cover(&mut self) {
        let owed = self.deficit;
        let taken = self.take(owed, |lot| &mut lot.spent);
        self.deficit -= taken.iter().map(|taking| taking.points).sum::<i64>();
    }

    /// Takes at most so many points from what is available, in spending order. `part` is what they become a part of.
    fn take(&mut self, points: i64, part: impl Fn(&mut Lot) -> &mut i64) -> Vec<Taking> {
        let mut open = points;
        let mut takings = Vec::new();
        let available = self.lots.iter_mut().take_while(|(key, _)| key.matures_at.is_none());
        let places = available.map(|(key, lot)| (Place::Lot(*key), lot)).chain([(Place::Pool, &mut self.pool)]);
        for (place, lot) in places {
            let points = open.min(lot.left);
            if points > 0 {
                lot.left -= points;
                *part(lot) += points;
                self.sums.in_lots -= if place == Place::Pool { 0 } else { points };
                open -= points;
                takings.push(Taking { place, points });
            }
        }
        takings
    }

    fn expire(&mut self, at: Instant, expiries: &mut Vec<Expiry>) {
        let last = LotKey::available(at);
        for (key, lot) in self.lots.range_mut(..=last).filter(|(_, lot)| lot.left > 0) {
            expiries.push(Expiry { expires_at: key.expires_at, points: -lot.left });
            self.sums.in_lots -= lot.left;
            lot.expired += lot.left;
            lot.left = 0;
        }
    }

    /// Covers the deficit from what is available. Then what is left past its expiry expires. A commit does this after its awards, and
    /// after each adjustment, redemption and cancellation.
    pub fn settle(&mut self) -> Vec<Expiry> {
        let mut expiries = Vec::new();
        self.cover();
        self.expire(self.now, &mut expiries);
        expiries
    }

    /// Adds points with these dates.
    pub fn put(&mut self, dates: Dates, points: i64) {
        self.put_in(Place::of(dates, self.now), points);
    }

    fn put_in(&mut self, place: Place, points: i64) {
        self.lot_mut(place).left += points;
        if let Place::Lot(key) = place {
            *(if key.matures_at.is_some() { &mut self.sums.pending } else { &mut self.sums.in_lots }) += points;
        }
    }

    fn lot_mut(&mut self, place: Place) -> &mut Lot {
        match place {
            Place::Pool => &mut self.pool,
            Place::Lot(key) => self.lots.entry(key).or_default(),
        }
    }

    /// Takes points with these dates back: what had expired, then what is left, then what is spent, then what is reserved. The last
    /// two are a deficit. Returns what had expired; a positive `EXPIRY` entry gives it back first.
    pub fn reverse(&mut self, dates: Dates, points: i64) -> i64 {
        let mut open = points;
        let place = Place::of(dates, self.now);
        let expired = self.draw(place, &mut open, |lot| &mut lot.expired);
        self.draw_left(place, &mut open);
        let owed = open;
        self.draw(place, &mut open, |lot| &mut lot.spent);
        self.draw(place, &mut open, |lot| &mut lot.reserved);
        self.deficit += owed;
        expired
    }

    /// Takes the points of an award whose dates change, and nothing else of it. There is no deficit.
    pub fn take_along(&mut self, from: Dates, to: Dates, points: i64) -> Moving {
        let (from, to) = (Place::of(from, self.now), Place::of(to, self.now));
        let mut open = points;
        let mut moving = Moving::default();
        let is_earlier = to.expires_at() < from.expires_at();
        if is_earlier {
            moving.spent += self.draw_used(from, &mut open);
        }
        let expired = self.draw(from, &mut open, |lot| &mut lot.expired);
        *(if to.expires_at() <= self.now { &mut moving.expired } else { &mut moving.revived }) = expired;
        moving.left = self.draw_left(from, &mut open);
        if !is_earlier {
            moving.spent += self.draw_used(from, &mut open);
        }
        // Nothing else can be missing, unless the stored lots are damaged.
        moving.spent += open;
        moving
    }

    /// Puts the points of an award whose dates changed where they are now.
    pub fn put_along(&mut self, to: Dates, moving: Moving) {
        let place = Place::of(to, self.now);
        self.put_in(place, moving.left + moving.revived);
        let lot = self.lot_mut(place);
        lot.spent += moving.spent;
        lot.expired += moving.expired;
    }

    /// Takes what is spent or reserved of a lot.
    fn draw_used(&mut self, place: Place, open: &mut i64) -> i64 {
        self.draw(place, open, |lot| &mut lot.spent) + self.draw(place, open, |lot| &mut lot.reserved)
    }

    fn draw(&mut self, place: Place, open: &mut i64, part: impl Fn(&mut Lot) -> &mut i64) -> i64 {
        let part = part(self.lot_mut(place));
        let points = (*part).min(*open);
        *part -= points;
        *open -= points;
        points
    }

    /// Takes what is left in a place.
    fn draw_left(&mut self, place: Place, open: &mut i64) -> i64 {
        let points = self.draw(place, open, |lot| &mut lot.left);
        if let Place::Lot(key) = place {
            *(if key.matures_at.is_some() { &mut self.sums.pending } else { &mut self.sums.in_lots }) -= points;
        }
        points
    }

    /// Takes points by a negative adjustment. The caller calls [`Self::settle`] afterwards.
    pub fn owe(&mut self, points: i64) {
        self.deficit += points;
    }

    /// Spends points in spending order. Takes less if less is available.
    pub fn spend(&mut self, points: i64) -> Vec<Taking> {
        self.take(points, |lot| &mut lot.spent)
    }

    /// Sets points aside, in spending order. Takes less if less is available.
    pub fn reserve(&mut self, number: i64, until: Instant, points: i64) -> Vec<Taking> {
        let takings = self.take(points, |lot| &mut lot.reserved);
        self.sums.reserved += sum(&takings);
        self.reservations.insert((until, number), takings.clone());
        takings
    }

    /// Spends what a recorded redemption took.
    pub fn spend_again(&mut self, takings: &[Taking]) {
        self.take_again(takings, |lot| &mut lot.spent);
    }

    /// Sets aside what a recorded reservation took.
    pub fn reserve_again(&mut self, reservation: Reservation) {
        self.take_again(&reservation.takings, |lot| &mut lot.reserved);
        self.sums.reserved += sum(&reservation.takings);
        self.add_reservation(reservation);
    }

    fn take_again(&mut self, takings: &[Taking], part: impl Fn(&mut Lot) -> &mut i64) {
        for taking in takings {
            let mut open = taking.points;
            let taken = self.draw_left(taking.place, &mut open);
            *part(self.lot_mut(taking.place)) += taken;
        }
    }

    /// Spends what a reservation set aside. Returns what it took, or `None` if no such reservation stands.
    pub fn commit_reservation(&mut self, until: Instant, number: i64) -> Option<Vec<Taking>> {
        let takings = self.reservations.remove(&(until, number))?;
        for taking in &takings {
            let mut open = taking.points;
            let reserved = self.draw(taking.place, &mut open, |lot| &mut lot.reserved);
            self.lot_mut(taking.place).spent += reserved;
        }
        self.sums.reserved -= sum(&takings);
        Some(takings)
    }

    /// Ends a reservation before its time. Returns whether it stood. The caller calls [`Self::settle`] afterwards.
    pub fn cancel_reservation(&mut self, until: Instant, number: i64) -> bool {
        let takings = self.reservations.remove(&(until, number));
        takings.as_deref().map(|takings| self.release(takings)).is_some()
    }

    fn release(&mut self, takings: &[Taking]) {
        self.sums.reserved -= sum(takings);
        self.give_back(takings, |lot| &mut lot.reserved);
    }

    /// Gives back what a redemption spent. The caller calls [`Self::settle`] afterwards.
    pub fn cancel_redemption(&mut self, takings: &[Taking]) {
        self.give_back(takings, |lot| &mut lot.spent);
    }

    /// Each lot gets back at most what is still in `part`. The rest covers the deficit, then goes to the pool.
    fn give_back(&mut self, takings: &[Taking], part: impl Fn(&mut Lot) -> &mut i64) {
        let mut rest = 0;
        for taking in takings {
            let mut open = taking.points;
            let back = self.draw(taking.place, &mut open, &part);
            self.put_in(taking.place, back);
            rest += open;
        }
        let covered = rest.min(self.deficit);
        self.deficit -= covered;
        self.pool.left += rest - covered;
    }
}

fn sum(takings: &[Taking]) -> i64 {
    takings.iter().map(|taking| taking.points).sum()
}
