//! The cap on a customer's awards in a campaign, [`Rule::most_awards`]: the first awards in award order are kept.
//!
//! This cap is `maxPerCustomer`. If a customer can have only one window, it is the lower of `maxPerCustomer` and
//! `maxPerWindow`. In all other campaigns, [`super::state`] applies `maxPerWindow`.
//!
//! A [`State`] does not depend on this cap, so two folds meet again as soon as they would without it. As long as a customer
//! stays below the cap, the cap adds no cost to a change. At the cap, a change in one stretch of the history can push the
//! last recorded awards beyond the cap, or make room for awards that were beyond it until now ([`Further`]).

use super::award::{AwardPlace, Reached};
use super::evaluate::{Load, Outcome, Refold};
use super::purchase::Key;
use super::rule::{Campaign, Eligible, Rule};
use super::state::State;
use super::time::Instant;

/// What the cap does to the awards after a folded stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// The recorded awards stay, and no others are kept.
    Stay,
    /// At most this many recorded awards, the last ones, are beyond the cap now.
    Leave(usize),
    /// At most this many awards that were beyond the cap are kept now.
    Enter(usize),
}

/// Returns what the cap does to the awards after a folded stretch. `recorded` is the number of the customer's `STANDING` and
/// `DECLINED` awards in the campaign, and `in_stretch` is how many of these are in the stretch.
pub fn following(rule: &Rule, outcome: &Outcome, recorded: usize, in_stretch: usize) -> Following {
    let Some(left) = left(rule, recorded, in_stretch) else { return Following::Stay };
    let reached = outcome.awards.len();
    let was_full = left <= in_stretch;
    match outcome.stretch.to {
        Some(_) if reached > left => Following::Leave(reached - left),
        Some(_) if reached < left && was_full => Following::Enter(left - reached),
        _ => Following::Stay,
    }
}

/// Drops the awards of the outcome that the cap does not keep in addition to the recorded awards outside the stretch. `leave`
/// is how many of these recorded awards are no longer kept. For the other parameters, see [`following`].
pub fn cut(rule: &Rule, outcome: &mut Outcome, recorded: usize, in_stretch: usize, leave: usize) {
    if let Some(left) = left(rule, recorded, in_stretch) {
        outcome.awards.truncate(left + leave);
    }
}

/// Returns how many awards of the stretch the cap can keep in addition to the recorded awards outside of it. `None` means no
/// cap.
fn left(rule: &Rule, recorded: usize, in_stretch: usize) -> Option<usize> {
    let most = usize::try_from(rule.most_awards()?).unwrap_or(usize::MAX);
    Some(most.saturating_sub(recorded.saturating_sub(in_stretch)))
}

/// A search for the first awards after the last recorded one. The cap did not keep them until now.
#[derive(Clone, Debug)]
pub struct Further<'a> {
    refold: Refold<'a>,
    /// The search returns awards after this one only.
    after: AwardPlace,
    /// The most awards that the search returns.
    room: usize,
}

impl<'a> Further<'a> {
    /// Searches after `last`, the last recorded award. It lies after the folded stretch.
    pub fn after_award(campaign: Campaign<'a>, last: AwardPlace, room: usize) -> Self {
        Self { refold: Refold::search_before(campaign, last.0.clone()), after: last, room }
    }

    /// Searches after the folded stretch, because no recorded award lies there. The fold of the stretch stopped at the stored
    /// state `met`.
    pub fn after_stretch(campaign: Campaign<'a>, met: State, room: usize) -> Self {
        let after = met.last.clone().unwrap_or_else(|| Key::before(Instant::NEVER));
        Self { refold: Refold::search_from(campaign, met), after: (after, i32::MAX), room }
    }

    fn found(&self) -> impl Iterator<Item = &Reached> {
        let is_after = |award: &&Reached| award.place() > self.after;
        self.refold.awards().iter().filter(is_after).take(self.room)
    }

    /// See [`Refold::load`]. Returns `None` as soon as enough awards are found.
    pub fn load(&mut self) -> Option<Load> {
        let load = self.refold.load();
        load.filter(|_| self.found().count() < self.room)
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
        self.found().cloned().collect()
    }
}
