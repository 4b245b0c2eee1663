//! What the application stores of one customer in one campaign, and how it goes through a commit, in memory.

use std::collections::BTreeMap;

use windfall::engine::award::Reached;
use windfall::engine::diff::{Diff, Recorded, diff};
use windfall::engine::evaluate::{Append, Change, Outcome, Plan, Range, Refold, Tail, plan};
use windfall::engine::purchase::Key;
use windfall::engine::rule::{Campaign, Eligible};
use windfall::engine::state::State;

pub(crate) struct Store<'a> {
    pub(crate) campaign: Campaign<'a>,
    pub(crate) checkpoint_every: u32,
    /// The customer's eligible purchases.
    pub(crate) eligible: BTreeMap<Key, Eligible>,
    pub(crate) tail: Tail,
    /// In order.
    pub(crate) checkpoints: Vec<State>,
    /// STANDING and DECLINED ones, in any order.
    pub(crate) recorded: Vec<Recorded>,
    /// How many purchases each fold asked for, since it was last taken.
    pub(crate) loads: Vec<usize>,
}

/// A range of the eligible purchases: nothing more, nothing less.
fn load(eligible: &BTreeMap<Key, Eligible>, range: &Range, loads: &mut Vec<usize>) -> Vec<Eligible> {
    let first = range.after.clone().unwrap_or_else(|| Key::before(windfall::engine::time::Instant::NEVER));
    let loaded: Vec<Eligible> = eligible
        .range(first..)
        .take_while(|(key, _)| range.to.as_ref().is_none_or(|to| *key <= to))
        .filter(|(key, _)| range.contains(key))
        .map(|(_, eligible)| eligible.clone())
        .collect();
    loads.push(loaded.len());
    loaded
}

fn append(mut append: Append<'_>, eligible: &BTreeMap<Key, Eligible>, loads: &mut Vec<usize>) -> Outcome {
    while let Some(range) = append.load() {
        append.feed(load(eligible, &range, loads));
    }
    append.finish()
}

fn refold(mut refold: Refold<'_>, eligible: &BTreeMap<Key, Eligible>, loads: &mut Vec<usize>) -> Outcome {
    while let Some(range) = refold.load() {
        refold.feed(load(eligible, &range, loads));
    }
    refold.finish()
}

/// Everything folded at once, with a checkpoint after each counted purchase.
pub(crate) fn whole(campaign: Campaign<'_>, eligible: &BTreeMap<Key, Eligible>) -> Outcome {
    refold(Refold::whole(campaign).checkpoint_every(1), eligible, &mut Vec::new())
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
            loads: Vec::new(),
        }
    }

    /// Evaluates what the changes can affect. The difference is the caller's to post, through [`Self::post`].
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
        let outcome = match plan(self.campaign, &self.tail, changes) {
            Plan::Unaffected => return Diff::default(),
            Plan::Append(fold) => append(fold.checkpoint_every(every), &self.eligible, &mut self.loads),
            Plan::Refold { first, last } => {
                let fold = Refold::new(self.campaign, self.checkpoints.clone(), &first, &last);
                refold(fold.checkpoint_every(every), &self.eligible, &mut self.loads)
            }
        };
        self.apply(outcome)
    }

    fn apply(&mut self, outcome: Outcome) -> Diff {
        let stretch = Range { after: outcome.from.clone(), to: outcome.to.clone() };
        let recorded: Vec<Recorded> =
            self.recorded.iter().filter(|award| stretch.contains(&award.reached.by)).cloned().collect();
        assert!(!outcome.appended || recorded.is_empty(), "awards after the tail: {recorded:#?}");
        self.checkpoints.retain(|state| {
            let key = state.last.as_ref().expect("a checkpoint follows a purchase");
            !stretch.contains(key) || outcome.to.as_ref() == Some(key)
        });
        self.checkpoints.extend(outcome.checkpoints.iter().map(stored));
        self.checkpoints.sort_by(|a, b| a.last.cmp(&b.last));
        if let Some(tail) = outcome.tail {
            self.tail = Tail { state: stored(&tail.state), ..tail };
        }
        let rule = self.campaign.rule;
        diff(recorded, outcome.awards, rule.hold_for.is_some() || rule.expires_after.is_some())
    }

    /// Records the awards as the difference leaves them; `decide` numbers the new ones and says whether they stand.
    pub(crate) fn post(&mut self, diff: &Diff, mut decide: impl FnMut(&Reached) -> (i64, bool)) {
        let gone = |award: &Recorded| diff.reversed.iter().any(|reversed| reversed.number == award.number);
        self.recorded.retain(|award| !gone(award));
        for award in &mut self.recorded {
            if let Some(changed) = diff.changed.iter().find(|changed| changed.recorded.number == award.number) {
                award.reached = changed.reached.clone();
            }
        }
        for reached in &diff.awarded {
            let (number, standing) = decide(reached);
            self.recorded.push(Recorded { number, standing, reached: reached.clone() });
        }
    }

    /// Commits and posts where no budget declines anything.
    pub(crate) fn commit_unlimited(&mut self, changes: Vec<Change>) -> Diff {
        let diff = self.commit(changes);
        let mut number = self.recorded.iter().map(|award| award.number).max().unwrap_or(0);
        self.post(&diff, |_| {
            number += 1;
            (number, true)
        });
        diff
    }

    /// What a state and everything behind it must be: equal to those of a fold of the whole.
    pub(crate) fn assert_as_folded_whole(&self) {
        let Outcome { mut awards, checkpoints, tail, .. } = whole(self.campaign, &self.eligible);
        let mut recorded: Vec<Reached> = self.recorded.iter().map(|award| award.reached.clone()).collect();
        recorded.sort_by(|a, b| a.order().cmp(&b.order()));
        awards.sort_by(|a, b| a.order().cmp(&b.order()));
        assert_eq!(recorded, awards);
        assert_eq!(self.tail.state, tail.expect("a whole fold replaces the tail").state);
        let mut behind = 0;
        for stored in &self.checkpoints {
            let at = checkpoints.iter().position(|state| state.last == stored.last).expect("a counted purchase");
            assert_eq!(*stored, checkpoints[at]);
            behind = at + 1;
        }
        // The next checkpoint comes when it is due, however the purchases arrived.
        let since = checkpoints.len() - behind;
        assert_eq!(usize::try_from(self.tail.since_checkpoint).ok(), Some(since), "{:#?}", self.tail);
        assert!(self.tail.since_checkpoint < self.checkpoint_every);
    }
}

/// As it comes back from where it is stored.
fn stored(state: &State) -> State {
    let text = serde_json::to_string(state).expect("a state is plain data");
    serde_json::from_str(&text).expect("what was written")
}
