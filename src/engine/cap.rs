//! The caps on all awards of a customer in a campaign ([`Caps`]): the first awards in award order are kept, and the one that exceeds
//! a cap in points gets what is left.
//!
//! These caps are `maxPerCustomer` and `maxPointsPerCustomer`. If a customer can have only one window, the caps of the window apply
//! here too. In all other campaigns, [`super::state`] applies the caps of a window. It does not have to know the caps of the
//! customer: an award that those do not keep is followed by none that is kept.
//!
//! A [`State`] does not depend on these caps, so two folds meet again as soon as they would without them. As long as a customer
//! stays below the caps, they add no cost to a change. At a cap, a change in one stretch of the history can push the last
//! recorded awards beyond the cap, or make room for awards that were beyond it until now ([`Further`]).

use std::ops::{Add, AddAssign, Sub};

use super::award::{AwardPlace, Reached};
use super::evaluate::{Load, Outcome, Refold};
use super::purchase::Key;
use super::rule::{Campaign, Eligible, Rule};
use super::state::State;
use super::time::Instant;

/// A number of awards, and their points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub awards: i64,
    pub points: i64,
}

impl Sum {
    /// Returns the sum over these awards.
    pub fn of<'a>(awards: impl IntoIterator<Item = &'a Reached>) -> Self {
        awards.into_iter().fold(Self::default(), |sum, award| sum + Self { awards: 1, points: award.points })
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { awards: self.awards + other.awards, points: self.points + other.points }
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Sum {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { awards: self.awards - other.awards, points: self.points - other.points }
    }
}

/// How many awards of a customer are kept at most, and how many points they have at most. `i64::MAX` stands for no cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps(Sum);

impl Caps {
    pub const NONE: Self = Self(Sum { awards: i64::MAX, points: i64::MAX });

    /// Returns the caps of a rule.
    pub fn of(rule: &Rule) -> Self {
        let only_window = rule.window.is_only_one();
        let per_window = rule.max_per_window.filter(|_| only_window);
        let points_per_window = rule.max_points_per_window.filter(|_| only_window);
        let awards = rule.max_per_customer.into_iter().chain(per_window).min().map_or(i64::MAX, i64::from);
        let points = rule.max_points_per_customer.into_iter().chain(points_per_window).min().unwrap_or(i64::MAX);
        Self(Sum { awards, points })
    }

    /// Whether there is a cap.
    pub fn exist(self) -> bool {
        self != Self::NONE
    }

    /// Whether no award beside these is kept.
    pub(super) fn are_used_up(self, kept: Sum) -> bool {
        kept.awards >= self.0.awards || kept.points >= self.0.points
    }

    /// Keeps what the caps leave of the awards from this index on. The caps are what is left of them, before and after.
    pub fn keep(&mut self, awards: &mut Vec<Reached>, from: usize) {
        for at in from..awards.len() {
            if self.0.awards <= 0 || self.0.points <= 0 {
                awards.truncate(at);
                return;
            }
            let award = &mut awards[at];
            award.points = award.points.min(self.0.points);
            self.0 =
                Sum { awards: self.0.awards.saturating_sub(1), points: self.0.points.saturating_sub(award.points) };
        }
    }

    /// Returns by how much the awards exceed the caps.
    fn excess(self, total: Sum) -> Excess {
        let above = |total: i64, cap: i64| (total - cap.min(total)).max(0);
        Excess(Sum { awards: above(total.awards, self.0.awards), points: above(total.points, self.0.points) })
    }

    /// Returns what these awards leave of the caps.
    fn room(self, total: Sum) -> Sum {
        let left = |total: i64, cap: i64| cap.saturating_sub(total).max(0);
        Sum { awards: left(total.awards, self.0.awards), points: left(total.points, self.0.points) }
    }
}

/// By how much awards exceed the caps. The last awards are taken away, and the one that exceeds the points only in part is trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess(Sum);

/// What becomes of the last award.
enum Taken {
    /// It stays as it is.
    Stays,
    /// It keeps this many points.
    Trimmed(i64),
    Whole,
}

impl Excess {
    fn is_none(self) -> bool {
        self.0.awards <= 0 && self.0.points <= 0
    }

    fn take(&mut self, points: i64) -> Taken {
        if self.is_none() {
            return Taken::Stays;
        }
        if self.0.awards <= 0 && points > self.0.points {
            let kept = points - self.0.points;
            self.0.points = 0;
            return Taken::Trimmed(kept);
        }
        self.0 = self.0 - Sum { awards: 1, points };
        Taken::Whole
    }

    /// Whether nothing is left of the excess once these awards are taken away. They are the points of the last awards, latest first.
    pub fn is_covered_by(mut self, last: &[i64]) -> bool {
        for points in last {
            self.take(*points);
        }
        self.is_none()
    }

    /// Returns the fewest awards that must be looked at.
    pub fn awards(self) -> usize {
        usize::try_from(self.0.awards.max(1)).unwrap_or(usize::MAX)
    }
}

/// What the caps do to the awards after a folded stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// The recorded awards stay, and no others are kept.
    Stay,
    /// The last recorded awards are beyond the caps now, as far as they cover this excess.
    Leave(Excess),
    /// Awards that were beyond the caps, or were trimmed, have this room now.
    Enter(Sum),
}

/// Returns what the caps do to the awards after a folded stretch. `recorded` is the sum over the customer's `STANDING` and
/// `DECLINED` awards in the campaign, and `in_stretch` over those of these in the stretch.
pub fn following(rule: &Rule, outcome: &Outcome, recorded: Sum, in_stretch: Sum) -> Following {
    let caps = Caps::of(rule);
    if outcome.stretch.to.is_none() || !caps.exist() {
        return Following::Stay;
    }
    let total = recorded - in_stretch + Sum::of(&outcome.awards);
    let excess = caps.excess(total);
    if !excess.is_none() {
        return Following::Leave(excess);
    }
    let room = caps.room(total);
    let may_grow = rule.caps_points() && recorded.points >= caps.0.points;
    let may_enter = caps.are_used_up(recorded) && room.awards > 0;
    if room.points > 0 && (may_grow || may_enter) { Following::Enter(room) } else { Following::Stay }
}

/// Which of the last recorded awards after a stretch the caps no longer keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// This many of them leave, latest first.
    pub whole: usize,
    /// The next one keeps this many points.
    pub trimmed: Option<i64>,
}

/// Takes away what exceeds the caps: first from the recorded awards after the stretch, whose points are `last`, latest first; then
/// from those of the outcome. `last` must cover the excess that [`following`] returned, or be all there are. For the other
/// parameters, see [`following`].
pub fn cut(rule: &Rule, outcome: &mut Outcome, recorded: Sum, in_stretch: Sum, last: &[i64]) -> Leaving {
    let mut excess = Caps::of(rule).excess(recorded - in_stretch + Sum::of(&outcome.awards));
    let mut leaving = Leaving::default();
    for points in last {
        match excess.take(*points) {
            Taken::Stays => return leaving,
            Taken::Trimmed(kept) => return Leaving { trimmed: Some(kept), ..leaving },
            Taken::Whole => leaving.whole += 1,
        }
    }
    while let Some(last) = outcome.awards.last_mut() {
        match excess.take(last.points) {
            Taken::Stays => break,
            Taken::Trimmed(kept) => {
                last.points = kept;
                break;
            }
            Taken::Whole => drop(outcome.awards.pop()),
        }
    }
    leaving
}

/// A search for the first awards after the last recorded one. The caps did not keep them until now.
#[derive(Clone, Debug)]
pub struct Further<'a> {
    refold: Refold<'a>,
    /// The search returns awards after this one only.
    after: AwardPlace,
    /// Whether it returns that one too, because it may have been trimmed.
    and_itself: bool,
    /// What the found awards may have at most.
    room: Sum,
}

impl<'a> Further<'a> {
    /// Searches after the last recorded award, which lies after the folded stretch and has these points. If points are capped, it may
    /// have been trimmed, so it is found again with what the caps leave it now: see [`Self::finds_last`].
    pub fn after_award(campaign: Campaign<'a>, last: AwardPlace, points: i64, room: Sum) -> Self {
        let and_itself = Self::finds_last(campaign.rule);
        let room = if and_itself { room + Sum { awards: 1, points } } else { room };
        Self { refold: Refold::search_before(campaign, last.0.clone()), after: last, and_itself, room }
    }

    /// Whether [`Self::after_award`] finds the last recorded award again.
    pub const fn finds_last(rule: &Rule) -> bool {
        rule.caps_points()
    }

    /// Searches after the folded stretch, because no recorded award lies there. The fold of the stretch stopped at the stored
    /// state `met`.
    pub fn after_stretch(campaign: Campaign<'a>, met: State, room: Sum) -> Self {
        let after = met.last.clone().unwrap_or_else(|| Key::before(Instant::NEVER));
        let after = (after, i32::MAX);
        Self { refold: Refold::search_from(campaign, met), after, and_itself: false, room }
    }

    fn found(&self) -> impl Iterator<Item = &Reached> {
        let is_after = |award: &&Reached| {
            let place = award.place();
            place > self.after || (self.and_itself && place == self.after)
        };
        self.refold.awards().iter().filter(is_after)
    }

    /// See [`Refold::load`]. Returns `None` as soon as enough awards are found.
    pub fn load(&mut self) -> Option<Load> {
        let load = self.refold.load();
        load.filter(|_| !Caps(self.room).are_used_up(Sum::of(self.found())))
    }

    /// Does the same as [`Refold::feed_checkpoints`].
    pub fn feed_checkpoints(&mut self, before: Option<State>, ahead: Vec<State>) {
        self.refold.feed_checkpoints(before, ahead);
    }

    /// Does the same as [`Refold::feed`].
    pub fn feed(&mut self, purchases: Vec<Eligible>, to: Option<Key>) {
        self.refold.feed(purchases, to);
    }

    /// Returns the awards that were found, in award order.
    pub fn finish(self) -> Vec<Reached> {
        let mut found = self.found().cloned().collect();
        Caps(self.room).keep(&mut found, 0);
        found
    }
}
