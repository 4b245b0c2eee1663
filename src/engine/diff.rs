//! The difference between recorded and reached awards: which awards stay, move, shrink, grow, are reversed or are new.
//!
//! Invariant after the difference is applied: the `STANDING` and `DECLINED` awards are exactly the reached awards, and are
//! equal to them in points, `earnedAt`, window, ordinal, evidence and `pointsBeforeCap`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::award::{AwardName, Reached};
use super::dates::Dates;
use super::lot::Place;
use super::time::Instant;

/// A recorded award that is `STANDING` or `DECLINED`. A `REVERSED` award never changes again and is not compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAward {
    /// The number of the award among the customer's awards.
    pub number: i64,
    /// Whether the award is `STANDING`. Otherwise it is `DECLINED`.
    pub standing: bool,
    /// The award as the last evaluation reached it.
    pub reached: Reached,
}

/// The changes that make the recorded awards equal to the reached awards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The recorded awards that stay but change, in the award order of their new content.
    pub changed: Vec<Changed>,
    /// The recorded awards that are no longer reached, in award order.
    pub reversed: Vec<RecordedAward>,
    /// The newly reached awards, in award order.
    pub awarded: Vec<Reached>,
}

/// A recorded award that changes and keeps its id and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The award before the change.
    pub recorded: RecordedAward,
    /// The award after the change.
    pub reached: Reached,
    /// Whether the points go to another lot, or to or from the pool, because the dates of the award changed. A `REVERSAL` and an `AWARD`
    /// of the points that stay are posted. They leave the budget as it is.
    pub reposted: bool,
}

impl Changed {
    /// Returns how many points the award gains. It is negative if the award loses points.
    ///
    /// If the award is `STANDING`, a `REVERSAL` or an `AWARD` of the difference is posted. A budget does not decide the award again, so
    /// growth may exceed the budget.
    pub const fn more(&self) -> i64 {
        self.reached.points - self.recorded.reached.points
    }

    /// Whether neither points nor lots change: another purchase reaches the award, or only its `earnedAt`, window, ordinal, evidence or
    /// points before caps change.
    pub const fn posts_nothing(&self) -> bool {
        self.more() == 0 && !self.reposted
    }
}

impl Diff {
    /// Returns how many points more all awards have after the difference.
    pub fn points(&self) -> i64 {
        let changed = self.changed.iter().map(Changed::more);
        let reversed: i64 = self.reversed.iter().map(|award| award.reached.points).sum();
        changed.chain(self.awarded.iter().map(|award| award.points)).sum::<i64>() - reversed
    }

    /// Returns the dates that the points of the awards had and get.
    pub fn dates(&self) -> impl Iterator<Item = Dates> {
        let changed = self.changed.iter().flat_map(|changed| [&changed.recorded.reached, &changed.reached]);
        let reversed = self.reversed.iter().map(|award| &award.reached);
        changed.chain(reversed).chain(&self.awarded).map(|award| award.dates)
    }

    /// Returns the points that standing awards lose, but for those that only get other dates.
    pub fn points_lost(&self) -> i64 {
        let fewer =
            self.changed.iter().filter(|changed| changed.recorded.standing).map(|changed| -changed.more().min(0));
        let reversed = self.reversed.iter().filter(|award| award.standing).map(|award| award.reached.points);
        fewer.chain(reversed).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.reversed.is_empty() && self.awarded.is_empty()
    }
}

/// Compares the recorded awards of one customer in one campaign with the reached awards. Both must be of the same stretch
/// of purchases. `now` is the instant of the commit, on which it depends whether points with other dates lie in another lot.
pub fn diff(mut recorded: Vec<RecordedAward>, reached: Vec<Reached>, now: Instant) -> Diff {
    let change = |recorded: RecordedAward, reached: Reached| {
        let place = |award: &Reached| Place::of(award.dates, now);
        let reposted = recorded.standing && place(&recorded.reached) != place(&reached);
        Changed { recorded, reached, reposted }
    };
    recorded.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    let mut by_name: HashMap<AwardName, Reached> = reached.into_iter().map(|award| (award.name(), award)).collect();
    let mut diff = Diff::default();
    let mut gone: BTreeMap<i64, VecDeque<RecordedAward>> = BTreeMap::new();
    for recorded in recorded {
        match by_name.remove(&recorded.reached.name()) {
            Some(reached) if recorded.reached == reached => {}
            Some(reached) => diff.changed.push(change(recorded, reached)),
            None => gone.entry(recorded.reached.points).or_default().push_back(recorded),
        }
    }
    let mut newly: Vec<Reached> = by_name.into_values().collect();
    newly.sort_by(|a, b| a.order().cmp(&b.order()));
    for award in newly {
        // Among awards with equal points, the i-th that is gone moves to the i-th that is new. Both lists are in award order.
        match gone.get_mut(&award.points).and_then(VecDeque::pop_front) {
            Some(recorded) => diff.changed.push(change(recorded, award)),
            None => diff.awarded.push(award),
        }
    }
    diff.reversed = gone.into_values().flatten().collect();
    diff.reversed.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    diff.changed.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    diff
}
