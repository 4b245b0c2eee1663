//! What progress needs in addition to the tail, which is the state after the last counted purchase: aggregates of purchases
//! instead of the purchases themselves.
//!
//! - The progress of a rolling window counts the unused purchases, and time alone removes purchases from the window.
//!   [`Unused`] stores the progress as a step function of time, so its size does not depend on the number of purchases.
//! - Purchases can be minutes ahead of the clock, so the tail may already have left the current calendar or recurring
//!   window. The progress of that window follows from the state at its close: [`Earlier`].
//!
//! [`Look`] computes both. It says which purchases to load, takes them page by page, and keeps only aggregates of them. If the
//! tail of a rolling window is ahead of the clock, it also keeps the purchases after the last checkpoint before the clock.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::{State, too_old};
use super::stretch::Stretch;
use super::time::Instant;
use super::window::{Interval, WindowRule};

/// The most steps that are kept. After these steps, a new look is needed.
pub const MAX_STEPS: usize = 64;

/// What progress needs in addition to the tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lookback {
    /// For a rolling window.
    #[serde(rename = "u")]
    Unused(Unused),
    /// For a window that the tail has already left.
    #[serde(rename = "e")]
    Earlier(Box<Earlier>),
}

/// The progress of a rolling window as a function of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// The duration of the window (µs).
    #[serde(rename = "d")]
    duration: i64,
    /// The progress is unknown before this instant.
    #[serde(rename = "f")]
    from: Instant,
    /// In order of time.
    #[serde(rename = "s")]
    steps: Vec<Step>,
    /// If true, no purchase is unused after the last step. If false, the progress is unknown after it.
    #[serde(rename = "w")]
    whole: bool,
    /// The tail without the purchases that the steps take out. A later look can go on from this state.
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    rest: Option<Box<State>>,
}

/// The progress of a rolling window until its oldest purchase is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The instant of the oldest unused purchase, which opens the window.
    #[serde(rename = "o")]
    pub opens: Instant,
    /// What the goal counts in this window.
    #[serde(rename = "n")]
    pub current: i64,
}

/// The state at the close of a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Not clipped to the period.
    #[serde(rename = "w")]
    window: Interval,
    /// The state after the last purchase before the close.
    #[serde(rename = "s")]
    state: State,
}

impl Lookback {
    /// Whether the progress at `at` is known from this.
    pub fn holds(&self, at: Instant) -> bool {
        match self {
            Self::Unused(unused) => unused.at(at).is_some(),
            Self::Earlier(earlier) => earlier.window.contains(at),
        }
    }

    /// Returns the step of a rolling window at `at`, or `None` if no purchase is unused.
    pub fn step(&self, at: Instant) -> Option<Step> {
        match self {
            Self::Unused(unused) => unused.at(at).flatten(),
            Self::Earlier(_) => None,
        }
    }

    /// Returns the state from which progress is computed instead of from the tail, if there is one.
    pub fn state(&self) -> Option<&State> {
        match self {
            Self::Unused(_) => None,
            Self::Earlier(earlier) => Some(&earlier.state),
        }
    }

    /// Whether both give the same progress at every instant at which both know it.
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unused(mine), Self::Unused(theirs)) => mine.agrees(theirs),
            (Self::Earlier(mine), Self::Earlier(theirs)) => mine.window != theirs.window || mine == theirs,
            _ => true,
        }
    }

    /// Returns the state from which a later look at the same tail can begin.
    fn rest(&self) -> Option<&State> {
        match self {
            Self::Unused(unused) => unused.rest.as_deref(),
            Self::Earlier(_) => None,
        }
    }
}

impl Unused {
    /// Returns `None` if the progress at this instant is unknown, and `Some(None)` if no purchase is unused then.
    fn at(&self, at: Instant) -> Option<Option<Step>> {
        if at < self.from {
            return None;
        }
        let step = self.open(at).next().copied();
        (step.is_some() || self.whole).then_some(step)
    }

    /// Returns the steps that are not over at `at`.
    fn open(&self, at: Instant) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.opens.plus(self.duration) > at)
    }

    fn agrees(&self, other: &Self) -> bool {
        let from = self.from.max(other.from);
        let (mut mine, mut theirs) = (self.open(from), other.open(from));
        loop {
            match (mine.next(), theirs.next()) {
                (Some(mine), Some(theirs)) if mine == theirs => {}
                (Some(_), Some(_)) => return false,
                (Some(_), None) => return !other.whole,
                (None, Some(_)) => return !self.whole,
                (None, None) => return true,
            }
        }
    }
}

/// Why the tail alone is not enough for the progress at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A rolling window contains purchases, and time removes them from it.
    Unused,
    /// The tail has left this window, which contains the instant.
    Earlier(Interval),
}

/// Returns what progress at `at` needs in addition to the tail, or `None` if the tail is enough. `earlier` is the window that
/// contains `at`, if the tail is in a later one.
pub(super) fn need(campaign: Campaign<'_>, tail: &State, at: Instant, earlier: Option<Interval>) -> Option<Need> {
    let WindowRule::Rolling { duration } = &campaign.rule.window else { return earlier.map(Need::Earlier) };
    let counts = tail.count > 0 && tail.last.as_ref() >= Some(&too_old(at, duration.micros()));
    (counts || is_ahead(tail, at)).then_some(Need::Unused)
}

/// Whether the last counted purchase is later than `at`. Then purchases that are too old by then can still count at `at`.
fn is_ahead(tail: &State, at: Instant) -> bool {
    tail.last.as_ref().is_some_and(|last| last.at > at)
}

/// Finds what progress needs in addition to the tail, at an instant and after it.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    campaign: Campaign<'a>,
    tail: &'a State,
    /// The result covers instants from here on.
    from: Instant,
    kind: Kind,
    /// What is still to be loaded. `None` if the look is complete.
    load: Option<Stretch>,
}

#[derive(Clone, Debug)]
enum Kind {
    Rolling(Box<Rolling>),
    Earlier(Box<Earlier>),
}

impl<'a> Look<'a> {
    /// Begins a look at `now`, the instant for which `need` was computed. If possible, the result also covers the `margin` (µs)
    /// before `now`. If there are more than the most steps within the margin, the result does not hold at `now`: then look again
    /// without a margin.
    pub fn new(campaign: Campaign<'a>, tail: &'a State, need: Need, now: Instant, margin: i64) -> Self {
        let kind = match need {
            Need::Earlier(window) => Kind::Earlier(Box::new(Earlier { window, state: State::default() })),
            Need::Unused => Kind::Rolling(Box::new(Rolling::new(campaign, tail))),
        };
        let margin = now.minus(margin);
        // The window before the last purchase was another one, about which the tail says too little.
        let from = match &tail.last {
            Some(last) if last.at <= now => margin.max(last.at),
            _ => margin,
        };
        let mut look = Self { campaign, tail, from, kind, load: None };
        if look.checkpoint().is_none() {
            look.begin();
        }
        look
    }

    /// Sets the most steps that are kept. The default is [`MAX_STEPS`].
    #[must_use]
    pub fn max_steps(mut self, steps: usize) -> Self {
        if let Kind::Rolling(rolling) = &mut self.kind {
            rolling.max_steps = steps;
        }
        self
    }

    /// Returns a key if the look must begin from a checkpoint: from the latest one up to this key. Returns `None` if the look
    /// begins from the tail.
    pub fn checkpoint(&self) -> Option<Key> {
        match &self.kind {
            Kind::Earlier(earlier) => Some(Key::before(earlier.window.closes)),
            Kind::Rolling(_) => is_ahead(self.tail, self.from).then(|| Key::before(self.from.plus(1))),
        }
    }

    /// Begins from the checkpoint that [`Self::checkpoint`] asked for. `None` means that there is no such checkpoint; the look
    /// then begins from the customer's first purchase.
    pub fn begin_from(&mut self, checkpoint: Option<State>) {
        let base = checkpoint.unwrap_or_default();
        match &mut self.kind {
            Kind::Earlier(earlier) => earlier.state = base,
            Kind::Rolling(rolling) => {
                let (max_steps, phase) = (rolling.max_steps, Phase::Ahead);
                **rolling = Rolling { max_steps, phase, ..Rolling::new(self.campaign, &base) };
            }
        }
        self.begin();
    }

    /// Goes on from where an earlier look at the same tail ended, unless purchases that it took out can still count.
    pub fn go_on_from(&mut self, earlier: &Lookback) {
        let (None, Kind::Rolling(rolling)) = (self.checkpoint(), &mut self.kind) else { return };
        let edge = too_old(self.from, rolling.duration);
        if let Some(rest) = earlier.rest().filter(|rest| rest.used_to.as_ref() <= Some(&edge)) {
            **rolling = Rolling { max_steps: rolling.max_steps, ..Rolling::new(self.campaign, rest) };
            self.begin();
        }
    }

    fn begin(&mut self) {
        self.load = match &mut self.kind {
            Kind::Earlier(earlier) => {
                Some(Stretch { after: earlier.state.last.clone(), to: Some(Key::before(earlier.window.closes)) })
            }
            Kind::Rolling(rolling) => {
                rolling.begin(self.tail).or_else(|| rolling.next_phase(self.campaign, self.from, self.tail))
            }
        };
    }

    /// Returns the stretch of purchases to load next, beginning with its first purchase. Returns `None` if the look is complete.
    pub fn load(&self) -> Option<&Stretch> {
        self.load.as_ref()
    }

    /// Takes the first purchases of the stretch that [`Self::load`] returned, in order. They are complete up to the key
    /// `reached`; `None` means that they are the whole stretch.
    pub fn feed(&mut self, page: Vec<Eligible>, reached: Option<Key>) {
        let Some(stretch) = self.load.take() else { return };
        let rest = reached.map(|reached| Stretch { after: Some(reached), to: stretch.to });
        self.load = match &mut self.kind {
            Kind::Earlier(earlier) => {
                for next in 0..page.len() {
                    earlier.state.step(self.campaign, &page, next, &mut Vec::new());
                }
                rest
            }
            Kind::Rolling(rolling) => {
                page.into_iter().for_each(|purchase| rolling.take(self.campaign, self.from, purchase));
                rest.filter(|_| !rolling.is_full()).or_else(|| rolling.next_phase(self.campaign, self.from, self.tail))
            }
        };
    }

    /// Returns the result of the look.
    pub fn finish(self) -> Lookback {
        match self.kind {
            Kind::Earlier(earlier) => Lookback::Earlier(earlier),
            Kind::Rolling(rolling) => Lookback::Unused(rolling.finish(self.from)),
        }
    }
}

/// A look at a rolling window.
#[derive(Clone, Debug)]
struct Rolling {
    goal: Goal,
    duration: i64,
    max_steps: usize,
    phase: Phase,
    /// The state from which the look begins.
    base: State,
    /// Of the purchases that the base counts, those that are unused at `from` of the look. Purchases that are too old are
    /// taken out when they are loaded.
    unused: Tally,
    /// The oldest of these, grouped by instant.
    front: Vec<(Instant, Tally)>,
    /// The purchases after the last one of the base. When all are loaded, only the unused ones are kept.
    ahead: Vec<Eligible>,
    /// The base with the first purchases of `ahead` folded in, and the number of these.
    folded: (State, usize),
    /// What the awards of these purchases use up: each range begins after the first key and ends at the second.
    used: Vec<(Key, Key)>,
}

/// Which purchases the pages of a [`Rolling`] contain. Unless the look begins from a checkpoint, there is only the last phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The purchases after the last one of the base.
    Ahead,
    /// Of the purchases that the base counts, those that are too old by the last purchase of the tail.
    Old,
    /// Of the others that the base counts, those that are too old at `from`, and the oldest ones that are not.
    Front,
}

impl Rolling {
    fn new(campaign: Campaign<'_>, base: &State) -> Self {
        let duration = match &campaign.rule.window {
            WindowRule::Rolling { duration } => duration.micros(),
            _ => 0,
        };
        Self {
            goal: campaign.rule.goal.clone(),
            duration,
            max_steps: MAX_STEPS,
            phase: Phase::Front,
            base: base.clone(),
            unused: Tally::of(base),
            front: Vec::new(),
            ahead: Vec::new(),
            folded: (base.clone(), 0),
            used: Vec::new(),
        }
    }

    /// Returns the first stretch to load, if there is one.
    fn begin(&self, tail: &State) -> Option<Stretch> {
        match self.phase {
            Phase::Ahead => Some(Stretch { after: self.base.last.clone(), to: tail.last.clone() }),
            _ => self.counted(self.base.used_to.clone(), self.base.last.clone()),
        }
    }

    /// Returns the stretch, if it can contain purchases that the base counts.
    fn counted(&self, after: Option<Key>, to: Option<Key>) -> Option<Stretch> {
        (self.base.count > 0 && after < to).then_some(Stretch { after, to })
    }

    fn take(&mut self, campaign: Campaign<'_>, from: Instant, purchase: Eligible) {
        match self.phase {
            Phase::Ahead => return self.ahead.push(purchase),
            Phase::Old => {
                self.fold_ahead(campaign, Some(&purchase.key));
                if !self.used.is_empty() {
                    return;
                }
                Tally::of_one(&purchase).take_back(&mut self.folded.0);
            }
            Phase::Front => {}
        }
        if purchase.key < too_old(from, self.duration) {
            self.unused.take_out(&Tally::of_one(&purchase));
        } else {
            self.push_front(&purchase);
        }
    }

    fn push_front(&mut self, purchase: &Eligible) {
        if self.front.last().is_none_or(|(at, _)| *at != purchase.key.at) {
            self.front.push((purchase.key.at, Tally::default()));
        }
        if let Some((_, tally)) = self.front.last_mut() {
            tally.put_in(purchase);
        }
    }

    /// Whether the phase has found everything, even if its stretch contains more purchases.
    fn is_full(&self) -> bool {
        match self.phase {
            Phase::Ahead => false,
            Phase::Old => !self.used.is_empty(),
            // One instant more than the steps that are kept shows that the instant before it is complete.
            Phase::Front => self.front.len() > self.max_steps || in_all(&self.front) >= self.unused.count,
        }
    }

    fn next_phase(&mut self, campaign: Campaign<'_>, from: Instant, tail: &State) -> Option<Stretch> {
        let last = tail.last.as_ref().map(|last| too_old(last.at, self.duration));
        let old_to = self.base.last.clone().min(last);
        if self.phase == Phase::Ahead {
            self.phase = Phase::Old;
            if let Some(stretch) = self.counted(self.base.used_to.clone(), old_to.clone()) {
                return Some(stretch);
            }
        }
        if self.phase == Phase::Front {
            return None;
        }
        self.phase = Phase::Front;
        self.fold_ahead(campaign, None);
        self.keep_unused_ahead(from);
        if !self.used.is_empty() {
            // The first award used up everything that the base counts, except what was already too old at the reaching purchase.
            // `front` contains what is left.
            self.unused = Tally::default();
            self.front.iter().for_each(|(_, tally)| self.unused.join(tally));
            return None;
        }
        let after = self.base.used_to.clone().max(old_to);
        (!self.is_full()).then(|| self.counted(after, self.base.last.clone())).flatten()
    }

    /// Folds in the purchases ahead, but stops before the first one at whose instant `old` is too old.
    fn fold_ahead(&mut self, campaign: Campaign<'_>, old: Option<&Key>) {
        let (state, next) = &mut self.folded;
        while let Some(purchase) = self.ahead.get(*next) {
            let too_old = too_old(purchase.key.at, self.duration);
            if old.is_some_and(|old| *old < too_old) {
                return;
            }
            let after = state.used_to.clone().max(Some(too_old.clone())).unwrap_or(too_old);
            state.step(campaign, &self.ahead, *next, &mut Vec::new());
            if state.used_to.as_ref() == Some(&purchase.key) {
                self.used.push((after, purchase.key.clone()));
            }
            *next += 1;
        }
    }

    fn keep_unused_ahead(&mut self, from: Instant) {
        let (edge, used) = (too_old(from, self.duration), &self.used);
        self.ahead.retain(|purchase| {
            let next = used.get(used.partition_point(|(_, by)| *by < purchase.key));
            purchase.key >= edge && next.is_none_or(|(after, _)| purchase.key <= *after)
        });
    }

    fn finish(mut self, from: Instant) -> Unused {
        let ahead = std::mem::take(&mut self.ahead);
        if self.front.len() <= self.max_steps {
            ahead.iter().for_each(|purchase| self.push_front(purchase));
        }
        let whole = self.front.len() <= self.max_steps;
        self.front.truncate(self.max_steps);
        let (mut steps, mut coming) = (Vec::with_capacity(self.front.len()), ahead.iter().peekable());
        for (opens, tally) in self.front {
            // A purchase of `ahead` counts if it lies in the window.
            let closes = opens.plus(self.duration);
            while let Some(purchase) = coming.next_if(|purchase| purchase.key.at < closes) {
                self.unused.put_in(purchase);
            }
            steps.push(Step { opens, current: self.unused.current(&self.goal) });
            self.unused.take_out(&tally);
        }
        let rest = steps.last().filter(|_| !whole && ahead.is_empty()).map(|last| {
            let used_to = Some(too_old(last.opens, 0));
            Box::new(self.unused.clone().into_state(State { used_to, ..self.base.clone() }))
        });
        Unused { duration: self.duration, from, steps, whole, rest }
    }
}

fn in_all(front: &[(Instant, Tally)]) -> i64 {
    front.iter().map(|(_, tally)| tally.count).sum()
}

/// What several purchases contribute together.
#[derive(Clone, Debug, Default)]
struct Tally {
    count: i64,
    sum: i64,
    items: BTreeMap<String, u32>,
}

impl Tally {
    fn of(state: &State) -> Self {
        Self { count: state.count, sum: state.sum, items: state.items.clone() }
    }

    fn of_one(purchase: &Eligible) -> Self {
        let mut tally = Self::default();
        tally.put_in(purchase);
        tally
    }

    fn into_state(self, state: State) -> State {
        State { count: self.count, sum: self.sum, items: self.items, ..state }
    }

    /// Takes this tally out of the counters of a state.
    fn take_back(&self, state: &mut State) {
        let mut counted = Self { count: state.count, sum: state.sum, items: std::mem::take(&mut state.items) };
        counted.take_out(self);
        (state.count, state.sum, state.items) = (counted.count, counted.sum, counted.items);
    }

    fn put_in(&mut self, purchase: &Eligible) {
        self.count += 1;
        self.sum += purchase.adds;
        for item in &purchase.items {
            *self.items.entry(item.clone()).or_default() += 1;
        }
    }

    fn join(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        for (item, purchases) in &other.items {
            *self.items.entry(item.clone()).or_default() += purchases;
        }
    }

    fn take_out(&mut self, other: &Self) {
        self.count -= other.count;
        self.sum -= other.sum;
        for (item, purchases) in &other.items {
            if let Some(left) = self.items.get_mut(item) {
                *left = left.saturating_sub(*purchases);
                if *left == 0 {
                    self.items.remove(item);
                }
            }
        }
    }

    /// Returns what the goal counts.
    fn current(&self, goal: &Goal) -> i64 {
        match goal {
            Goal::Spend { .. } | Goal::Units { .. } => self.sum,
            Goal::Distinct { .. } => self.items.len() as i64,
            _ => self.count,
        }
    }
}
