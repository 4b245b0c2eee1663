//! What a change can affect, what must be loaded to see it, and the fold from there.
//!
//! The caller stores, for each customer and campaign, the state after the last counted purchase (the *tail*) and a
//! *checkpoint* (an earlier state) about every [`CHECKPOINT_EVERY`] counted purchases. Then
//! - purchases after the tail are folded into it: nothing is loaded, rolling windows aside, which load each purchase
//!   at most once more when it becomes too old or is used up ([`Append`]);
//! - anything else is folded again from the last checkpoint before it, chunk by chunk, until a later checkpoint comes
//!   out unchanged: from there on nothing can differ ([`Refold`]).
//!
//! Both say what to load, are fed with it, until they ask for nothing more and give their [`Outcome`].
//!
//! So the cost of a change follows from what it can affect, never from the length of the customer's history.

use super::award::Reached;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::{State, too_old};
use super::window::WindowRule;

/// Counted purchases between two checkpoints.
pub const CHECKPOINT_EVERY: u32 = 16;

/// How one purchase's contribution changed in a commit; a commit has at most one for each purchase.
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
#[derive(Clone, Debug)]
pub enum Plan<'a> {
    /// Nothing can differ.
    Unaffected,
    /// All changes lie after the tail.
    Append(Box<Append<'a>>),
    /// Fold again all that follows the first changed key, at least past the last.
    Refold {
        /// The first changed key.
        first: Key,
        /// The last changed key.
        last: Key,
    },
}

/// Sorts a commit's changes into what they can affect.
pub fn plan<'a>(campaign: Campaign<'a>, tail: &Tail, changes: Vec<Change>) -> Plan<'a> {
    let is_new = |key: &Key| tail.state.last.as_ref().is_none_or(|last| key > last);
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
    Plan::Append(Box::new(Append::new(campaign, tail.clone(), new)))
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

/// A fold of new purchases into the tail.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    fold: Fold<'a>,
    from: Option<Key>,
    /// In order: the new purchases and what was loaded beside them.
    purchases: Vec<Eligible>,
    load: Option<Range>,
    /// Rolling: what counted beside the tail is loaded up to here.
    seen_to: Option<Key>,
}

impl<'a> Append<'a> {
    fn new(campaign: Campaign<'a>, tail: Tail, mut purchases: Vec<Eligible>) -> Self {
        sort(&mut purchases);
        let from = tail.state.last.clone();
        let fold = Fold::new(campaign, tail);
        let mut append = Self { fold, from, purchases, load: None, seen_to: None };
        append.load = append.too_old().or_else(|| append.used_up());
        append
    }

    /// Stores a checkpoint as often as that, in place of [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_every(mut self, purchases: u32) -> Self {
        self.fold.checkpoint_every = purchases;
        self
    }

    /// What must be loaded before it can go on; none: done.
    pub fn load(&self) -> Option<Range> {
        self.load.clone()
    }

    /// Takes what [`Self::load`] asked for, in any order; the new ones may be among it.
    pub fn feed(&mut self, loaded: Vec<Eligible>) {
        self.purchases.extend(loaded);
        sort(&mut self.purchases);
        let asked = self.load.take().and_then(|range| range.to);
        self.seen_to = self.seen_to.take().max(asked);
        self.load = self.used_up();
    }

    /// Rolling: what counted beside the tail and does not beside the last of the new ones.
    fn too_old(&mut self) -> Option<Range> {
        let duration = self.fold.rolling()?;
        let state = &self.fold.tail.state;
        let after = state.used_to.clone();
        let to = Some(too_old(self.purchases.last()?.key.at, duration));
        self.seen_to = after.clone().max(to);
        (state.count > 0 && after < self.seen_to).then(|| Range { after, to: self.seen_to.clone() })
    }

    /// Rolling: what the first completion uses up; the first of it opens the award's window. Only if there is one: in a
    /// window that stays just short of its goal, each append would load all of it.
    fn used_up(&self) -> Option<Range> {
        let state = &self.fold.tail.state;
        if self.fold.rolling().is_none() || state.count == 0 || self.seen_to >= state.last {
            return None;
        }
        let mut trial = self.fold.clone();
        trial.run(&self.purchases, |_| false);
        let opens = Some(&trial.awards.first()?.evidence_from);
        (opens > self.seen_to.as_ref()).then(|| Range { after: self.seen_to.clone(), to: state.last.clone() })
    }

    /// What it found.
    pub fn finish(mut self) -> Outcome {
        self.fold.run(&self.purchases, |_| false);
        let Fold { tail, awards, checkpoints, .. } = self.fold;
        Outcome { awards, from: self.from, to: None, appended: true, checkpoints, tail: Some(tail) }
    }
}

/// A fold over what is stored already, chunk by chunk: ask [`Self::load`], answer with [`Self::feed`], until it is
/// done.
#[derive(Clone, Debug)]
pub struct Refold<'a> {
    fold: Fold<'a>,
    from: Option<Key>,
    /// Stored states at or after the last change, in order: where one comes out unchanged, the rest stands.
    ahead: Vec<State>,
    /// How many of `ahead` the next chunk spans: as many as all before it, so that the number of chunks is logarithmic
    /// and no more than twice what is needed is loaded.
    stride: usize,
    /// How many the chunks before it spanned.
    spanned: usize,
    /// The last changed key, before the first chunk.
    last: Option<Key>,
    /// Rolling: what is loaded already and unused yet.
    unused: Vec<Eligible>,
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
        Self { last: Some(last.clone()), ..Self::from_state(campaign, restart.unwrap_or_default(), ahead) }
    }

    /// Starts from the beginning: the whole period.
    pub fn whole(campaign: Campaign<'a>) -> Self {
        Self::from_state(campaign, State::default(), Vec::new())
    }

    fn from_state(campaign: Campaign<'a>, state: State, ahead: Vec<State>) -> Self {
        let from = state.last.clone();
        let tail = Tail { state, since_checkpoint: 0 };
        Self {
            fold: Fold::new(campaign, tail),
            from,
            ahead,
            stride: 1,
            spanned: 0,
            last: None,
            unused: Vec::new(),
            met: None,
            ended: false,
        }
    }

    /// Stores a checkpoint as often as that, in place of [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_every(mut self, purchases: u32) -> Self {
        self.fold.checkpoint_every = purchases;
        self
    }

    /// The next purchases to load; none: done.
    pub fn load(&self) -> Option<Range> {
        if self.ended || self.met.is_some() {
            return None;
        }
        let state = &self.fold.tail.state;
        let looks_back = self.fold.rolling().is_some() && self.spanned == 0;
        let after = if looks_back { &state.used_to } else { &state.last };
        Some(Range { after: after.clone(), to: self.chunk_end() })
    }

    fn chunk_end(&self) -> Option<Key> {
        let checkpoint = self.ahead.get(self.stride - 1).and_then(|state| state.last.clone());
        match (checkpoint, self.horizon()) {
            (Some(checkpoint), Some(horizon)) => Some(checkpoint.min(horizon)),
            (checkpoint, horizon) => checkpoint.or(horizon),
        }
    }

    /// How far a timer that does not reopen may count: to its close, or, as long as nothing has opened it, to the last
    /// change, which is likely to be what does.
    fn horizon(&self) -> Option<Key> {
        let WindowRule::Timer { reopens: false, .. } = &self.fold.campaign.rule.window else { return None };
        let window = self.fold.tail.state.window;
        window.map(|window| Key::before(window.closes)).or_else(|| self.last.clone())
    }

    /// Folds in what [`Self::load`] asked for, in any order.
    pub fn feed(&mut self, mut purchases: Vec<Eligible>) {
        purchases.append(&mut self.unused);
        sort(&mut purchases);
        let end = self.chunk_end();
        let ahead = std::mem::take(&mut self.ahead);
        let met = self.fold.run(&purchases, |state| {
            ahead.binary_search_by(|stored| stored.last.cmp(&state.last)).is_ok_and(|at| ahead[at] == *state)
        });
        if met {
            self.met = self.fold.tail.state.last.clone();
        }
        self.last = None;
        let horizon = self.horizon();
        if self.fold.rolling().is_some() {
            let used_to = &self.fold.tail.state.used_to;
            purchases.retain(|purchase| Some(&purchase.key) > used_to.as_ref());
            self.unused = purchases;
        }
        self.ended = end.is_none() || (horizon.is_some() && end >= horizon);
        self.ahead = ahead.into_iter().filter(|state| state.last > end).collect();
        self.spanned += self.stride;
        self.stride = self.spanned;
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

#[derive(Clone, Debug)]
struct Fold<'a> {
    campaign: Campaign<'a>,
    checkpoint_every: u32,
    tail: Tail,
    awards: Vec<Reached>,
    checkpoints: Vec<State>,
}

impl<'a> Fold<'a> {
    fn new(campaign: Campaign<'a>, tail: Tail) -> Self {
        Self { campaign, checkpoint_every: CHECKPOINT_EVERY, tail, awards: Vec::new(), checkpoints: Vec::new() }
    }

    /// How far back a rolling window reaches.
    fn rolling(&self) -> Option<i64> {
        match &self.campaign.rule.window {
            WindowRule::Rolling { duration } => Some(duration.micros()),
            _ => None,
        }
    }

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
            if self.tail.since_checkpoint >= self.checkpoint_every {
                self.tail.since_checkpoint = 0;
                self.checkpoints.push(self.tail.state.clone());
            }
        }
        false
    }
}
