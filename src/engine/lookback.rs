//! What progress takes beside the running state: aggregates in place of the purchases that they are made of.
//!
//! - A rolling window shows what is unused, and time alone takes purchases out of it. [`Unused`] has what it shows as a
//!   step function of time, so that its size does not depend on how many purchases the window holds.
//! - A calendar or recurring window that the running state has left already (purchases may lie minutes ahead of the
//!   clock) shows the state at its close: [`Earlier`].
//!
//! [`Look`] finds either. It says which purchases to load, takes them page by page, and keeps aggregates alone. Only
//! purchases that lie ahead of the clock are kept until it ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::{State, too_old};
use super::stretch::Stretch;
use super::time::Instant;
use super::window::{Interval, WindowRule};

/// Steps that are kept: a window that loses more purchases than this is looked at again.
pub const MAX_STEPS: usize = 64;

/// What progress takes beside the running state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lookback {
    /// Of a rolling window.
    #[serde(rename = "u")]
    Unused(Unused),
    /// Of a window that the running state has left.
    #[serde(rename = "e")]
    Earlier(Box<Earlier>),
}

/// What a rolling window shows as time goes by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unused {
    /// µs of the window.
    #[serde(rename = "d")]
    duration: i64,
    /// It tells nothing of earlier instants.
    #[serde(rename = "f")]
    from: Instant,
    /// Oldest first.
    #[serde(rename = "s")]
    steps: Vec<Step>,
    /// After the last step nothing is unused. Otherwise it tells nothing of later instants.
    #[serde(rename = "w")]
    whole: bool,
    /// The running state without what the steps take out of it: a later look goes on from here.
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    rest: Option<Box<State>>,
}

/// What a rolling window shows until its oldest purchase is too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When the oldest unused purchase was made.
    #[serde(rename = "o")]
    pub opens: Instant,
    /// What is counted in the window that it opens.
    #[serde(rename = "n")]
    pub current: i64,
}

/// The running state at the close of a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Unclipped.
    #[serde(rename = "w")]
    window: Interval,
    /// After its last purchase.
    #[serde(rename = "s")]
    state: State,
}

impl Lookback {
    /// Whether it tells the progress at `at`.
    pub fn holds(&self, at: Instant) -> bool {
        match self {
            Self::Unused(unused) => unused.at(at).is_some(),
            Self::Earlier(earlier) => earlier.window.contains(at),
        }
    }

    /// The step of a rolling window; none: nothing is unused.
    pub fn step(&self, at: Instant) -> Option<Step> {
        match self {
            Self::Unused(unused) => unused.at(at).flatten(),
            Self::Earlier(_) => None,
        }
    }

    /// The state that progress is told from in place of the tail.
    pub fn state(&self) -> Option<&State> {
        match self {
            Self::Unused(_) => None,
            Self::Earlier(earlier) => Some(&earlier.state),
        }
    }

    /// Whether both tell the same of every instant of which both tell anything.
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unused(mine), Self::Unused(theirs)) => mine.agrees(theirs),
            (Self::Earlier(mine), Self::Earlier(theirs)) => mine.window != theirs.window || mine == theirs,
            _ => true,
        }
    }

    /// Where a later look at the same running state may begin.
    fn rest(&self) -> Option<&State> {
        match self {
            Self::Unused(unused) => unused.rest.as_deref(),
            Self::Earlier(_) => None,
        }
    }
}

impl Unused {
    /// None: it tells nothing of that instant.
    fn at(&self, at: Instant) -> Option<Option<Step>> {
        if at < self.from {
            return None;
        }
        let step = self.open(at).next().copied();
        (step.is_some() || self.whole).then_some(step)
    }

    /// The steps that are not over at `at`.
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

/// Why the running state alone does not tell the progress at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A rolling window holds purchases, and time takes them out of it.
    Unused,
    /// The running state has left the window that contains the instant.
    Earlier(Interval),
}

/// What progress at `at` takes beside the tail; none: nothing. `earlier`: the window that contains `at`, where the tail is
/// in a later one.
pub(super) fn need(campaign: Campaign<'_>, tail: &State, at: Instant, earlier: Option<Interval>) -> Option<Need> {
    let WindowRule::Rolling { duration } = &campaign.rule.window else { return earlier.map(Need::Earlier) };
    let counts = tail.count > 0 && tail.last.as_ref() >= Some(&too_old(at, duration.micros()));
    (counts || is_ahead(tail, at)).then_some(Need::Unused)
}

/// Whether the last counted purchase lies ahead of `at`: what has become too old beside it may still count at `at`.
fn is_ahead(tail: &State, at: Instant) -> bool {
    tail.last.as_ref().is_some_and(|last| last.at > at)
}

/// A look at what progress takes beside the tail, at an instant and from then on.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    campaign: Campaign<'a>,
    tail: &'a State,
    /// It is to tell of the instants from here on.
    from: Instant,
    kind: Kind,
    /// What is left to load; none: nothing.
    load: Option<Stretch>,
}

#[derive(Clone, Debug)]
enum Kind {
    Rolling(Box<Rolling>),
    Earlier(Box<Earlier>),
}

impl<'a> Look<'a> {
    /// At `now`, which `need` is of. Where it can, it tells of the instants since `margin` (µs) before, too.
    pub fn new(campaign: Campaign<'a>, tail: &'a State, need: Need, now: Instant, margin: i64) -> Self {
        let kind = match need {
            Need::Earlier(window) => Kind::Earlier(Box::new(Earlier { window, state: State::default() })),
            Need::Unused => Kind::Rolling(Box::new(Rolling::new(campaign, tail))),
        };
        let margin = now.minus(margin);
        // Before the last purchase the window was another one: more would have to be known.
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

    /// Keeps so many steps, in place of [`MAX_STEPS`].
    #[must_use]
    pub fn max_steps(mut self, steps: usize) -> Self {
        if let Kind::Rolling(rolling) = &mut self.kind {
            rolling.max_steps = steps;
        }
        self
    }

    /// The latest checkpoint up to here is what it begins from; none: it begins from the tail.
    pub fn checkpoint(&self) -> Option<Key> {
        match &self.kind {
            Kind::Earlier(earlier) => Some(Key::before(earlier.window.closes)),
            Kind::Rolling(_) => is_ahead(self.tail, self.from).then(|| Key::before(self.from.plus(1))),
        }
    }

    /// Begins from that checkpoint; none: there is none, and it begins from the customer's first purchase.
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

    /// Goes on from where an earlier look at the same tail ended, if that is on the way.
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

    /// The purchases to load next, from the first on; none: it is done.
    pub fn load(&self) -> Option<&Stretch> {
        self.load.as_ref()
    }

    /// Takes the first of what [`Self::load`] asked for, in order. `reached`: how far they go; none: to the end.
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

    /// What it found.
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
    /// What it begins from: the state after some purchase.
    base: State,
    /// Of what the base counts, what is unused when the look is to tell. What is too old is taken out as it is met.
    unused: Tally,
    /// The oldest of that, by instant.
    front: Vec<(Instant, Tally)>,
    /// What follows the purchase of the base; in the end what is unused of it.
    ahead: Vec<Eligible>,
    /// The base, and those of `ahead` that are folded into it.
    folded: (State, usize),
    /// What is used up by those: after which key, up to which.
    used: Vec<(Key, Key)>,
}

/// What the pages of a [`Rolling`] look for. Without purchases ahead there is the last phase alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The purchases ahead.
    Ahead,
    /// What is too old beside them.
    Old,
    /// What is too old, and the oldest that is not.
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

    /// Its first purchases; none: there are none.
    fn begin(&self, tail: &State) -> Option<Stretch> {
        match self.phase {
            Phase::Ahead => Some(Stretch { after: self.base.last.clone(), to: tail.last.clone() }),
            _ => self.counted(self.base.used_to.clone(), self.base.last.clone()),
        }
    }

    /// What the base counts of a stretch.
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
                Tally::of_one(&self.goal, &purchase).take_back(&mut self.folded.0);
            }
            Phase::Front => {}
        }
        if purchase.key < too_old(from, self.duration) {
            self.unused.take_out(&Tally::of_one(&self.goal, &purchase));
        } else {
            self.push_front(&purchase);
        }
    }

    fn push_front(&mut self, purchase: &Eligible) {
        if self.front.last().is_none_or(|(at, _)| *at != purchase.key.at) {
            self.front.push((purchase.key.at, Tally::default()));
        }
        if let Some((_, tally)) = self.front.last_mut() {
            tally.put_in(&self.goal, purchase);
        }
    }

    /// Whether the phase has what it looks for, however much follows.
    fn is_full(&self) -> bool {
        match self.phase {
            Phase::Ahead => false,
            Phase::Old => !self.used.is_empty(),
            // One instant more than there are steps tells that the one before it is complete.
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
            // Of what the base counts, no more is unused than what was too old beside the first that used up the rest.
            self.unused = Tally::default();
            self.front.iter().for_each(|(_, tally)| self.unused.join(tally));
            return None;
        }
        let after = self.base.used_to.clone().max(old_to);
        (!self.is_full()).then(|| self.counted(after, self.base.last.clone())).flatten()
    }

    /// Folds in the purchases ahead, up to the first beside which `old` is too old.
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
            // Purchases ahead count where they lie in the window.
            let closes = opens.plus(self.duration);
            while let Some(purchase) = coming.next_if(|purchase| purchase.key.at < closes) {
                self.unused.put_in(&self.goal, purchase);
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

/// Purchases in these.
fn in_all(front: &[(Instant, Tally)]) -> i64 {
    front.iter().map(|(_, tally)| tally.count).sum()
}

/// What purchases contribute together.
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

    fn of_one(goal: &Goal, purchase: &Eligible) -> Self {
        let mut tally = Self::default();
        tally.put_in(goal, purchase);
        tally
    }

    fn into_state(self, state: State) -> State {
        State { count: self.count, sum: self.sum, items: self.items, ..state }
    }

    /// Takes it out of what a state counts.
    fn take_back(&self, state: &mut State) {
        let mut counted = Self { count: state.count, sum: state.sum, items: std::mem::take(&mut state.items) };
        counted.take_out(self);
        (state.count, state.sum, state.items) = (counted.count, counted.sum, counted.items);
    }

    fn put_in(&mut self, goal: &Goal, purchase: &Eligible) {
        self.count += 1;
        if matches!(goal, Goal::Spend { .. }) {
            self.sum += purchase.amount;
        }
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

    /// What progress shows of it.
    fn current(&self, goal: &Goal) -> i64 {
        match goal {
            Goal::Spend { .. } => self.sum,
            Goal::Distinct { .. } => self.items.len() as i64,
            _ => self.count,
        }
    }
}
