use windfall::engine::evaluate::Range;
use windfall::engine::progress::{progress, reads};
use windfall::engine::purchase::MAX_AHEAD;
use windfall::engine::rule::Eligible;

use super::store::whole;
use super::whole::eligible;
use super::{Owned, convert, each_case};
use crate::oracle;
use crate::oracle::generate::{Case, case, instants};
use crate::oracle::{Campaign, Instant, Purchase, Window};

/// The progress from no more than the tail and what the engine asks for.
fn check(c: &Campaign, purchases: &[Purchase], t: Instant) {
    let owned = Owned::new(c);
    let campaign = owned.campaign();
    let at = windfall::engine::time::Instant(t);
    let eligible = eligible(campaign, purchases);
    let outcome = whole(campaign, &eligible);
    let tail = outcome.tail.expect("a whole fold has a tail").state;
    let wanted = reads(campaign, &tail, at);
    let inside = |p: &&Eligible| wanted.as_ref().is_some_and(|range: &Range| range.contains(&p.key));
    let loaded: Vec<Eligible> = eligible.values().filter(inside).cloned().collect();
    let found = progress(campaign, &tail, oracle::reached::to_i64(outcome.awards.len()), &loaded, at);
    assert_eq!(found, convert::progress(&oracle::progress::progress(c, purchases, t)), "at {t}: {wanted:?} {tail:#?}");
}

/// As a server sees it: what it has recorded lies at most so far ahead of its clock.
#[test]
fn progress_agrees_with_what_can_be_recorded_by_then() {
    each_case(150, &case(), |case| {
        for t in instants(&case) {
            let recorded: Vec<Purchase> = case.purchases.iter().filter(|p| p.at <= t + MAX_AHEAD).cloned().collect();
            check(&case.campaign, &recorded, t);
        }
    });
}

#[test]
fn progress_of_fixed_and_opened_windows_agrees_at_any_time() {
    each_case(150, &case(), |Case { campaign, purchases }| {
        if !matches!(campaign.window, Window::Rolling { .. }) {
            let case = Case { campaign, purchases };
            for t in instants(&case) {
                check(&case.campaign, &case.purchases, t);
            }
        }
    });
}
