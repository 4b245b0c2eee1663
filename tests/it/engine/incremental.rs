//! The engine records and posts what the oracle does, in whatever order and chunks the history arrives.

use std::cell::Cell;

use proptest::prelude::{Just, Strategy};
use proptest::sample::select;

use windfall::engine::account::{Account, Draft, Tally, Totals};
use windfall::engine::award::Reached;
use windfall::engine::budget::{Budget, DecisionKind};
use windfall::engine::diff::{Changed, Diff, RecordedAward};
use windfall::engine::evaluate::Change;
use windfall::engine::rule::{Campaign, Eligible};

use super::store::Store;
use super::{Owned, convert, each_case};
use crate::oracle::book::{self, Book, Entry, EntryKind};
use crate::oracle::contents::{Order, purchases_of};
use crate::oracle::generate::{Case, Fact, case, commits, record};
use crate::oracle::{AwardRule, Campaign as OracleCampaign, Filter, Goal, Purchase, Window, reached};

/// The number of purchases between two checkpoints, and the most that a fold is fed at a time.
#[derive(Clone, Copy, Debug)]
struct Chunks {
    checkpoint_every: u32,
    at_most: usize,
}

/// A case, the commits in which its history arrives, a budget and the sizes of chunks.
fn arrivals() -> impl Strategy<Value = (Case, Vec<Vec<Fact>>, Option<i64>, Chunks)> {
    let budget = proptest::option::weighted(0.5, 0..40_i64);
    let chunks = (select(vec![1, 2, 3, 5]), select(vec![1, 2, 3, usize::MAX]));
    (case(), budget, chunks).prop_flat_map(|(case, budget, (checkpoint_every, at_most))| {
        let commits = commits(&case.orders);
        (Just(case), commits, Just(budget), Just(Chunks { checkpoint_every, at_most }))
    })
}

/// How the facts change the purchases that they name. A repeated fact changes nothing. A purchase at another instant leaves one
/// place of the history and enters another.
fn changes(campaign: Campaign<'_>, known: &mut Vec<Order>, facts: &[Fact]) -> Vec<Change> {
    let before = known.clone();
    facts.iter().for_each(|fact| record(known, fact));
    let eligible = |orders: &[Order], id: &str| -> Option<Eligible> {
        let (customer, purchase) = orders.iter().find(|order| order.external_id == id)?.now();
        campaign.eligible(&convert::purchase(&purchase)).filter(|_| customer == 0)
    };
    let mut touched: Vec<&str> = facts.iter().map(convert::subject).collect();
    touched.sort_unstable();
    touched.dedup();
    let change = |id: &str| match (eligible(&before, id), eligible(known, id)) {
        (Some(before), Some(after)) if before.key != after.key => {
            vec![Change { before: Some(before), after: None }, Change { before: None, after: Some(after) }]
        }
        (before, after) => vec![Change { before, after }],
    };
    touched.into_iter().flat_map(change).collect()
}

/// One customer's account in a campaign with a budget, to which differences are posted.
struct Ledger {
    account: Account,
    tally: Tally,
    totals: Totals,
    budget: Option<Budget>,
    /// Decisions about newly reached awards.
    decisions: u64,
}

impl Ledger {
    fn new(limit: Option<i64>) -> Self {
        let budget = limit.map(|limit| Budget { limit, used: 0 });
        Self { account: Account::default(), tally: Tally::default(), totals: Totals::default(), budget, decisions: 0 }
    }

    fn post(&mut self, store: &mut Store<'_>, diff: &Diff) -> Vec<Entry> {
        let effect = self.account.apply(&mut self.tally, self.budget.as_mut(), diff);
        let decided = effect
            .decisions
            .iter()
            .filter(|decision| !matches!(decision.kind, DecisionKind::Released | DecisionKind::Grown));
        self.decisions += u64::from(reached::to_u32(decided.count()));
        self.totals += effect.totals;
        let mut given = effect.given.iter().map(|given| (given.number, given.standing));
        store.post(diff, |_| given.next().expect("each newly reached award is given"));
        let reversals = effect.reversals.iter().map(|draft| self.entry(EntryKind::Reversal, draft));
        let reversals: Vec<Entry> = reversals.collect();
        reversals.into_iter().chain(effect.awards.iter().map(|draft| self.entry(EntryKind::Award, draft))).collect()
    }

    fn entry(&mut self, kind: EntryKind, draft: &Draft) -> Entry {
        self.account.post(draft.points);
        let purchase = draft.purchase.clone().expect("each entry of an award names a purchase");
        // The oracle numbers awards from 0.
        let award = usize::try_from(draft.award_number - 1).expect("a small number");
        Entry { kind, points: draft.points, award, purchase }
    }

    /// Asserts that the sums are those of the recorded awards.
    fn assert_sums(&self, recorded: &[RecordedAward]) {
        let sum = |standing: bool| {
            let awards = recorded.iter().filter(|award| award.standing == standing);
            awards.fold((0, 0), |(count, points), award| (count + 1, points + award.reached.points))
        };
        let ((standing, points_standing), (declined, points_declined)) = (sum(true), sum(false));
        let (awards, customers) = (standing, i64::from(standing > 0));
        assert_eq!(self.tally, Tally { standing, declined });
        assert_eq!(self.totals, Totals { awards, customers, points_standing, points_declined });
        assert_eq!((self.account.balance, self.account.lifetime), (points_standing, points_standing));
        assert!(self.budget.is_none_or(|budget| budget.used == points_standing));
    }
}

/// The STANDING and DECLINED awards of the book, as the engine represents them.
fn recorded_by_oracle(c: &OracleCampaign, book: &Book, known: &[Purchase]) -> Vec<RecordedAward> {
    let recorded = |recorded: book::Recorded| RecordedAward {
        number: reached::to_i64(recorded.id) + 1,
        standing: recorded.status == book::Status::Standing,
        reached: convert::reached(c, &recorded.award, known),
    };
    book.current().into_iter().map(recorded).collect()
}

fn check(c: &OracleCampaign, commits: &[Vec<Fact>], limit: Option<i64>, chunks: Chunks, seen: &Seen) {
    let owned = Owned::new(c);
    let mut store = Store::new(owned.campaign(), chunks.checkpoint_every);
    store.at_most = chunks.at_most;
    let mut ledger = Ledger::new(limit);
    let (mut book, mut budget) = (Book::default(), book::Budget { limit, ..book::Budget::default() });
    let mut orders = Vec::new();
    for facts in commits {
        let changes = changes(owned.campaign(), &mut orders, facts);
        let known = purchases_of(0, &orders);
        let diff = store.commit(changes);
        seen.note(&diff);
        let entries = ledger.post(&mut store, &diff);

        assert_eq!(entries, book.commit(c, &known, &mut budget), "after {facts:#?}");
        store.recorded.sort_by(|a, b| a.reached.order().cmp(&b.reached.order()));
        assert_eq!(store.recorded, recorded_by_oracle(c, &book, &known), "after {facts:#?}");
        ledger.assert_sums(&store.recorded);
        assert_eq!(ledger.decisions, budget.decisions);
        assert_eq!(ledger.budget.map(|budget| budget.used), limit.map(|_| budget.used));
        store.assert_as_folded_whole();
    }
}

/// Counts what the cases did, so that the test fails if they exercise too little.
#[derive(Default)]
struct Seen {
    moved: Cell<u32>,
    reposted: Cell<u32>,
    shrunk: Cell<u32>,
    grown: Cell<u32>,
    adjusted: Cell<u32>,
    reversed: Cell<u32>,
    trimmed: Cell<u32>,
    awarded: Cell<u32>,
}

impl Seen {
    fn note(&self, diff: &Diff) {
        let add = |seen: &Cell<u32>, n: usize| seen.set(seen.get() + reached::to_u32(n));
        let changed = |is: fn(&Changed) -> bool| diff.changed.iter().filter(|changed| is(changed)).count();
        let moves = |changed: &Changed| changed.recorded.reached.name() != changed.reached.name();
        add(&self.moved, changed(moves));
        add(&self.reposted, changed(|changed| changed.reposted));
        add(&self.shrunk, changed(|changed| changed.more() < 0));
        add(&self.grown, changed(|changed| changed.more() > 0));
        add(&self.adjusted, changed(Changed::posts_nothing));
        add(&self.reversed, diff.reversed.len());
        let trimmed = |award: &&Reached| award.points < award.points_before_cap;
        let changed = diff.changed.iter().map(|changed| &changed.reached);
        add(&self.trimmed, changed.chain(&diff.awarded).filter(trimmed).count());
        add(&self.awarded, diff.awarded.len());
    }

    fn assert_all(&self) {
        let Self { moved, reposted, shrunk, grown, adjusted, reversed, trimmed, awarded } = self;
        let all = [moved, reposted, shrunk, grown, adjusted, reversed, trimmed, awarded];
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

/// The same with caps in points that let through about half of what the purchases give.
#[test]
fn points_beyond_a_cap_go_to_the_awards_that_follow() {
    let seen = Seen::default();
    each_case(600, &arrivals(), |(case, commits, limit, chunks)| {
        let is_rolling = matches!(case.campaign.window, Window::Rolling { .. });
        let mut c = OracleCampaign {
            window: if is_rolling { Window::Campaign } else { case.campaign.window.clone() },
            goal: Goal::EveryPurchase,
            award: AwardRule::PointsPerUnit { rate_micro: 1_000_000 * 10_i64.pow(case.campaign.currency_exponent) },
            max_points_per_customer: None,
            max_points_per_window: None,
            hold_for: None,
            expires_after: None,
            ..case.campaign.clone()
        };
        let points: Vec<i64> = reached::reached(&c, &case.purchases).iter().map(|award| award.points).collect();
        let half = (points.iter().sum::<i64>() / 2).max(1);
        let of_window = points.iter().max().map(|most| most * 3 / 2);
        let of_customer = case.purchases.len() % 3 != 0;
        c.max_points_per_customer = of_customer.then_some(half);
        c.max_points_per_window =
            if of_customer { of_window.filter(|_| case.purchases.len() % 2 == 0) } else { Some(half) };
        check(&c, &commits, limit, chunks, &seen);
    });
    for seen in [&seen.trimmed, &seen.grown, &seen.shrunk, &seen.reversed] {
        assert!(seen.get() >= 100, "{}", seen.get());
    }
}

/// The same with an award for each purchase by rates so different that refunds often add points.
#[test]
fn points_that_a_refund_adds_are_posted() {
    let seen = Seen::default();
    let rates = vec![(vec!["toys".to_owned(), "food".to_owned()], 0), (vec!["Toys".to_owned()], 1_000_000)];
    each_case(600, &arrivals(), |(case, commits, limit, chunks)| {
        let is_rolling = matches!(case.campaign.window, Window::Rolling { .. });
        let c = OracleCampaign {
            filter: Filter::default(),
            window: if is_rolling { Window::Campaign } else { case.campaign.window.clone() },
            goal: Goal::EveryPurchase,
            award: AwardRule::PointsByCategory { rate_micro: 1_000_000_000, rates: rates.clone() },
            ..case.campaign.clone()
        };
        check(&c, &commits, limit, chunks, &seen);
    });
    assert!(seen.grown.get() >= 5, "{}", seen.grown.get());
}
