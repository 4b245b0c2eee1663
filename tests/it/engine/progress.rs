//! The engine and the oracle agree on the progress at any instant.

use std::collections::BTreeMap;

use windfall::engine::cap::Sum;
use windfall::engine::evaluate::Outcome;
use windfall::engine::lookback::{Look, Lookback, Need};
use windfall::engine::progress::{Progress, need, progress};
use windfall::engine::purchase::Key;
use windfall::engine::rule::{Campaign, Eligible};
use windfall::engine::state::State;
use windfall::engine::time::Instant;

use super::store::whole;
use super::whole::eligible;
use super::{Owned, convert, each_case};
use crate::oracle;
use crate::oracle::generate::{Case, case, instants};
use crate::oracle::{MINUTE, Purchase};

/// What the application stores of one customer in one campaign.
pub(crate) struct Stored<'a> {
    pub(crate) campaign: Campaign<'a>,
    pub(crate) eligible: BTreeMap<Key, Eligible>,
    pub(crate) tail: State,
    /// The states after some of the counted purchases.
    pub(crate) checkpoints: Vec<State>,
    pub(crate) awards: Sum,
}

/// The parameters of a look.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    /// The most purchases that one page holds.
    pub(crate) page: usize,
    pub(crate) max_steps: usize,
    pub(crate) margin: i64,
}

const WAYS: [Way; 3] = [
    Way { page: 100, max_steps: 64, margin: 0 },
    Way { page: 1, max_steps: 2, margin: MINUTE },
    Way { page: 3, max_steps: 1, margin: 0 },
];

impl<'a> Stored<'a> {
    fn new(owned: &'a Owned, purchases: &[Purchase]) -> Self {
        let campaign = owned.campaign();
        let eligible = eligible(campaign, purchases);
        let Outcome { awards, checkpoints, tail, .. } = whole(campaign, &eligible);
        let checkpoints = checkpoints.into_iter().skip(2).step_by(3).collect();
        let tail = tail.expect("a whole fold has a tail").state;
        Self { campaign, eligible, tail, checkpoints, awards: Sum::of(&awards) }
    }

    /// Looks at the progress at `at`. Returns the result as it comes back from storage, and the number of purchases
    /// loaded.
    pub(crate) fn look(&self, need: Need, at: Instant, way: Way, earlier: Option<&Lookback>) -> (Lookback, usize) {
        let (found, loaded) = self.look_before(need, at, way, earlier);
        if found.holds(at) || way.margin == 0 {
            return (found, loaded);
        }
        let (again, more) = self.look_before(need, at, Way { margin: 0, ..way }, earlier);
        (again, loaded + more)
    }

    fn look_before(&self, need: Need, at: Instant, way: Way, earlier: Option<&Lookback>) -> (Lookback, usize) {
        let mut look = Look::new(self.campaign, &self.tail, need, at, way.margin).max_steps(way.max_steps);
        if let Some(key) = look.checkpoint() {
            let before = |state: &&State| state.last.as_ref().is_some_and(|last| *last <= key);
            look.begin_from(self.checkpoints.iter().rfind(before).cloned());
        }
        if let Some(earlier) = earlier {
            look.go_on_from(earlier);
        }
        let mut loaded = 0;
        while let Some(range) = look.load() {
            let inside = self.eligible.values().filter(|purchase| range.contains(&purchase.key));
            let page: Vec<Eligible> = inside.take(way.page).cloned().collect();
            loaded += page.len();
            let reached = (page.len() == way.page).then(|| page[page.len() - 1].key.clone());
            look.feed(page, reached);
        }
        let found = look.finish();
        let text = serde_json::to_string(&found).expect("plain data");
        (serde_json::from_str(&text).expect("a serialised look"), loaded)
    }

    fn progress(&self, lookback: Option<&Lookback>, at: Instant) -> Progress {
        assert!(lookback.is_none_or(|lookback| lookback.holds(at)), "at {at}: {lookback:#?}");
        progress(self.campaign, &self.tail, self.awards, lookback, at)
    }
}

fn expected(case: &Case, purchases: &[Purchase], t: i64) -> Progress {
    convert::progress(&oracle::progress::progress(&case.campaign, purchases, t))
}

/// Computes the progress from the tail and what the engine asks for, and compares it with the oracle.
fn check(case: &Case, purchases: &[Purchase], t: i64) {
    let owned = Owned::new(&case.campaign);
    let (stored, at) = (Stored::new(&owned, purchases), Instant(t));
    let need = need(stored.campaign, &stored.tail, at);
    for way in WAYS {
        let lookback = need.map(|need| stored.look(need, at, way, None).0);
        let found = stored.progress(lookback.as_ref(), at);
        assert_eq!(found, expected(case, purchases, t), "at {t}: {lookback:?} {:#?}", stored.tail);
    }
}

/// A look can be used for as long as it says, and the next one continues where it ended. All looks agree wherever they
/// are valid.
#[test]
fn progress_agrees_at_any_time() {
    each_case(250, &case(), |case| {
        let owned = Owned::new(&case.campaign);
        let stored = Stored::new(&owned, &case.purchases);
        let mut kept: [Option<Lookback>; WAYS.len()] = [const { None }; WAYS.len()];
        for t in instants(&case) {
            let (at, expected) = (Instant(t), expected(&case, &case.purchases, t));
            let Some(need) = need(stored.campaign, &stored.tail, at) else {
                assert_eq!(stored.progress(None, at), expected, "at {t}: {:#?}", stored.tail);
                continue;
            };
            for (way, kept) in WAYS.into_iter().zip(&mut kept) {
                let (fresh, _) = stored.look(need, at, way, None);
                let next = match kept.take() {
                    Some(kept) if kept.holds(at) => kept,
                    earlier => stored.look(need, at, way, earlier.as_ref()).0,
                };
                assert!(next.agrees(&fresh) && fresh.agrees(&next), "at {t}: {next:#?} {fresh:#?}");
                for lookback in [&fresh, &next] {
                    assert_eq!(stored.progress(Some(lookback), at), expected, "at {t}: {lookback:#?}");
                }
                *kept = Some(next);
            }
        }
    });
}

/// Purchases ahead of the current instant are not recorded yet, except for those of clocks that are minutes ahead.
#[test]
fn progress_agrees_as_purchases_come_in() {
    each_case(250, &case(), |case| {
        for t in instants(&case) {
            let recorded: Vec<Purchase> = case.purchases.iter().filter(|p| p.at <= t + 5 * MINUTE).cloned().collect();
            check(&case, &recorded, t);
        }
    });
}
