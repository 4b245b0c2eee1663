//! An in-memory stand-in for what the application stores of one customer in one campaign. A commit runs through it as
//! through the application.

use std::collections::BTreeMap;

use windfall::engine::award::Reached;
use windfall::engine::cap::{self, Caps, Following, Further, Leaving, Sum};
use windfall::engine::diff::{Diff, RecordedAward, diff};
use windfall::engine::evaluate::{Append, Change, Checkpoints, Load, Outcome, Plan, Refold, Tail, plan};
use windfall::engine::goal::Goal;
use windfall::engine::purchase::Key;
use windfall::engine::rule::{Campaign, Eligible};
use windfall::engine::state::State;
use windfall::engine::stretch::Stretch;
use windfall::engine::time::Instant;

pub(crate) struct Store<'a> {
    pub(crate) campaign: Campaign<'a>,
    pub(crate) checkpoint_every: u32,
    pub(crate) eligible: BTreeMap<Key, Eligible>,
    pub(crate) tail: Tail,
    /// Ordered by the purchase that each follows.
    pub(crate) checkpoints: Vec<State>,
    /// The STANDING and DECLINED awards, in any order.
    pub(crate) recorded: Vec<RecordedAward>,
    /// The most purchases that a fold is fed at a time.
    pub(crate) at_most: usize,
    /// What was loaded since the test last reset this.
    pub(crate) loads: Loads,
}

/// The numbers of rows that folds were fed, one element for each load.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    pub(crate) purchases: Vec<usize>,
    pub(crate) checkpoints: Vec<usize>,
    pub(crate) awards: usize,
}

impl Loads {
    pub(crate) fn rows(&self) -> usize {
        self.purchases.iter().chain(&self.checkpoints).sum::<usize>() + self.awards
    }

    /// The number of loads.
    pub(crate) fn goes(&self) -> usize {
        self.purchases.len() + self.checkpoints.len()
    }
}

/// Feeds folds with what they ask for, and counts it.
pub(crate) struct Source<'a> {
    eligible: &'a BTreeMap<Key, Eligible>,
    checkpoints: &'a [State],
    at_most: usize,
    loads: &'a mut Loads,
}

impl Source<'_> {
    /// The first eligible purchases of a range. If more may follow, the second value is the last key that was loaded.
    fn purchases(&mut self, range: &Stretch) -> (Vec<Eligible>, Option<Key>) {
        let first = range.after.clone().unwrap_or_else(|| Key::before(windfall::engine::time::Instant::NEVER));
        let inside = self
            .eligible
            .range(first..)
            .take_while(|(key, _)| range.to.as_ref().is_none_or(|to| *key <= to))
            .filter(|(key, _)| range.contains(key));
        let loaded: Vec<Eligible> = inside.map(|(_, eligible)| eligible.clone()).take(self.at_most).collect();
        self.loads.purchases.push(loaded.len());
        let to = loaded.last().filter(|_| loaded.len() == self.at_most).map(|last| last.key.clone());
        (loaded, to)
    }

    /// Only the stored states that are asked for.
    fn checkpoints(&mut self, asked: &Checkpoints) -> (Option<State>, Vec<State>) {
        let key = |state: &State| state.last.clone().expect("a checkpoint follows a purchase");
        let before = asked.before.as_ref().and_then(|before| self.checkpoints.iter().rfind(|s| key(s) < *before));
        let ahead = self.checkpoints.iter().filter(|state| key(state) > asked.after).take(asked.count);
        let ahead: Vec<State> = ahead.cloned().collect();
        self.loads.checkpoints.push(ahead.len() + usize::from(before.is_some()));
        (before.cloned(), ahead)
    }

    fn append(&mut self, mut append: Append<'_>) -> Outcome {
        while let Some(range) = append.load() {
            let (loaded, to) = self.purchases(&range);
            append.feed(loaded, to);
        }
        append.finish()
    }

    fn refold(&mut self, mut refold: Refold<'_>) -> Outcome {
        while let Some(load) = refold.load() {
            match load {
                Load::Checkpoints(asked) => {
                    let (before, ahead) = self.checkpoints(&asked);
                    refold.feed_checkpoints(before, ahead);
                }
                Load::Purchases(range) => {
                    let (loaded, to) = self.purchases(&range);
                    refold.feed(loaded, to);
                }
            }
        }
        refold.finish()
    }

    fn further(&mut self, mut further: Further<'_>) -> Vec<Reached> {
        while let Some(load) = further.load() {
            match load {
                Load::Checkpoints(asked) => {
                    let (before, ahead) = self.checkpoints(&asked);
                    further.feed_checkpoints(before, ahead);
                }
                Load::Purchases(range) => {
                    let (loaded, to) = self.purchases(&range);
                    further.feed(loaded, to);
                }
            }
        }
        further.finish()
    }
}

/// Folds the whole history in one go. The outcome has the state after each counted purchase as a checkpoint.
pub(crate) fn whole(campaign: Campaign<'_>, eligible: &BTreeMap<Key, Eligible>) -> Outcome {
    let mut loads = Loads::default();
    let mut source = Source { eligible, checkpoints: &[], at_most: usize::MAX, loads: &mut loads };
    let mut outcome = source.refold(Refold::whole(campaign));
    cap::cut(campaign.rule, &mut outcome, Sum::default(), Sum::default(), &[]);
    outcome.checkpoints.clear();
    let purchases: Vec<Eligible> = eligible.values().cloned().collect();
    let mut state = State::default();
    for next in 0..purchases.len() {
        state.step(campaign, &purchases, next, &mut Vec::new());
        if state.last.as_ref() == Some(&purchases[next].key) {
            outcome.checkpoints.push(state.clone());
        }
    }
    outcome
}

impl<'a> Store<'a> {
    pub(crate) fn new(campaign: Campaign<'a>, checkpoint_every: u32) -> Self {
        Self {
            campaign,
            checkpoint_every,
            eligible: BTreeMap::new(),
            tail: Tail::default(),
            checkpoints: Vec::new(),
            recorded: Vec::new(),
            at_most: usize::MAX,
            loads: Loads::default(),
        }
    }

    /// Evaluates what the changes can affect. The caller posts the difference with [`Self::post`].
    pub(crate) fn commit(&mut self, changes: Vec<Change>) -> Diff {
        for Change { before, after } in &changes {
            if let Some(before) = before {
                self.eligible.remove(&before.key);
            }
            if let Some(after) = after {
                self.eligible.insert(after.key.clone(), after.clone());
            }
        }
        let every = self.checkpoint_every;
        let plan = plan(self.campaign, self.tail.clone(), changes);
        let campaign = self.campaign;
        let mut source = self.source();
        let outcome = match plan {
            Plan::Unaffected => return Diff::default(),
            Plan::Append(fold) => source.append(fold.checkpoint_every(every)),
            Plan::Refold { first, last } => source.refold(Refold::new(campaign, &first, &last).checkpoint_every(every)),
        };
        self.assert_goes_on(&outcome);
        self.apply(outcome)
    }

    /// Asserts that a fold that continues from a checkpoint before the tail finds the same as `outcome`.
    fn assert_goes_on(&self, outcome: &Outcome) {
        let (mut begun, mut loads) = (outcome.clone(), Loads::default());
        let to_the_end = outcome.met.is_none() && !outcome.appended;
        let seen = self.tail.state.last.as_ref().filter(|_| to_the_end);
        let Some(state) = seen.and_then(|seen| begun.rewind(seen)) else { return };
        let Self { campaign, checkpoint_every, eligible, at_most, .. } = self;
        let mut source = Source { eligible, checkpoints: &[], at_most: *at_most, loads: &mut loads };
        let onward = source.refold(Refold::onward(*campaign, state).checkpoint_every(*checkpoint_every));
        let mut found = begun.followed_by(onward);
        let mut outcome = outcome.clone();
        for outcome in [&mut found, &mut outcome] {
            Caps::of(campaign.rule).keep(&mut outcome.awards, 0);
        }
        assert_eq!(found, outcome);
    }

    fn source(&mut self) -> Source<'_> {
        let Self { eligible, checkpoints, at_most, loads, .. } = self;
        Source { eligible, checkpoints, at_most: *at_most, loads }
    }

    fn apply(&mut self, mut outcome: Outcome) -> Diff {
        let stretch = outcome.stretch.clone();
        let in_stretch = |award: &&RecordedAward| stretch.contains(&award.reached.by);
        let mut recorded: Vec<RecordedAward> = self.recorded.iter().filter(in_stretch).cloned().collect();
        assert!(!outcome.appended || recorded.is_empty(), "awards after the tail: {recorded:#?}");
        self.loads.awards += recorded.len();
        self.cap(&mut outcome, &mut recorded);
        self.checkpoints.retain(|state| {
            let key = state.last.as_ref().expect("a checkpoint follows a purchase");
            !stretch.contains(key) || outcome.stretch.to.as_ref() == Some(key)
        });
        self.checkpoints.extend(outcome.checkpoints.iter().map(stored));
        self.checkpoints.sort_by(|a, b| a.last.cmp(&b.last));
        if let Some(tail) = outcome.tail {
            self.tail = Tail { state: stored(&tail.state), ..tail };
        }
        // All points are pending, so other dates are another lot.
        diff(recorded, outcome.awards, Instant::NEVER)
    }

    /// Applies the cap of the customer to the stretch. Awards after the stretch may enter or leave because of it.
    fn cap(&mut self, outcome: &mut Outcome, recorded: &mut Vec<RecordedAward>) {
        let sum = |awards: &[RecordedAward]| Sum::of(awards.iter().map(|award| &award.reached));
        let (all, in_stretch) = (sum(&self.recorded), sum(recorded));
        let rule = self.campaign.rule;
        let mut behind: Vec<RecordedAward> = self.recorded.clone();
        behind.retain(|award| outcome.stretch.to.as_ref().is_some_and(|to| award.reached.by > *to));
        behind.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
        let mut leaving: Vec<RecordedAward> = Vec::new();
        let mut entering = Vec::new();
        match cap::following(rule, outcome, all, in_stretch) {
            Following::Stay => {}
            Following::Leave(excess) => {
                let points =
                    |leaving: &[RecordedAward]| leaving.iter().map(|award| award.reached.points).collect::<Vec<_>>();
                while !excess.is_covered_by(&points(&leaving))
                    && let Some(last) = behind.pop()
                {
                    leaving.push(last);
                }
                self.loads.awards += leaving.len();
            }
            Following::Enter(room) => {
                let campaign = self.campaign;
                let further = match (behind.last(), outcome.met.clone()) {
                    (Some(RecordedAward { reached, .. }), _) => {
                        Further::after_award(campaign, reached.place(), reached.points, room)
                    }
                    (None, met) => Further::after_stretch(campaign, met.expect("a stretch that ends"), room),
                };
                if Further::finds_last(rule) {
                    recorded.extend(behind.pop());
                }
                self.loads.awards += 1;
                entering = self.source().further(further);
            }
        }
        let points: Vec<i64> = leaving.iter().map(|award| award.reached.points).collect();
        let Leaving { whole, trimmed } = cap::cut(rule, outcome, all, in_stretch, &points);
        let mut leaving = leaving.into_iter();
        recorded.extend(leaving.by_ref().take(whole));
        if let Some(points) = trimmed {
            let last = leaving.next().expect("an award that is trimmed");
            outcome.awards.push(Reached { points, ..last.reached.clone() });
            recorded.push(last);
        }
        outcome.awards.extend(entering);
    }

    /// Applies the difference to the recorded awards. `decide` returns the number of each new award and whether it
    /// stands.
    pub(crate) fn post(&mut self, diff: &Diff, mut decide: impl FnMut(&Reached) -> (i64, bool)) {
        let gone = |award: &RecordedAward| diff.reversed.iter().any(|reversed| reversed.number == award.number);
        self.recorded.retain(|award| !gone(award));
        for award in &mut self.recorded {
            if let Some(changed) = diff.changed.iter().find(|changed| changed.recorded.number == award.number) {
                award.reached = changed.reached.clone();
            }
        }
        for reached in &diff.awarded {
            let (number, standing) = decide(reached);
            self.recorded.push(RecordedAward { number, standing, reached: reached.clone() });
        }
    }

    /// Commits and posts without a budget, so every award stands. If the goal is `spend`, the purchases add their amounts, so that the
    /// caller can make purchases that suit any goal.
    pub(crate) fn commit_unlimited(&mut self, mut changes: Vec<Change>) -> Diff {
        if matches!(self.campaign.rule.goal, Goal::Spend { .. }) {
            for purchase in changes.iter_mut().flat_map(|change| [&mut change.before, &mut change.after]).flatten() {
                purchase.adds = purchase.amount;
            }
        }
        let diff = self.commit(changes);
        let mut number = self.recorded.iter().map(|award| award.number).max().unwrap_or(0);
        self.post(&diff, |_| {
            number += 1;
            (number, true)
        });
        diff
    }

    /// Asserts that awards, states and checkpoints equal those of a fold of the whole history.
    pub(crate) fn assert_as_folded_whole(&self) {
        let Outcome { mut awards, checkpoints, tail, .. } = whole(self.campaign, &self.eligible);
        let state = checkpoints.last().cloned().unwrap_or_default();
        assert_eq!(tail.map(|tail| tail.state), Some(state.clone()), "as if step by step");
        let mut recorded: Vec<Reached> = self.recorded.iter().map(|award| award.reached.clone()).collect();
        recorded.sort_by(|a, b| a.order().cmp(&b.order()));
        awards.sort_by(|a, b| a.order().cmp(&b.order()));
        assert_eq!(recorded, awards);
        assert_eq!(self.tail.state, state);
        let mut behind = 0;
        for stored in &self.checkpoints {
            let at = checkpoints.iter().position(|state| state.last == stored.last).expect("a counted purchase");
            assert_eq!(*stored, checkpoints[at]);
            behind = at + 1;
        }
        // The next checkpoint comes after the same number of purchases, in whatever order these arrived.
        let since = checkpoints.len() - behind;
        assert_eq!(usize::try_from(self.tail.since_checkpoint).ok(), Some(since), "{:#?}", self.tail);
        assert!(self.tail.since_checkpoint < self.checkpoint_every || !self.tail.state.items.is_empty());
    }
}

/// The state as it comes back from storage.
fn stored(state: &State) -> State {
    let text = serde_json::to_string(state).expect("a state is plain data");
    serde_json::from_str(&text).expect("a serialised state")
}
