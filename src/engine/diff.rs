//! Recorded awards against reached ones: what stays, moves, shrinks, is reversed, is awarded.
//!
//! Invariant after it is applied: STANDING ∪ DECLINED = the reached awards, equal in points, earnedAt, window,
//! ordinal and evidence.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::award::Reached;
use super::purchase::Key;

/// An award as it is recorded: STANDING or DECLINED. (A REVERSED one is history.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Among the customer's awards.
    pub number: i64,
    /// STANDING; else DECLINED.
    pub standing: bool,
    /// As it was when last evaluated.
    pub reached: Reached,
}

/// What brings the recorded awards in line with the reached ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Recorded awards that stay, but not as they were, in award order (of what they become).
    pub changed: Vec<Changed>,
    /// Recorded awards no longer reached, in award order.
    pub reversed: Vec<Recorded>,
    /// Newly reached awards, in award order.
    pub awarded: Vec<Reached>,
}

/// A recorded award that stays under its id and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As it was.
    pub recorded: Recorded,
    /// As it is now.
    pub reached: Reached,
    /// What happened to it.
    pub how: How,
}

/// What happened to a recorded award that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Another purchase reaches it now. Posts nothing.
    Moved,
    /// Moved, and its points count at other times now: REVERSAL and AWARD of all its points.
    Reposted,
    /// So many points fewer: REVERSAL of the difference (STANDING only).
    Shrunk(i64),
    /// Only window, ordinal or evidence.
    Adjusted,
}

impl Diff {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.reversed.is_empty() && self.awarded.is_empty()
    }
}

/// Compares what is recorded with what is reached, both of one customer and campaign and of one stretch of its
/// purchases. `timed`: the campaign has `holdFor` or `expiresAfter`, so that a new earnedAt moves points in time.
pub fn diff(mut recorded: Vec<Recorded>, reached: Vec<Reached>, timed: bool) -> Diff {
    recorded.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
    let mut by_name: HashMap<(Key, i32), Reached> =
        reached.into_iter().map(|award| ((award.by.clone(), award.nth), award)).collect();
    let mut diff = Diff::default();
    let mut gone: BTreeMap<i64, VecDeque<Recorded>> = BTreeMap::new();
    for recorded in recorded {
        let name = (recorded.reached.by.clone(), recorded.reached.nth);
        // More points under the same name cannot come of purchases and refunds; if they do, it is another award.
        match by_name.remove(&name) {
            Some(reached) if recorded.reached == reached => {}
            Some(reached) if recorded.reached.points >= reached.points => {
                let fewer = recorded.reached.points - reached.points;
                let how = if fewer > 0 { How::Shrunk(fewer) } else { How::Adjusted };
                diff.changed.push(Changed { recorded, reached, how });
            }
            other => {
                by_name.extend(other.map(|reached| (name, reached)));
                gone.entry(recorded.reached.points).or_default().push_back(recorded);
            }
        }
    }
    let mut newly: Vec<Reached> = by_name.into_values().collect();
    newly.sort_by(|a, b| a.order().cmp(&b.order()));
    for award in newly {
        // The i-th gone moves to the i-th new, among equal points: both come in award order.
        match gone.get_mut(&award.points).and_then(VecDeque::pop_front) {
            Some(recorded) => {
                let later = recorded.standing && timed && recorded.reached.by.at != award.by.at;
                let how = if later { How::Reposted } else { How::Moved };
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
