//! A fold under way: purchases go in chunk by chunk, awards and checkpoints come out.
//!
//! Rolling windows look back. What counts in them is not kept whole: a purchase is loaded once more when it becomes too
//! old, or when a completion uses it up and its key opens the award's window. So a fold holds a chunk and what it looks
//! back on, never a whole window.

use super::award::Reached;
use super::evaluate::{CHECKPOINT_EVERY, Tail};
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::{State, first_after, too_old};
use super::stretch::Stretch;
use super::window::WindowRule;

/// The most purchases that a rolling fold keeps from one chunk for the next.
const KEPT: usize = 1_024;
/// Stored bytes of a purchase, at the least. A state with many items waits for the next checkpoint until as many bytes
/// of purchases as it has itself have passed: so checkpoints take no more room than the history.
const PURCHASE_BYTES: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Fold<'a> {
    pub(super) campaign: Campaign<'a>,
    pub(super) checkpoint_every: u32,
    pub(super) tail: Tail,
    /// Reached by what was folded in: of each fold the first that the customer's cap can leave.
    pub(super) awards: Vec<Reached>,
    pub(super) most_awards: usize,
    pub(super) checkpoints: Vec<State>,
    /// In order: those to fold in and, rolling, those before them that are loaded and still count.
    purchases: Vec<Eligible>,
    /// Rolling: all that counts up to here is among `purchases` …
    seen_to: Option<Key>,
    /// … and all that counts after this key. What lies between is loaded when it is needed.
    gap_to: Option<Key>,
}

/// How far a fold came.
pub(super) enum Ran {
    /// Everything is folded in.
    Through,
    /// The condition to stop held.
    Stopped,
    /// Rolling: it looks back on this, which must be loaded first.
    Wants(Stretch),
}

impl<'a> Fold<'a> {
    pub(super) fn new(campaign: Campaign<'a>, tail: Tail) -> Self {
        let most_awards = campaign.rule.most_awards().and_then(|most| usize::try_from(most).ok());
        Self {
            campaign,
            checkpoint_every: CHECKPOINT_EVERY,
            awards: Vec::new(),
            most_awards: most_awards.unwrap_or(usize::MAX),
            checkpoints: Vec::new(),
            purchases: Vec::new(),
            seen_to: None,
            gap_to: tail.state.last.clone(),
            tail,
        }
    }

    /// Starts again, from a stored state.
    pub(super) fn restart(&mut self, state: State) {
        self.gap_to.clone_from(&state.last);
        self.tail = Tail { state, since_checkpoint: 0 };
    }

    /// How far back a rolling window reaches.
    fn rolling(&self) -> Option<i64> {
        match &self.campaign.rule.window {
            WindowRule::Rolling { duration } => Some(duration.micros()),
            _ => None,
        }
    }

    /// Takes the next purchases to fold in, in any order; keeps what still counts of those before.
    pub(super) fn go_on(&mut self, chunk: Vec<Eligible>) {
        if self.rolling().is_some() {
            self.keep_what_counts();
        } else {
            self.purchases.clear();
        }
        self.add(chunk);
    }

    /// Takes what it looks back on, up to this key, in any order.
    pub(super) fn look_back(&mut self, loaded: Vec<Eligible>, to: Key) {
        let used_to = &self.tail.state.used_to;
        self.purchases.retain(|purchase| Some(&purchase.key) > used_to.as_ref());
        self.seen_to = self.seen_to.take().max(Some(to));
        self.add(loaded);
    }

    fn add(&mut self, purchases: Vec<Eligible>) {
        self.purchases.extend(purchases);
        self.purchases.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.purchases.dedup_by(|a, b| a.key == b.key);
    }

    /// Once everything is folded in.
    fn keep_what_counts(&mut self) {
        let used_to = &self.tail.state.used_to;
        self.purchases.retain(|purchase| Some(&purchase.key) > used_to.as_ref());
        if self.purchases.len() <= KEPT {
            return;
        }
        if self.has_gap() {
            self.purchases.retain(|purchase| Some(&purchase.key) <= self.seen_to.as_ref());
        } else {
            self.purchases.truncate(KEPT);
            self.seen_to = self.purchases.last().map(|purchase| purchase.key.clone());
        }
        self.gap_to.clone_from(&self.tail.state.last);
    }

    /// Folds in the purchases after the state's last, as far as what they look back on is loaded; stops after the first
    /// for which `stop` holds.
    pub(super) fn run(&mut self, stop: impl Fn(&State) -> bool) -> Ran {
        let last = self.tail.state.last.as_ref();
        let start = last.map_or(0, |last| self.purchases.partition_point(|purchase| purchase.key <= *last));
        for next in start..self.purchases.len() {
            if let Some(stretch) = self.looks_back(next) {
                return Ran::Wants(stretch);
            }
            self.tail.state.step(self.campaign, &self.purchases, next, &mut self.awards);
            self.awards.truncate(self.most_awards);
            if self.tail.state.last.as_ref() != Some(&self.purchases[next].key) {
                continue;
            }
            if stop(&self.tail.state) {
                return Ran::Stopped;
            }
            self.tail.since_checkpoint += 1;
            if self.is_checkpoint_due() {
                self.tail.since_checkpoint = 0;
                self.checkpoints.push(self.tail.state.clone());
            }
        }
        Ran::Through
    }

    fn is_checkpoint_due(&self) -> bool {
        let Tail { state, since_checkpoint } = &self.tail;
        let passed_bytes = usize::try_from(*since_checkpoint).unwrap_or(usize::MAX).saturating_mul(PURCHASE_BYTES);
        *since_checkpoint >= self.checkpoint_every && passed_bytes >= state.item_bytes()
    }

    /// Rolling: what must be loaded before this purchase is folded in. What is too old beside it; and, if it completes
    /// the goal, what that uses up: only if it does, for in a window that stays just short of its goal, each append
    /// would load all of it.
    fn looks_back(&mut self, next: usize) -> Option<Stretch> {
        let duration = self.rolling()?;
        if !self.has_gap() {
            return None;
        }
        let gap_to = self.gap_to.clone()?;
        let old_beside = |at| too_old(at, duration).min(gap_to.clone());
        let old = old_beside(self.purchases[next].key.at);
        let seen_to = self.seen_to().cloned();
        let expired_to = seen_to.clone().map(|seen_to| seen_to.min(old.clone()));
        if let Some(expired_to) = expired_to {
            self.tail.state.expire(&self.campaign.rule.goal, &self.purchases[..next], expired_to);
        }
        if seen_to.as_ref() < Some(&old) {
            // For all that are to be folded in, so that they do not ask one by one.
            let to = self.purchases.last().map(|last| old_beside(last.key.at));
            return Some(Stretch { after: seen_to, to });
        }
        let opens = first_after(&self.purchases[..next], self.tail.state.used_to.as_ref());
        let is_open = opens.is_none_or(|opens| Some(&opens.key) > seen_to.as_ref());
        let reaches = self.tail.state.reaches(&self.campaign.rule.goal, &self.purchases[next]);
        (is_open && reaches && self.has_gap()).then_some(Stretch { after: seen_to, to: Some(gap_to) })
    }

    /// Rolling: some of what counts may not be loaded.
    fn has_gap(&self) -> bool {
        self.tail.state.count > 0 && self.seen_to() < self.gap_to.as_ref()
    }

    fn seen_to(&self) -> Option<&Key> {
        self.seen_to.as_ref().max(self.tail.state.used_to.as_ref())
    }
}
