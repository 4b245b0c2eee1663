//! What a change can affect, what must be loaded to see it, and the fold from there.
//!
//! The caller stores, for each customer and campaign, the state after the last counted purchase (the *tail*) and a
//! *checkpoint* (an earlier state) about every [`CHECKPOINT_EVERY`] counted purchases. Then
//! - purchases after the tail are folded into it: nothing is loaded, rolling windows aside, which load each purchase
//!   at most once more when it becomes too old or is used up ([`Append`]);
//! - anything else is folded again from the last checkpoint before it, chunk by chunk, until a later checkpoint comes
//!   out unchanged: from there on nothing can differ ([`Refold`]).
//!
//! Both say what to load and are fed with it, until they ask for nothing more and give their [`Outcome`]. Whoever feeds
//! them may bound what it loads at once: it says up to where it came. What the customer's cap leaves of the awards is
//! decided afterwards ([`super::cap`]).
//!
//! So the cost of a change follows from what it can affect, never from the length of the customer's history.

use super::award::Reached;
use super::fold::{Fold, Ran};
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::State;
use super::stretch::Stretch;
use super::window::WindowRule;

/// Counted purchases between two checkpoints; more where the states are large.
pub const CHECKPOINT_EVERY: u32 = 16;
/// The most checkpoints that a fold asks for at once.
pub const MAX_STRIDE: usize = 64;

/// How one purchase's contribution changed in a commit; a commit has at most one for each purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// None: it did not count, or was not there.
    pub before: Option<Eligible>,
    /// None: it does not count.
    pub after: Option<Eligible>,
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
    /// Reached in [`Self::stretch`], in award order; before the customer's cap.
    pub awards: Vec<Reached>,
    /// What was folded. Behind it nothing differs.
    pub stretch: Stretch,
    /// The new purchases lay after the tail: nothing that is recorded can differ.
    pub appended: bool,
    /// Checkpoints to store; those stored inside the stretch are void.
    pub checkpoints: Vec<State>,
    /// To store in place of the tail; none: it stays.
    pub tail: Option<Tail>,
    /// The stored state at the stretch's end, if it has one.
    pub met: Option<State>,
}

/// What a fold asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// Stored states, for [`Refold::feed_checkpoints`].
    Checkpoints(Checkpoints),
    /// Purchases, for [`Refold::feed`].
    Purchases(Stretch),
}

/// Stored states of a customer in a campaign, each at the key of its last purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// The last one before this key, if one is asked for.
    pub before: Option<Key>,
    /// And the first ones after this key …
    pub after: Key,
    /// … so many, at the most.
    pub count: usize,
}

impl Outcome {
    /// Nothing was folded.
    pub fn unchanged() -> Self {
        Self { appended: true, ..Self::default() }
    }

    /// Drops what was found after the last checkpoint up to `key`, and returns that checkpoint, to go on from
    /// ([`Refold::onward`]). None: there is no such checkpoint, and nothing is dropped.
    pub fn rewind(&mut self, key: &Key) -> Option<State> {
        let state = self.last_checkpoint(key)?.clone();
        self.checkpoints.retain(|checkpoint| checkpoint.last <= state.last);
        self.awards.retain(|award| Some(&award.by) <= state.last.as_ref());
        (self.tail, self.stretch.to, self.met) = (None, None, None);
        Some(state)
    }

    /// Where [`Self::rewind`] would go on from.
    pub fn last_checkpoint(&self, key: &Key) -> Option<&State> {
        self.checkpoints.iter().rfind(|state| state.last.as_ref() <= Some(key))
    }

    /// With what a fold found that went on from the state that [`Self::rewind`] returned.
    #[must_use]
    pub fn followed_by(mut self, onward: Self) -> Self {
        self.awards.extend(onward.awards);
        self.checkpoints.extend(onward.checkpoints);
        let stretch = Stretch { to: onward.stretch.to, ..self.stretch };
        Self { stretch, tail: onward.tail, met: onward.met, ..self }
    }
}

/// A fold of new purchases into the tail.
#[derive(Clone, Debug)]
pub struct Append<'a> {
    fold: Fold<'a>,
    from: Option<Key>,
    load: Option<Stretch>,
}

impl<'a> Append<'a> {
    /// Folds these purchases, all after the tail's last, into the tail.
    pub fn new(campaign: Campaign<'a>, tail: Tail, purchases: Vec<Eligible>) -> Self {
        let from = tail.state.last.clone();
        let mut fold = Fold::new(campaign, tail);
        fold.go_on(purchases);
        Self { fold, from, load: None }
    }

    /// Stores a checkpoint as often as that, in place of [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_every(mut self, purchases: u32) -> Self {
        self.fold.checkpoint_every = purchases;
        self
    }

    /// Goes on as far as it can. What must be loaded before it can go further; none: done.
    pub fn load(&mut self) -> Option<Stretch> {
        self.load = match self.fold.run(|_| false) {
            Ran::Wants(stretch) => Some(stretch),
            Ran::Through | Ran::Stopped => None,
        };
        self.load.clone()
    }

    /// Takes what [`Self::load`] asked for, in any order: all up to `to`, if not all that it asked for.
    pub fn feed(&mut self, loaded: Vec<Eligible>, to: Option<Key>) {
        if let Some(to) = to.or(self.load.take().and_then(|stretch| stretch.to)) {
            self.fold.look_back(loaded, to);
        }
    }

    /// What it found.
    pub fn finish(self) -> Outcome {
        let Fold { tail, awards, checkpoints, .. } = self.fold;
        let stretch = Stretch { after: self.from, to: None };
        Outcome { awards, stretch, appended: true, checkpoints, tail: Some(tail), met: None }
    }
}

/// A fold over what is stored already, chunk by chunk: ask [`Self::load`], answer with [`Self::feed_checkpoints`] or
/// [`Self::feed`], until it is done.
#[derive(Clone, Debug)]
pub struct Refold<'a> {
    fold: Fold<'a>,
    from: Option<Key>,
    /// The first changed key, as long as the checkpoint before it is not loaded.
    first: Option<Key>,
    /// The first and the last changed key differ.
    several: bool,
    /// Stored states only bound its chunks.
    searches: bool,
    /// The last changed key.
    last: Option<Key>,
    /// Stored states after the last change, in order: where one comes out unchanged, the rest stands.
    ahead: Vec<State>,
    /// Those after this key are not loaded yet; none: there are no more.
    unloaded: Option<Key>,
    /// How many were loaded: the next time as many again, so that the number of chunks is logarithmic and no more than
    /// twice what is needed is loaded.
    spanned: usize,
    /// Up to here purchases were taken to fold in.
    taken_to: Option<Key>,
    /// All were taken.
    ended: bool,
    asked: Option<Asked>,
    /// The one of `ahead` that came out unchanged.
    met: bool,
}

/// Purchases that a fold waits for.
#[derive(Clone, Debug)]
enum Asked {
    /// To fold in.
    Next(Stretch),
    /// To look back on.
    Past(Stretch),
}

impl<'a> Refold<'a> {
    /// Folds again from the last stored checkpoint before `first`.
    pub fn new(campaign: Campaign<'a>, first: &Key, last: &Key) -> Self {
        Self {
            first: Some(first.clone()),
            several: first != last,
            last: Some(last.clone()),
            unloaded: Some(last.clone()),
            ..Self::onward(campaign, State::default())
        }
    }

    /// Starts from the beginning: the whole period.
    pub fn whole(campaign: Campaign<'a>) -> Self {
        Self::onward(campaign, State::default())
    }

    /// Starts from a state, and goes on to the end.
    pub fn onward(campaign: Campaign<'a>, state: State) -> Self {
        Self {
            from: state.last.clone(),
            first: None,
            several: false,
            searches: false,
            last: None,
            ahead: Vec::new(),
            unloaded: None,
            spanned: 0,
            taken_to: state.last.clone(),
            ended: false,
            asked: None,
            met: false,
            fold: Fold::new(campaign, Tail { state, since_checkpoint: 0 }),
        }
    }

    /// A search from the last stored checkpoint before `key`: it stops at no stored state, stores none and keeps every
    /// award that it reaches, also those that the customer's cap does not leave.
    pub(super) fn search_before(campaign: Campaign<'a>, key: Key) -> Self {
        let search = Self::search_from(campaign, State::default());
        Self { first: Some(key.clone()), unloaded: Some(key), ..search }
    }

    /// A search from a state.
    pub(super) fn search_from(campaign: Campaign<'a>, state: State) -> Self {
        let unloaded = state.last.clone();
        let mut search = Self { searches: true, unloaded, ..Self::onward(campaign, state) };
        search.fold.most_awards = usize::MAX;
        search.checkpoint_every(u32::MAX)
    }

    /// Stores a checkpoint as often as that, in place of [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_every(mut self, purchases: u32) -> Self {
        self.fold.checkpoint_every = purchases;
        self
    }

    /// What it reached so far.
    pub(super) fn awards(&self) -> &[Reached] {
        &self.fold.awards
    }

    /// Goes on as far as it can. What must be loaded before it can go further; none: done.
    pub fn load(&mut self) -> Option<Load> {
        if let Some(first) = &self.first {
            let after = self.unloaded.clone().unwrap_or_else(|| first.clone());
            let count = usize::from(self.unloaded.is_some());
            return Some(Load::Checkpoints(Checkpoints { before: Some(first.clone()), after, count }));
        }
        if self.met {
            return None;
        }
        match self.run() {
            Ran::Wants(stretch) => return Some(self.ask(Asked::Past(stretch))),
            Ran::Stopped => {
                self.met = true;
                return None;
            }
            Ran::Through => {}
        }
        self.ahead.retain(|state| state.last > self.taken_to);
        let horizon = self.horizon();
        if self.ended || (horizon.is_some() && self.taken_to >= horizon) {
            return None;
        }
        if let Some(after) = self.unloaded.clone().filter(|_| self.ahead.is_empty()) {
            return Some(Load::Checkpoints(Checkpoints { before: None, after, count: self.stride() }));
        }
        let checkpoint = self.ahead.last().and_then(|state| state.last.clone());
        let to = checkpoint.into_iter().chain(horizon).min();
        Some(self.ask(Asked::Next(Stretch { after: self.taken_to.clone(), to })))
    }

    /// How many stored states it asks for.
    fn stride(&self) -> usize {
        self.spanned.clamp(1, MAX_STRIDE)
    }

    fn ask(&mut self, asked: Asked) -> Load {
        let (Asked::Next(stretch) | Asked::Past(stretch)) = &asked;
        let load = Load::Purchases(stretch.clone());
        self.asked = Some(asked);
        load
    }

    /// Folds in what was taken, until a stored state comes out unchanged. Rolling: of several changes two may balance
    /// each other in the state, yet become too old at different times; once all are too old or used up, none does.
    fn run(&mut self) -> Ran {
        let Self { fold, ahead, last, several, searches, .. } = self;
        let balanced = *several && matches!(fold.campaign.rule.window, WindowRule::Rolling { .. });
        fold.run(|state| {
            let stored = ahead.binary_search_by(|stored| stored.last.cmp(&state.last)).ok().map(|at| &ahead[at]);
            !*searches && stored == Some(state) && (!balanced || state.used_to >= *last)
        })
    }

    /// How far a timer that does not reopen may count: to its close, or, as long as nothing has opened it, to the last
    /// change, which is likely to be what does.
    fn horizon(&self) -> Option<Key> {
        let WindowRule::Timer { reopens: false, .. } = &self.fold.campaign.rule.window else { return None };
        let window = self.fold.tail.state.window;
        let last = self.last.clone().filter(|last| self.taken_to.as_ref() < Some(last));
        window.map(|window| Key::before(window.closes)).or(last)
    }

    /// Takes the stored states that [`Self::load`] asked for, in order.
    pub fn feed_checkpoints(&mut self, before: Option<State>, ahead: Vec<State>) {
        if self.first.take().is_some() {
            let state = before.unwrap_or_default();
            self.from.clone_from(&state.last);
            self.taken_to.clone_from(&state.last);
            self.fold.restart(state);
        }
        let more = ahead.len() >= self.stride();
        self.unloaded = ahead.last().filter(|_| more).and_then(|state| state.last.clone());
        self.spanned += ahead.len();
        self.ahead = ahead;
    }

    /// Takes the purchases that [`Self::load`] asked for, in any order: all up to `to`, if not all that it asked for.
    pub fn feed(&mut self, purchases: Vec<Eligible>, to: Option<Key>) {
        match self.asked.take() {
            Some(Asked::Past(stretch)) => {
                if let Some(to) = to.or(stretch.to) {
                    self.fold.look_back(purchases, to);
                }
            }
            Some(Asked::Next(stretch)) => {
                self.taken_to = to.or(stretch.to);
                self.ended = self.taken_to.is_none();
                self.fold.go_on(purchases);
            }
            None => {}
        }
    }

    /// What it found.
    pub fn finish(self) -> Outcome {
        let Fold { tail, awards, checkpoints, .. } = self.fold;
        let to = if self.met { tail.state.last.clone() } else { None };
        let (met, tail) = if self.met { (Some(tail.state), None) } else { (None, Some(tail)) };
        Outcome { awards, stretch: Stretch { after: self.from, to }, appended: false, checkpoints, tail, met }
    }
}
