//! The difference between recorded and reached awards: which awards stay, move, shrink, grow, are reversed or are new.
//!
//! Invariant after the difference is applied: the `STANDING` and `DECLINED` awards are exactly the reached awards, and are
//! equal to them in points, `earnedAt`, window, ordinal, evidence and `pointsBeforeCap`.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::award::{AwardName, Reached};

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
    pub how: How,
}

/// How a recorded award that stays changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Another purchase reaches the award now. Nothing is posted.
    Moved,
    /// The award moved or its `earnedAt` changed, and its points become available or expire at other times now. A `REVERSAL` and an
    /// `AWARD` of all its points are posted.
    Reposted,
    /// The award has this many points fewer. If it is `STANDING`, a `REVERSAL` of the difference is posted.
    Shrunk(i64),
    /// The award has this many points more. If it is `STANDING`, an `AWARD` of the difference is posted. A budget does not decide it
    /// again, so growth may exceed the budget.
    Grown(i64),
    /// Only the `earnedAt`, the window, the ordinal, the evidence or the points before caps change. Nothing is posted.
    Adjusted,
}

impl Diff {
    /// Returns how many points more all awards have after the difference.
    pub fn points(&self) -> i64 {
        let changed = self.changed.iter().map(|changed| changed.reached.points - changed.recorded.reached.points);
        let reversed: i64 = self.reversed.iter().map(|award| award.reached.points).sum();
        changed.chain(self.awarded.iter().map(|award| award.points)).sum::<i64>() - reversed
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.reversed.is_empty() && self.awarded.is_empty()
    }
}

/// Whether the points of an award become available or expire at other times.
fn is_reposted(recorded: &RecordedAward, reached: &Reached, timed: bool) -> bool {
    recorded.standing && timed && recorded.reached.by.at != reached.by.at
}

/// Compares the recorded awards of one customer in one campaign with the reached awards. Both must be of the same stretch
/// of purchases. `timed` means that the campaign has `holdFor` or `expiresAfter`, so that a new `earnedAt` changes when the
/// points are available.
pub fn diff(mut recorded: Vec<RecordedAward>, reached: Vec<Reached>, timed: bool) -> Diff {
    recorded.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    let mut by_name: HashMap<AwardName, Reached> = reached.into_iter().map(|award| (award.name(), award)).collect();
    let mut diff = Diff::default();
    let mut gone: BTreeMap<i64, VecDeque<RecordedAward>> = BTreeMap::new();
    for recorded in recorded {
        let name = recorded.reached.name();
        match by_name.remove(&name) {
            Some(reached) if recorded.reached == reached => {}
            Some(reached) => {
                let how = match reached.points - recorded.reached.points {
                    0 if is_reposted(&recorded, &reached, timed) => How::Reposted,
                    0 => How::Adjusted,
                    more if more > 0 => How::Grown(more),
                    fewer => How::Shrunk(-fewer),
                };
                diff.changed.push(Changed { recorded, reached, how });
            }
            None => gone.entry(recorded.reached.points).or_default().push_back(recorded),
        }
    }
    let mut newly: Vec<Reached> = by_name.into_values().collect();
    newly.sort_by(|a, b| a.order().cmp(&b.order()));
    for award in newly {
        // Among awards with equal points, the i-th that is gone moves to the i-th that is new. Both lists are in award order.
        match gone.get_mut(&award.points).and_then(VecDeque::pop_front) {
            Some(recorded) => {
                let how = if is_reposted(&recorded, &award, timed) { How::Reposted } else { How::Moved };
                diff.changed.push(Changed { recorded, reached: award, how });
            }
            None => diff.awarded.push(award),
        }
    }
    diff.reversed = gone.into_values().flatten().collect();
    diff.reversed.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    diff.changed.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    diff
}
