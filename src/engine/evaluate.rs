//! What a change can affect, what must be loaded to evaluate it, and the fold that does so.
//!
//! For each customer and campaign, the caller stores the state after the last counted purchase (the *tail*) and an earlier
//! state (a *checkpoint*) about every [`CHECKPOINT_EVERY`] counted purchases.
//! - [`Append`] folds purchases after the tail into it. Nothing is loaded, except in rolling windows, which load a purchase
//!   at most once more, when it becomes too old or when an award may begin with it.
//! - [`Refold`] evaluates any other change. It folds again from the last checkpoint before the change, chunk by chunk, until
//!   it arrives at a later checkpoint with the same state. From there on nothing can differ.
//!
//! So the cost of a change depends on what the change can affect, never on the length of the customer's history.
//!
//! Both say what to load and are fed with it, until they ask for nothing more and return their [`Outcome`]. The caller may
//! load only a part of what they ask for, and then says up to which key the part is complete.
//!
//! A fold drops awards after the first ones that use up the caps of the customer ([`super::cap`]), because the caps cannot keep
//! them. What the caps keep of the others depends on the awards outside the folded stretch; [`super::cap`] decides that afterwards.

use super::award::Reached;
use super::cap::Caps;
use super::fold::{Fold, Ran};
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::State;
use super::stretch::Stretch;
use super::window::WindowRule;

/// The number of counted purchases between two checkpoints. It is greater if the states are large.
pub const CHECKPOINT_EVERY: u32 = 16;
/// The most checkpoints that a fold asks for at a time.
pub const MAX_STRIDE: usize = 64;

/// How a commit changes what one purchase contributes. A commit has at most one change for each purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `None` if the purchase did not count or was not recorded.
    pub before: Option<Eligible>,
    /// `None` if the purchase does not count now.
    pub after: Option<Eligible>,
}

/// What the changes of a commit require for one customer and campaign.
#[derive(Clone, Debug)]
pub enum Plan<'a> {
    /// No award and no state can differ.
    Unaffected,
    /// All changes are new purchases after the tail.
    Append(Box<Append<'a>>),
    /// The history must be folded again from before the first changed key until after the last.
    Refold {
        /// The key of the first changed purchase.
        first: Key,
        /// The key of the last changed purchase.
        last: Key,
    },
}

/// Determines what the changes of a commit can affect.
pub fn plan<'a>(campaign: Campaign<'a>, tail: Tail, changes: Vec<Change>) -> Plan<'a> {
    let is_new = |key: &Key| tail.state.last.as_ref().is_none_or(|last| key > last);
    let mut new = Vec::new();
    let mut first: Option<Key> = None;
    let mut last: Option<Key> = None;
    for Change { before, after } in changes.into_iter().filter(|change| change.before != change.after) {
        let Some(key) = before.as_ref().or(after.as_ref()).map(|eligible| eligible.key.clone()) else { continue };
        if is_new(&key) {
            // A purchase after the tail that was eligible before was not counted in any window. So its change affects nothing.
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
    Plan::Append(Box::new(Append::new(campaign, tail, new)))
}

/// A stored tail: the state, and its distance from the last checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The state after the last counted purchase.
    pub state: State,
    /// The number of purchases counted since the last checkpoint, or since the beginning.
    pub since_checkpoint: u32,
}

/// The result of a fold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The awards reached in [`Self::stretch`], in award order. [`super::cap`] must still cut them.
    pub awards: Vec<Reached>,
    /// The stretch that was folded. After its end, nothing differs from before.
    pub stretch: Stretch,
    /// Whether all new purchases lie after the tail. Then no recorded award can differ.
    pub appended: bool,
    /// The checkpoints to store. They replace all that are stored inside the stretch.
    pub checkpoints: Vec<State>,
    /// The new tail, or `None` if the stored tail stays.
    pub tail: Option<Tail>,
    /// The stored state at which the fold stopped, or `None` if no stored state stopped it.
    pub met: Option<State>,
}

/// What a fold asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// Stored states, to be passed to [`Refold::feed_checkpoints`].
    Checkpoints(Checkpoints),
    /// Purchases, to be passed to [`Append::feed`] or [`Refold::feed`].
    Purchases(Stretch),
}

/// Which stored states of a customer in a campaign a fold asks for. The key of a state is that of its last purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// If given, the fold asks for the last state before this key.
    pub before: Option<Key>,
    /// The fold also asks for the first `count` states after this key.
    pub after: Key,
    /// The most states after `after`; 0 if none is asked for.
    pub count: usize,
}

impl Outcome {
    /// The outcome if nothing was folded.
    pub fn unchanged() -> Self {
        Self { appended: true, ..Self::default() }
    }

    /// Returns the last checkpoint of the outcome up to `key` and drops everything that was found after it. The fold can go on
    /// from the checkpoint with [`Refold::onward`]. If there is no such checkpoint, returns `None` and drops nothing.
    pub fn rewind(&mut self, key: &Key) -> Option<State> {
        let state = self.last_checkpoint(key)?.clone();
        self.checkpoints.retain(|checkpoint| checkpoint.last <= state.last);
        self.awards.retain(|award| Some(&award.by) <= state.last.as_ref());
        (self.tail, self.stretch.to, self.met) = (None, None, None);
        Some(state)
    }

    /// Returns the checkpoint that [`Self::rewind`] would return.
    pub fn last_checkpoint(&self, key: &Key) -> Option<&State> {
        self.checkpoints.iter().rfind(|state| state.last.as_ref() <= Some(key))
    }

    /// Adds the outcome of the fold that went on from the state that [`Self::rewind`] returned.
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
    /// Folds these purchases into the tail. All of them must come after the last purchase of the tail.
    pub fn new(campaign: Campaign<'a>, tail: Tail, purchases: Vec<Eligible>) -> Self {
        let from = tail.state.last.clone();
        let mut fold = Fold::new(campaign, tail);
        fold.go_on(purchases);
        Self { fold, from, load: None }
    }

    /// Sets the number of counted purchases between two checkpoints. The default is [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_every(mut self, purchases: u32) -> Self {
        self.fold.checkpoint_every = purchases;
        self
    }

    /// Folds as far as possible. Returns what must be loaded to go on, or `None` if the fold is complete.
    pub fn load(&mut self) -> Option<Stretch> {
        self.load = match self.fold.run(|_| false) {
            Ran::Wants(stretch) => Some(stretch),
            Ran::Through | Ran::Stopped => None,
        };
        self.load.clone()
    }

    /// Takes the purchases that [`Self::load`] asked for, in any order. If only a part was loaded, `to` is the key up to which
    /// all are there.
    pub fn feed(&mut self, loaded: Vec<Eligible>, to: Option<Key>) {
        if let Some(to) = to.or(self.load.take().and_then(|stretch| stretch.to)) {
            self.fold.look_back(loaded, to);
        }
    }

    /// Returns the result of the fold.
    pub fn finish(self) -> Outcome {
        let Fold { tail, awards, checkpoints, .. } = self.fold;
        let stretch = Stretch { after: self.from, to: None };
        Outcome { awards, stretch, appended: true, checkpoints, tail: Some(tail), met: None }
    }
}

/// A fold over stored purchases, chunk by chunk. The caller loads what [`Self::load`] asks for and passes it to
/// [`Self::feed_checkpoints`] or [`Self::feed`], until [`Self::load`] returns `None`.
#[derive(Clone, Debug)]
pub struct Refold<'a> {
    fold: Fold<'a>,
    from: Option<Key>,
    /// The first changed key, until the checkpoint before it is loaded.
    first: Option<Key>,
    /// Whether the first and the last changed key differ.
    several: bool,
    /// Whether this is a search. It uses stored states only to bound its chunks.
    searches: bool,
    /// The last changed key.
    last: Option<Key>,
    /// Loaded states after the last change, in order. If the fold arrives at one of them unchanged, nothing after it differs.
    ahead: Vec<State>,
    /// Stored states after this key are not loaded yet. `None` if there are no more to load.
    unloaded: Option<Key>,
    /// How many states were loaded. The next time, the fold asks for as many again. So the number of chunks is logarithmic,
    /// and at most twice as much is loaded as is needed.
    spanned: usize,
    /// The key up to which the fold took purchases to fold in.
    taken_to: Option<Key>,
    /// Whether the fold took all purchases up to the end of the history.
    ended: bool,
    asked: Option<Asked>,
    /// Whether the fold arrived unchanged at one of `ahead`.
    met: bool,
}

/// The purchases that a fold waits for.
#[derive(Clone, Debug)]
enum Asked {
    /// Purchases to fold in.
    Next(Stretch),
    /// Purchases to look back on.
    Past(Stretch),
}

impl<'a> Refold<'a> {
    /// Folds again from the last stored checkpoint before `first`, and at least until after `last`.
    pub fn new(campaign: Campaign<'a>, first: &Key, last: &Key) -> Self {
        Self {
            first: Some(first.clone()),
            several: first != last,
            last: Some(last.clone()),
            unloaded: Some(last.clone()),
            ..Self::onward(campaign, State::default())
        }
    }

    /// Folds the whole period, and does not look for stored states.
    pub fn whole(campaign: Campaign<'a>) -> Self {
        Self::onward(campaign, State::default())
    }

    /// Folds from a state to the end of the history, and does not look for stored states.
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

    /// A search from the last stored checkpoint before `key`. It does not stop at stored states, returns no checkpoints, and
    /// keeps every award that it reaches, also beyond the cap on the customer's awards.
    pub(super) fn search_before(campaign: Campaign<'a>, key: Key) -> Self {
        let search = Self::search_from(campaign, State::default());
        Self { first: Some(key.clone()), unloaded: Some(key), ..search }
    }

    /// A search from a state; see [`Self::search_before`].
    pub(super) fn search_from(campaign: Campaign<'a>, state: State) -> Self {
        let unloaded = state.last.clone();
        let mut search = Self { searches: true, unloaded, ..Self::onward(campaign, state) };
        search.fold.caps = Caps::NONE;
        search.checkpoint_every(u32::MAX)
    }

    /// Sets the number of counted purchases between two checkpoints. The default is [`CHECKPOINT_EVERY`].
    #[must_use]
    pub fn checkpoint_every(mut self, purchases: u32) -> Self {
        self.fold.checkpoint_every = purchases;
        self
    }

    /// Returns the awards that the fold has reached so far.
    pub(super) fn awards(&self) -> &[Reached] {
        &self.fold.awards
    }

    /// Folds as far as possible. Returns what must be loaded to go on, or `None` if the fold is complete.
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

    /// Returns how many stored states the fold asks for next.
    fn stride(&self) -> usize {
        self.spanned.clamp(1, MAX_STRIDE)
    }

    fn ask(&mut self, asked: Asked) -> Load {
        let (Asked::Next(stretch) | Asked::Past(stretch)) = &asked;
        let load = Load::Purchases(stretch.clone());
        self.asked = Some(asked);
        load
    }

    /// Folds in the purchases that were taken, until the fold arrives at a stored state unchanged. In a rolling window, several
    /// changes can balance each other in the state and still become too old at different times. So an equal state stops the
    /// fold only if all changed purchases are too old or used up.
    fn run(&mut self) -> Ran {
        let Self { fold, ahead, last, several, searches, .. } = self;
        let balanced = *several && matches!(fold.campaign.rule.window, WindowRule::Rolling { .. });
        fold.run(|state| {
            let stored = ahead.binary_search_by(|stored| stored.last.cmp(&state.last)).ok().map(|at| &ahead[at]);
            !*searches && stored == Some(state) && (!balanced || state.used_to >= *last)
        })
    }

    /// Returns how far a fold over a timer that does not reopen must go: to the close of its window. As long as no purchase has
    /// opened the window, this is the last change, because that is likely to open it.
    fn horizon(&self) -> Option<Key> {
        let WindowRule::Timer { reopens: false, .. } = &self.fold.campaign.rule.window else { return None };
        let window = self.fold.tail.state.window;
        let last = self.last.clone().filter(|last| self.taken_to.as_ref() < Some(last));
        window.map(|window| Key::before(window.closes)).or(last)
    }

    /// Takes the stored states that [`Self::load`] asked for: the one before the key, and those after it in order.
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

    /// Takes the purchases that [`Self::load`] asked for, in any order. If only a part was loaded, `to` is the key up to which
    /// all are there.
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

    /// Returns the result of the fold.
    pub fn finish(self) -> Outcome {
        let Fold { tail, awards, checkpoints, .. } = self.fold;
        let to = if self.met { tail.state.last.clone() } else { None };
        let (met, tail) = if self.met { (Some(tail.state), None) } else { (None, Some(tail)) };
        Outcome { awards, stretch: Stretch { after: self.from, to }, appended: false, checkpoints, tail, met }
    }
}
