//! A purse holds at every instant what the oracle does, point by point.

use std::cell::Cell;

use proptest::prelude::{Strategy, prop_oneof};
use proptest::sample::select;

use windfall::engine::dates::Dates;
use windfall::engine::lot::{LotKey, Place};
use windfall::engine::purse::{Purse, Sums, Taking};
use windfall::engine::time::Instant;

use super::each_case;
use crate::oracle::points::{Holder, Parts, Taken};

/// A step of a customer's points. Awards are named by their position among those given so far, modulo their number.
#[derive(Clone, Debug)]
enum Step {
    /// The time goes on to this many units, plus so many µs.
    Pass(i64, i64),
    /// A commit: awards given, awards taken back in part or whole, awards whose dates change.
    Commit {
        given: Vec<(i64, Offsets)>,
        reversed: Vec<(usize, i64)>,
        redated: Vec<(usize, Offsets)>,
    },
    Adjust(i64, Option<i64>),
    Redeem(i64),
    Reserve(i64, i64),
    CommitReservation(usize),
    CancelReservation(usize),
    CancelRedemption(usize),
}

/// When points become available and expire, in units from now. What lies before now has passed.
type Offsets = (Option<i64>, Option<i64>);

/// The unit of instants. Few of them make most steps fall on a boundary.
const UNIT: i64 = 10;

fn offsets() -> impl Strategy<Value = Offsets> {
    (proptest::option::weighted(0.5, -2..4_i64), proptest::option::weighted(0.7, 0..5_i64))
}

fn step() -> impl Strategy<Value = Step> {
    let given = proptest::collection::vec((1..6_i64, offsets()), 0..3);
    let reversed = proptest::collection::vec((0..8_usize, 1..6_i64), 0..3);
    let redated = proptest::collection::vec((0..8_usize, offsets()), 0..3);
    prop_oneof![
        3 => (0..4_i64, select(vec![-1, 0, 0, 0, 1])).prop_map(|(units, micros)| Step::Pass(units, micros)),
        4 => (given, reversed, redated)
            .prop_map(|(given, reversed, redated)| Step::Commit { given, reversed, redated }),
        1 => (-6..6_i64, proptest::option::of(1..4_i64)).prop_map(|(points, expires)| Step::Adjust(points, expires)),
        2 => (1..6_i64).prop_map(Step::Redeem),
        2 => (1..6_i64, 1..4_i64).prop_map(|(points, units)| Step::Reserve(points, units)),
        1 => (0..4_usize).prop_map(Step::CommitReservation),
        1 => (0..4_usize).prop_map(Step::CancelReservation),
        1 => (0..4_usize).prop_map(Step::CancelRedemption),
    ]
}

/// What is done to both.
struct Both {
    purse: Purse,
    holder: Holder,
    /// The points and the dates of the awards that stand.
    awards: Vec<(i64, Dates)>,
    /// The reservations that were made: their end and their number.
    reserved: Vec<(Instant, i64)>,
    redeemed: Vec<(Vec<Taking>, Taken)>,
    /// How many reservations were tried.
    numbers: i64,
    /// The sum of the entries that the purse asked to post.
    entries: i64,
    /// How often something happened; see the test.
    seen: [u32; 7],
}

fn plain(dates: Dates) -> (Option<i64>, Option<i64>) {
    (dates.available_at.map(|at| at.0), dates.expires_at.map(|at| at.0))
}

impl Both {
    fn new() -> Self {
        Self {
            purse: Purse::new(0, Sums::default(), Instant(0)),
            holder: Holder::default(),
            awards: Vec::new(),
            reserved: Vec::new(),
            redeemed: Vec::new(),
            numbers: 0,
            entries: 0,
            seen: [0; 7],
        }
    }

    fn dates(&self, (available, expires): Offsets) -> Dates {
        let now = self.purse.now().0 / UNIT * UNIT;
        let available_at = available.map(|units| now + units * UNIT);
        let expires_at = expires.map(|units| available_at.unwrap_or(now) + units * UNIT);
        Dates { available_at: available_at.map(Instant), expires_at: expires_at.map(Instant) }
    }

    fn post(&mut self, expiries: &[windfall::engine::purse::Expiry]) {
        self.entries += expiries.iter().map(|expiry| expiry.points).sum::<i64>();
    }

    fn settle(&mut self) {
        let expiries = self.purse.settle();
        self.seen[2] += u32::from(self.purse.available() < 0);
        self.seen[5] += u32::from(!expiries.is_empty());
        self.post(&expiries);
    }

    fn do_step(&mut self, step: Step) {
        match step {
            Step::Pass(units, micros) => {
                let to = (self.purse.now().0 / UNIT + units) * UNIT + micros;
                let to = Instant(to.max(self.purse.now().0));
                let passed = self.purse.advance(to);
                self.seen[0] += u32::from(!passed.expiries.is_empty());
                self.seen[1] += u32::from(!passed.lapsed.is_empty());
                self.post(&passed.expiries);
                self.reserved.retain(|(_, number)| !passed.lapsed.contains(number));
                self.holder.pass(to.0);
            }
            Step::Commit { given, reversed, redated } => self.commit(given, reversed, redated),
            Step::Adjust(0, _) => {}
            Step::Adjust(points, expires) => {
                let expires = expires.filter(|_| points > 0);
                let dates = Dates { available_at: None, expires_at: self.dates((None, expires)).expires_at };
                if points > 0 {
                    self.purse.put(dates, points);
                } else {
                    self.purse.owe(-points);
                }
                self.entries += points;
                self.settle();
                self.holder.adjust(points, plain(dates).1);
            }
            Step::Redeem(points) => {
                let fits = points <= self.purse.available();
                let takings = if fits { self.purse.spend(points) } else { Vec::new() };
                let taken = self.holder.redeem(points);
                assert_eq!(taken.is_some(), fits);
                if let Some(taken) = taken {
                    self.entries -= points;
                    self.redeemed.push((takings, taken));
                }
            }
            Step::Reserve(points, units) => {
                let until = Instant((self.purse.now().0 / UNIT + units) * UNIT + 1);
                self.numbers += 1;
                let number = self.numbers;
                let fits = points <= self.purse.available();
                if fits {
                    self.purse.reserve(number, until, points);
                    self.reserved.push((until, number));
                }
                assert_eq!(self.holder.reserve(number, until.0, points), fits);
            }
            Step::CommitReservation(index) => {
                let Some((until, number)) = self.nth_reserved(index) else { return };
                let takings = self.purse.commit_reservation(until, number).expect("it stands");
                let taken = self.holder.commit_reservation(number).expect("it stands");
                self.entries -= takings.iter().map(|taking| taking.points).sum::<i64>();
                self.redeemed.push((takings, taken));
            }
            Step::CancelReservation(index) => {
                let Some((until, number)) = self.nth_reserved(index) else { return };
                assert!(self.purse.cancel_reservation(until, number) && self.holder.cancel_reservation(number));
                self.settle();
            }
            Step::CancelRedemption(index) => {
                if self.redeemed.is_empty() {
                    return;
                }
                let (takings, taken) = self.redeemed.remove(index % self.redeemed.len());
                self.entries += takings.iter().map(|taking| taking.points).sum::<i64>();
                self.seen[6] += 1;
                self.purse.cancel_redemption(&takings);
                self.settle();
                self.holder.cancel_redemption(&taken);
            }
        }
    }

    fn nth_reserved(&mut self, index: usize) -> Option<(Instant, i64)> {
        (!self.reserved.is_empty()).then(|| self.reserved.remove(index % self.reserved.len()))
    }

    fn commit(&mut self, given: Vec<(i64, Offsets)>, reversed: Vec<(usize, i64)>, redated: Vec<(usize, Offsets)>) {
        let now = self.purse.now();
        let mut reversals = Vec::new();
        for (index, points) in reversed {
            let count = self.awards.len().max(1);
            let Some((left, dates)) = self.awards.get_mut(index % count) else { continue };
            let points = points.min(*left);
            *left -= points;
            reversals.extend((points > 0).then_some((points, *dates)));
        }
        let mut moves: Vec<(usize, i64, Dates, Dates)> = Vec::new();
        for (index, offsets) in redated {
            let to = self.dates(offsets);
            let count = self.awards.len().max(1);
            let Some((points, from)) = self.awards.get_mut(index % count) else { continue };
            let is_moved = moves.iter().any(|(at, ..)| *at == index % count);
            if *points == 0 || is_moved || Place::of(*from, now) == Place::of(to, now) {
                continue;
            }
            moves.push((index % count, *points, *from, to));
            *from = to;
        }
        let awards: Vec<(i64, Dates)> =
            given.into_iter().map(|(points, offsets)| (points, self.dates(offsets))).collect();
        for (points, dates) in &reversals {
            let revived = self.purse.reverse(*dates, *points);
            self.seen[3] += u32::from(revived > 0);
            self.entries += revived - points;
        }
        let taken: Vec<_> =
            moves.iter().map(|(_, points, from, to)| (*to, self.purse.take_along(*from, *to, *points))).collect();
        for (to, moving) in taken {
            self.entries += moving.revived;
            self.seen[4] += u32::from(moving.spent > 0);
            self.purse.put_along(to, moving);
        }
        for (points, dates) in &awards {
            self.entries += points;
            self.purse.put(*dates, *points);
        }
        self.settle();
        let reversals: Vec<_> = reversals.into_iter().map(|(points, dates)| (points, plain(dates))).collect();
        let moves: Vec<_> = moves.into_iter().map(|(_, points, from, to)| (points, plain(from), plain(to))).collect();
        let given: Vec<_> = awards.iter().map(|(points, dates)| (*points, plain(*dates))).collect();
        self.holder.commit(&reversals, &moves, &given);
        self.awards.extend(awards);
    }

    fn assert_same(&self) {
        let Self { purse, holder, .. } = self;
        let sums = purse.sums();
        assert_eq!(
            (purse.available(), sums.pending, sums.reserved),
            (holder.available(), holder.pending(), holder.reserved())
        );
        let lots = purse.lots().filter(|(_, lot)| !lot.is_empty());
        let lots: Vec<_> = lots
            .map(|(LotKey { matures_at, expires_at }, lot)| {
                let expires_at = Some(expires_at).filter(|at| *at != Instant::FOREVER).map(|at| at.0);
                let parts: Parts = (lot.left, lot.reserved, lot.spent, lot.expired);
                ((matures_at.map(|at| at.0), expires_at), parts)
            })
            .collect();
        let mut expected = holder.lots();
        expected.sort_by_key(|((matures, expires), _)| (*matures, expires.unwrap_or(i64::MAX)));
        assert_eq!(lots, expected);
        assert_eq!(self.entries, holder.entries);
        assert_eq!(purse.total(), self.entries);
        for by in 0..6 {
            let by = purse.now().0 + by * UNIT;
            assert_eq!(purse.expiring(Instant(by)), holder.expiring(by));
        }
        // A purse that is stored and opened again goes on in the same way.
        let mut stored = Purse::new(self.entries, sums, purse.now());
        purse.lots().for_each(|(key, lot)| stored.add_lot(key, lot));
        assert_eq!((stored.available(), stored.sums()), (purse.available(), sums));
    }
}

#[test]
fn a_purse_holds_what_the_oracle_does() {
    let steps = proptest::collection::vec(step(), 1..25);
    let seen: [Cell<u32>; 7] = Default::default();
    each_case(3_000, &steps, |steps| {
        let mut both = Both::new();
        for step in steps {
            both.do_step(step);
            both.assert_same();
        }
        for (seen, one) in seen.iter().zip(both.seen) {
            seen.set(seen.get() + one);
        }
    });
    // The cases exercise what they are for: expiries, lapses, deficits, points that come back, spent points that go along, points that
    // came in past their expiry, and redemptions that are given back.
    assert!(seen.iter().all(|seen| seen.get() >= 100), "{seen:?}");
}
