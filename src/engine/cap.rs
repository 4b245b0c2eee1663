//! The cap on a customer's awards: in award order, the first so many of what the fold reached.
//!
//! States know nothing of it, so two folds meet again as soon as they would without a cap. Where it does not bind, a
//! change costs nothing more; where it does, a change in one stretch of the history also takes awards from the end of
//! those that are recorded, or lets in the first that were beyond the cap until now ([`Further`]).

use super::award::Reached;
use super::evaluate::{Load, Outcome, Refold};
use super::purchase::Key;
use super::rule::{Campaign, Eligible, Rule};
use super::state::State;
use super::time::Instant;

/// What a folded stretch means for the awards that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Following {
    /// They stay as they are.
    Stay,
    /// So many at the most, the last ones, are beyond the cap now.
    Leave(usize),
    /// So many that were beyond the cap may come in.
    Enter(usize),
}

/// `recorded`: how many reached awards of the customer in the campaign are recorded, and how many of these lie in the
/// stretch.
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

/// Cuts what the stretch reached to what the cap leaves beside the `recorded` awards outside of it, `leave` of which go.
pub fn cut(rule: &Rule, outcome: &mut Outcome, recorded: usize, in_stretch: usize, leave: usize) {
    if let Some(left) = left(rule, recorded, in_stretch) {
        outcome.awards.truncate(left + leave);
    }
}

/// How many awards of the stretch have a place beside those outside of it.
fn left(rule: &Rule, recorded: usize, in_stretch: usize) -> Option<usize> {
    let most = usize::try_from(rule.most_awards()?).unwrap_or(usize::MAX);
    Some(most.saturating_sub(recorded.saturating_sub(in_stretch)))
}

/// A search for the first awards after the last one that is recorded: what the cap kept out until now.
#[derive(Clone, Debug)]
pub struct Further<'a> {
    refold: Refold<'a>,
    /// The last that is recorded: its purchase, and which of its awards.
    after: (Key, i32),
    room: usize,
}

impl<'a> Further<'a> {
    /// After a recorded award that lies behind the stretch.
    pub fn after_award(campaign: Campaign<'a>, last: (Key, i32), room: usize) -> Self {
        Self { refold: Refold::search_before(campaign, last.0.clone()), after: last, room }
    }

    /// After the stretch, whose fold met this state.
    pub fn after_stretch(campaign: Campaign<'a>, met: State, room: usize) -> Self {
        let after = met.last.clone().unwrap_or_else(|| Key::before(Instant::NEVER));
        Self { refold: Refold::search_from(campaign, met), after: (after, i32::MAX), room }
    }

    fn found(&self) -> impl Iterator<Item = &Reached> {
        let is_after = |award: &&Reached| (&award.by, award.nth) > (&self.after.0, self.after.1);
        self.refold.awards().iter().filter(is_after).take(self.room)
    }

    /// See [`Refold::load`].
    pub fn load(&mut self) -> Option<Load> {
        let load = self.refold.load();
        load.filter(|_| self.found().count() < self.room)
    }

    /// See [`Refold::feed_checkpoints`].
    pub fn feed_checkpoints(&mut self, before: Option<State>, ahead: Vec<State>) {
        self.refold.feed_checkpoints(before, ahead);
    }

    /// See [`Refold::feed`].
    pub fn feed(&mut self, purchases: Vec<Eligible>, to: Option<Key>) {
        self.refold.feed(purchases, to);
    }

    /// What it found.
    pub fn finish(self) -> Vec<Reached> {
        self.found().cloned().collect()
    }
}
