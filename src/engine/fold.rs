//! A fold in progress: it takes purchases chunk by chunk and returns awards and checkpoints.
//!
//! A fold over a rolling window looks back on purchases that it has already counted. It does not keep all of them: a
//! purchase is loaded again when it becomes too old, or when it may be the first one that an award uses up, which opens the
//! window of the award. So a fold holds one chunk and what it looks back on, never a whole window.

use super::award::Reached;
use super::cap::{Caps, Sum};
use super::evaluate::{CHECKPOINT_EVERY, Tail};
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::{State, first_after, too_old};
use super::stretch::Stretch;
use super::window::WindowRule;

/// The most purchases that a fold over a rolling window keeps from one chunk to the next.
const KEPT: usize = 1_024;
/// The fewest bytes that a stored purchase takes. A state with many items becomes a checkpoint only after purchases of at
/// least its own size were counted. So checkpoints take no more room than the history.
const PURCHASE_BYTES: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Fold<'a> {
    pub(super) campaign: Campaign<'a>,
    pub(super) checkpoint_every: u32,
    pub(super) tail: Tail,
    /// The first awards that were reached. Those that the caps of the customer cannot keep are dropped.
    pub(super) awards: Vec<Reached>,
    /// The caps of the customer.
    pub(super) caps: Caps,
    /// The sum over `awards`.
    kept: Sum,
    pub(super) checkpoints: Vec<State>,
    /// In order: the purchases to fold in and, for a rolling window, the loaded ones before them that still count.
    purchases: Vec<Eligible>,
    /// Rolling windows only: `purchases` contains all counted purchases up to this key, and all after `gap_to`.
    seen_to: Option<Key>,
    /// Rolling windows only: counted purchases after `seen_to` and up to this key are loaded when they are needed.
    gap_to: Option<Key>,
}

/// Why a run of a fold ended.
pub(super) enum Ran {
    /// All purchases of the chunk are folded in.
    Through,
    /// The condition of the caller stopped the fold.
    Stopped,
    /// Rolling windows only: the fold must look back on this stretch, which is not loaded.
    Wants(Stretch),
}

impl<'a> Fold<'a> {
    pub(super) fn new(campaign: Campaign<'a>, tail: Tail) -> Self {
        Self {
            campaign,
            checkpoint_every: CHECKPOINT_EVERY,
            awards: Vec::new(),
            caps: Caps::of(campaign.rule),
            kept: Sum::default(),
            checkpoints: Vec::new(),
            purchases: Vec::new(),
            seen_to: None,
            gap_to: tail.state.last.clone(),
            tail,
        }
    }

    /// Replaces the state from which the fold starts. No purchase may have been folded in yet.
    pub(super) fn restart(&mut self, state: State) {
        self.gap_to.clone_from(&state.last);
        self.tail = Tail { state, since_checkpoint: 0 };
    }

    /// Returns the duration of a rolling window (µs), or `None` for any other window.
    fn rolling(&self) -> Option<i64> {
        match &self.campaign.rule.window {
            WindowRule::Rolling { duration } => Some(duration.micros()),
            _ => None,
        }
    }

    /// Takes the next purchases to fold in, in any order. For a rolling window, keeps earlier ones that still count.
    pub(super) fn go_on(&mut self, chunk: Vec<Eligible>) {
        if self.rolling().is_some() {
            self.keep_what_counts();
        } else {
            self.purchases.clear();
        }
        self.add(chunk);
    }

    /// Takes the purchases that the fold looks back on, in any order. They are complete up to the key `to`.
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

    /// Drops purchases that no longer count. If more than [`KEPT`] are left, drops the newer ones as well; they are loaded
    /// again when they are needed. Everything must be folded in.
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

    /// Folds in the purchases after the last one of the state, until one must look back on purchases that are not loaded.
    /// Stops after the first purchase for which `stop` holds.
    pub(super) fn run(&mut self, stop: impl Fn(&State) -> bool) -> Ran {
        let last = self.tail.state.last.as_ref();
        let start = last.map_or(0, |last| self.purchases.partition_point(|purchase| purchase.key <= *last));
        for next in start..self.purchases.len() {
            if let Some(stretch) = self.looks_back(next) {
                return Ran::Wants(stretch);
            }
            let before = self.awards.len();
            self.tail.state.step(self.campaign, &self.purchases, next, &mut self.awards);
            self.keep(before);
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

    /// Keeps the awards from this index on up to the one that uses up the caps.
    fn keep(&mut self, from: usize) {
        for at in from..self.awards.len() {
            if self.caps.are_used_up(self.kept) {
                self.awards.truncate(at);
                return;
            }
            self.kept += Sum::of([&self.awards[at]]);
        }
    }

    fn is_checkpoint_due(&self) -> bool {
        let Tail { state, since_checkpoint } = &self.tail;
        let passed_bytes = usize::try_from(*since_checkpoint).unwrap_or(usize::MAX).saturating_mul(PURCHASE_BYTES);
        *since_checkpoint >= self.checkpoint_every && passed_bytes >= state.item_bytes()
    }

    /// Returns what must be loaded before this purchase is folded in: the purchases that are too old by then and, if this
    /// purchase reaches the goal, the first one that the award uses up. The latter is not loaded in advance, because each
    /// append to a window that stays just short of its goal might then load the whole window.
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
            self.tail.state.expire(&self.purchases[..next], expired_to);
        }
        if seen_to.as_ref() < Some(&old) {
            // Asks for all that is too old by the last purchase of the chunk, so that the others need not ask one by one.
            let to = self.purchases.last().map(|last| old_beside(last.key.at));
            return Some(Stretch { after: seen_to, to });
        }
        let opens = first_after(&self.purchases[..next], self.tail.state.used_to.as_ref());
        let is_open = opens.is_none_or(|opens| Some(&opens.key) > seen_to.as_ref());
        let reaches = self.tail.state.reaches(&self.campaign.rule.goal, &self.purchases[next]);
        (is_open && reaches && self.has_gap()).then_some(Stretch { after: seen_to, to: Some(gap_to) })
    }

    /// Whether some counted purchases of a rolling window may not be loaded.
    fn has_gap(&self) -> bool {
        self.tail.state.count > 0 && self.seen_to() < self.gap_to.as_ref()
    }

    fn seen_to(&self) -> Option<&Key> {
        self.seen_to.as_ref().max(self.tail.state.used_to.as_ref())
    }
}
