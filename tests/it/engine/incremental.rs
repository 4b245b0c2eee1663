use std::cell::Cell;

use proptest::prelude::{Just, Strategy};
use proptest::sample::select;

use windfall::engine::award::Reached;
use windfall::engine::budget::Budget;
use windfall::engine::diff::{Diff, How, Recorded};
use windfall::engine::evaluate::Change;
use windfall::engine::rule::{Campaign, Eligible};

use super::store::Store;
use super::{Owned, convert, each_case};
use crate::oracle::book::{self, Book, Entry, EntryKind};
use crate::oracle::generate::{Case, Fact, case, commits, record};
use crate::oracle::{Campaign as OracleCampaign, Purchase, reached};

/// How much is stored and loaded at once: purchases between two checkpoints, and those that a fold is fed at the most.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    checkpoint_every: u32,
    at_most: usize,
}

/// A case, a way for it to arrive and a budget.
fn arrivals() -> impl Strategy<Value = (Case, Vec<Vec<Fact>>, Option<i64>, Chunks)> {
    let budget = proptest::option::weighted(0.5, 0..40_i64);
    let chunks = (select(vec![1, 2, 3, 5]), select(vec![1, 2, 3, usize::MAX]));
    (case(), budget, chunks).prop_flat_map(|(case, budget, (checkpoint_every, at_most))| {
        let commits = commits(&case.purchases);
        (Just(case), commits, Just(budget), Just(Chunks { checkpoint_every, at_most }))
    })
}

/// How the purchases that the facts touch changed; a repeated fact touches nothing.
fn changes(campaign: Campaign<'_>, known: &mut Vec<Purchase>, facts: &[Fact]) -> Vec<Change> {
    let before = known.clone();
    facts.iter().for_each(|fact| record(known, fact));
    let eligible = |purchases: &[Purchase], id: &str| -> Option<Eligible> {
        let purchase = purchases.iter().find(|p| p.external_id == id)?;
        campaign.eligible(&convert::purchase(purchase))
    };
    let mut touched: Vec<&str> = facts.iter().map(convert::subject).collect();
    touched.sort_unstable();
    touched.dedup();
    touched.into_iter().map(|id| Change { before: eligible(&before, id), after: eligible(known, id) }).collect()
}

/// The customer's ledger as the application writes it from a difference.
struct Ledger {
    budget: Option<Budget>,
    decisions: u64,
    /// Awards recorded so far.
    awards: i64,
}

impl Ledger {
    fn post(&mut self, store: &mut Store<'_>, diff: &Diff) -> Vec<Entry> {
        let mut reversals: Vec<(&Reached, Entry)> = Vec::new();
        let reverse =
            |recorded: &Recorded, points: i64| entry(EntryKind::Reversal, recorded.number, -points, &recorded.reached);
        for lost in diff.reversed.iter().filter(|lost| lost.standing) {
            reversals.push((&lost.reached, reverse(lost, lost.reached.points)));
            self.release(lost.reached.points);
        }
        let mut awards: Vec<(&Reached, Entry)> = Vec::new();
        for changed in &diff.changed {
            let recorded = &changed.recorded;
            match changed.how {
                How::Shrunk(fewer) if recorded.standing => {
                    reversals.push((&recorded.reached, reverse(recorded, fewer)));
                    self.release(fewer);
                }
                How::Reposted => {
                    let points = recorded.reached.points;
                    reversals.push((&recorded.reached, reverse(recorded, points)));
                    awards.push((&changed.reached, entry(EntryKind::Award, recorded.number, points, &changed.reached)));
                }
                How::Moved | How::Adjusted | How::Shrunk(_) => (),
            }
        }
        let mut decided = Vec::new();
        for reached in &diff.awarded {
            let standing = self.budget.as_mut().is_none_or(|budget| budget.decide(reached.points));
            self.decisions += u64::from(self.budget.is_some());
            if standing {
                awards.push((reached, entry(EntryKind::Award, self.awards, reached.points, reached)));
            }
            decided.push((self.awards, standing));
            self.awards += 1;
        }
        let mut decided = decided.into_iter();
        store.post(diff, |_| decided.next().expect("one decision for each"));
        reversals.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
        awards.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
        reversals.into_iter().chain(awards).map(|(_, entry)| entry).collect()
    }

    fn release(&mut self, points: i64) {
        if let Some(budget) = &mut self.budget {
            budget.release(points);
        }
    }
}

fn entry(kind: EntryKind, award: i64, points: i64, reached: &Reached) -> Entry {
    let award = usize::try_from(award).expect("a small number");
    Entry { kind, points, award, purchase: reached.by.external_id.clone() }
}

/// STANDING and DECLINED awards: number, whether it stands, what was reached.
fn recorded_by_oracle(book: &Book, known: &[Purchase]) -> Vec<Recorded> {
    let recorded = |recorded: book::Recorded| Recorded {
        number: reached::to_i64(recorded.id),
        standing: recorded.status == book::Status::Standing,
        reached: convert::reached(&recorded.award, known),
    };
    book.current().into_iter().map(recorded).collect()
}

fn check(c: &OracleCampaign, commits: &[Vec<Fact>], limit: Option<i64>, chunks: Chunks, seen: &Seen) {
    let owned = Owned::new(c);
    let mut store = Store::new(owned.campaign(), chunks.checkpoint_every);
    store.at_most = chunks.at_most;
    let mut ledger = Ledger { budget: limit.map(|limit| Budget { limit, used: 0 }), decisions: 0, awards: 0 };
    let (mut book, mut budget) = (Book::default(), book::Budget { limit, ..book::Budget::default() });
    let mut known = Vec::new();
    for facts in commits {
        let changes = changes(owned.campaign(), &mut known, facts);
        let diff = store.commit(changes);
        seen.note(&diff);
        let entries = ledger.post(&mut store, &diff);

        assert_eq!(entries, book.commit(c, &known, &mut budget), "after {facts:#?}");
        store.recorded.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
        assert_eq!(store.recorded, recorded_by_oracle(&book, &known), "after {facts:#?}");
        assert_eq!(ledger.decisions, budget.decisions);
        assert_eq!(ledger.budget.map(|budget| budget.used), limit.map(|_| budget.used));
        store.assert_as_folded_whole();
    }
}

/// What the cases showed, lest they show nothing.
#[derive(Default)]
struct Seen {
    moved: Cell<u32>,
    reposted: Cell<u32>,
    shrunk: Cell<u32>,
    adjusted: Cell<u32>,
    reversed: Cell<u32>,
    awarded: Cell<u32>,
}

impl Seen {
    fn note(&self, diff: &Diff) {
        let add = |seen: &Cell<u32>, n: usize| seen.set(seen.get() + reached::to_u32(n));
        let changed = |how: fn(&How) -> bool| diff.changed.iter().filter(|changed| how(&changed.how)).count();
        add(&self.moved, changed(|how| *how == How::Moved));
        add(&self.reposted, changed(|how| *how == How::Reposted));
        add(&self.shrunk, changed(|how| matches!(how, How::Shrunk(_))));
        add(&self.adjusted, changed(|how| *how == How::Adjusted));
        add(&self.reversed, diff.reversed.len());
        add(&self.awarded, diff.awarded.len());
    }

    fn assert_all(&self) {
        let Self { moved, reposted, shrunk, adjusted, reversed, awarded } = self;
        let all = [moved, reposted, shrunk, adjusted, reversed, awarded];
        assert!(all.iter().all(|n| n.get() >= 5), "{all:?}");
    }
}

#[test]
fn commits_in_any_order_record_and_post_what_the_oracle_does() {
    let seen = Seen::default();
    each_case(1200, &arrivals(), |(case, commits, limit, chunks)| {
        check(&case.campaign, &commits, limit, chunks, &seen);
    });
    seen.assert_all();
}
