//! What a change can affect, what must be loaded to see it, and the fold from there.
//!
//! The caller stores, for each customer and campaign, the state after the last counted purchase (the *tail*) and a
//! *checkpoint* (an earlier state) about every [`CHECKPOINT_EVERY`] counted purchases. Then
//! - purchases after the tail are folded into it: nothing is loaded, rolling windows aside ([`Append`]);
//! - anything else is folded again from the last checkpoint before it, chunk by chunk, until a later checkpoint comes
//!   out unchanged: from there on nothing can differ ([`Refold`]).
//!
//! So the cost of a change follows from what it can affect, never from the length of the customer's history.

use super::award::Reached;
use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::State;
use super::window::WindowRule;

/// Counted purchases between two checkpoints.
pub const CHECKPOINT_EVERY: u32 = 64;

/// How one purchase's contribution changed in a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// None: it did not count, or was not there.
    pub before: Option<Eligible>,
    /// None: it does not count.
    pub after: Option<Eligible>,
}

/// Purchases of one customer with `after < key <= to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Exclusive; none: from the period's start.
    pub after: Option<Key>,
    /// Inclusive; none: without end.
    pub to: Option<Key>,
}

impl Range {
    /// Whether the purchase lies inside.
    pub fn contains(&self, key: &Key) -> bool {
        self.after.as_ref().is_none_or(|after| key > after) && self.to.as_ref().is_none_or(|to| key <= to)
    }
}

/// What a commit's changes mean for one customer and campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing can differ.
    Unaffected,
    /// All changes lie after the tail.
    Append(Append),
    /// Fold again all that follows the first changed key, at least past the last.
    Refold {
        /// The first changed key.
        first: Key,
        /// The last changed key.
        last: Key,
    },
}

/// New purchases after the tail, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// What must be loaded beside them.
    pub load: Option<Range>,
    new: Vec<Eligible>,
}

/// Sorts a commit's changes into what they can affect.
pub fn plan(campaign: Campaign<'_>, tail: &State, changes: Vec<Change>) -> Plan {
    let is_new = |key: &Key| tail.last.as_ref().is_none_or(|last| key > last);
    let mut new = Vec::new();
    let mut first: Option<Key> = None;
    let mut last: Option<Key> = None;
    for Change { before, after } in changes.into_iter().filter(|change| change.before != change.after) {
        let Some(key) = before.as_ref().or(after.as_ref()).map(|eligible| eligible.key.clone()) else { continue };
        if is_new(&key) {
            // One that counted before, yet lies after the tail, was passed over by the window and moved nothing.
            if before.is_none() {
                new.extend(after);
            }
            continue;
        }
        first = Some(first.map_or(key.clone(), |first| first.min(key.clone())));
        last = Some(last.map_or(key.clone(), |last| last.max(key)));
    }
    if let (Some(first), Some(last)) = (first, last) {
        let last = new.into_iter().map(|eligible| eligible.key).fold(last, Ord::max);
        return Plan::Refold { first, last };
    }
    if new.is_empty() {
        return Plan::Unaffected;
    }
    new.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Plan::Append(Append { load: look_back(campaign, tail, &new), new })
}

/// What an append to a rolling window must see: what becomes too old, and everything unused once the goal can be
/// reached (the first of them opens the award's window).
fn look_back(campaign: Campaign<'_>, tail: &State, new: &[Eligible]) -> Option<Range> {
    let WindowRule::Rolling { duration } = &campaign.rule.window else { return None };
    let last = &new.last()?.key;
    let amounts: i64 = new.iter().map(|purchase| purchase.amount).sum();
    let can_reach = match &campaign.rule.goal {
        Goal::Purchases { at_least, .. } => tail.count + new.len() as i64 >= i64::from(*at_least),
        Goal::Spend { at_least, .. } => tail.sum + amounts >= *at_least,
        Goal::Distinct { at_least, .. } => {
            let items: usize = new.iter().map(|purchase| purchase.items.len()).sum();
            (tail.items.len() + items) as i64 >= i64::from(*at_least)
        }
        Goal::EveryPurchase | Goal::Streak { .. } => true,
    };
    let too_old = Key::before(last.at.minus(duration.micros()).plus(1));
    let expires = tail.count > 0 && tail.used_to.as_ref().is_none_or(|used_to| *used_to < too_old);
    let to = if can_reach { last.clone() } else { too_old };
    (tail.count > 0 && (can_reach || expires)).then(|| Range { after: tail.used_to.clone(), to: Some(to) })
}

/// A stored tail: the state and how far it is from its last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// After the last counted purchase.
    pub state: State,
    /// Purchases counted since the last checkpoint (or the beginning).
    pub since_checkpoint: u32,
}

/// What a fold found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Reached after [`Self::from`], up to [`Self::to`], in award order.
    pub awards: Vec<Reached>,
    /// Exclusive; none: from the beginning.
    pub from: Option<Key>,
    /// Inclusive: from here on nothing differs; none: to the end.
    pub to: Option<Key>,
    /// The new purchases lay after the tail: nothing that is recorded can differ.
    pub appended: bool,
    /// Checkpoints to store; those stored between `from` and `to` are void.
    pub checkpoints: Vec<State>,
    /// To store in place of the tail; none: it stays.
    pub tail: Option<Tail>,
}

impl Append {
    /// Folds the new purchases into the tail. `loaded` is what [`Self::load`] asked for, in any order; the new ones
    /// may be among them.
    pub fn fold(self, campaign: Campaign<'_>, tail: Tail, loaded: Vec<Eligible>) -> Outcome {
        let from = tail.state.last.clone();
        let mut fold = Fold { campaign, tail, awards: Vec::new(), checkpoints: Vec::new() };
        let mut purchases = loaded;
        purchases.extend(self.new);
        sort(&mut purchases);
        fold.run(&purchases, |_| false);
        let Fold { tail, awards, checkpoints, .. } = fold;
        Outcome { awards, from, to: None, appended: true, checkpoints, tail: Some(tail) }
    }
}

/// A fold over what is stored already, chunk by chunk: ask [`Self::load`], answer with [`Self::feed`], until it is
/// done.
pub struct Refold<'a> {
    fold: Fold<'a>,
    from: Option<Key>,
    /// Stored states at or after the last change, in order: where one comes out unchanged, the rest stands.
    ahead: Vec<State>,
    /// How many of `ahead` the next chunk spans. It grows, so that the number of chunks is logarithmic.
    stride: usize,
    /// The key of `ahead` that came out unchanged.
    met: Option<Key>,
    ended: bool,
}

impl<'a> Refold<'a> {
    /// Starts from the last of the stored checkpoints (in order) before `first`.
    pub fn new(campaign: Campaign<'a>, checkpoints: Vec<State>, first: &Key, last: &Key) -> Self {
        let at = |state: &State| state.last.clone();
        let restart = checkpoints.iter().rfind(|state| at(state).is_some_and(|key| key < *first)).cloned();
        let ahead = checkpoints.into_iter().filter(|state| at(state).is_some_and(|key| key >= *last)).collect();
        Self::from_state(campaign, restart.unwrap_or_default(), ahead)
    }

    /// Starts from the beginning: the whole period.
    pub fn whole(campaign: Campaign<'a>) -> Self {
        Self::from_state(campaign, State::default(), Vec::new())
    }

    fn from_state(campaign: Campaign<'a>, state: State, ahead: Vec<State>) -> Self {
        let from = state.last.clone();
        let tail = Tail { state, since_checkpoint: 0 };
        let fold = Fold { campaign, tail, awards: Vec::new(), checkpoints: Vec::new() };
        Self { fold, from, ahead, stride: 1, met: None, ended: false }
    }

    /// The next purchases to load; none: done.
    pub fn load(&self) -> Option<Range> {
        if self.ended || self.met.is_some() {
            return None;
        }
        let state = &self.fold.tail.state;
        let rolling = matches!(self.fold.campaign.rule.window, WindowRule::Rolling { .. });
        let after = if rolling { &state.used_to } else { &state.last };
        Some(Range { after: after.clone(), to: self.chunk_end() })
    }

    fn chunk_end(&self) -> Option<Key> {
        self.ahead.get(self.stride - 1).and_then(|state| state.last.clone())
    }

    /// Folds in what [`Self::load`] asked for, in any order.
    pub fn feed(&mut self, mut purchases: Vec<Eligible>) {
        sort(&mut purchases);
        let end = self.chunk_end();
        let ahead = std::mem::take(&mut self.ahead);
        let met = self.fold.run(&purchases, |state| {
            ahead.binary_search_by(|stored| stored.last.cmp(&state.last)).is_ok_and(|at| ahead[at] == *state)
        });
        if met {
            self.met = self.fold.tail.state.last.clone();
        }
        self.ended = end.is_none();
        self.ahead = ahead.into_iter().filter(|state| state.last > end).collect();
        self.stride *= 4;
    }

    /// What it found.
    pub fn finish(self) -> Outcome {
        let Fold { tail, awards, checkpoints, .. } = self.fold;
        let tail = self.met.is_none().then_some(tail);
        Outcome { awards, from: self.from, to: self.met, appended: false, checkpoints, tail }
    }
}

fn sort(purchases: &mut Vec<Eligible>) {
    purchases.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    purchases.dedup_by(|a, b| a.key == b.key);
}

struct Fold<'a> {
    campaign: Campaign<'a>,
    tail: Tail,
    awards: Vec<Reached>,
    checkpoints: Vec<State>,
}

impl Fold<'_> {
    /// Folds in the purchases after the state's last; stops, true, after the first for which `stop` holds.
    fn run(&mut self, purchases: &[Eligible], stop: impl Fn(&State) -> bool) -> bool {
        let start = self.tail.state.last.as_ref().map_or(0, |last| purchases.partition_point(|p| p.key <= *last));
        for next in start..purchases.len() {
            self.tail.state.step(self.campaign, purchases, next, &mut self.awards);
            if self.tail.state.last.as_ref() != Some(&purchases[next].key) {
                continue;
            }
            if stop(&self.tail.state) {
                return true;
            }
            self.tail.since_checkpoint += 1;
            if self.tail.since_checkpoint == CHECKPOINT_EVERY {
                self.tail.since_checkpoint = 0;
                self.checkpoints.push(self.tail.state.clone());
            }
        }
        false
    }
}
