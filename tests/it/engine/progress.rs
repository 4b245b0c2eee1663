use windfall::engine::evaluate::Range;
use windfall::engine::progress::{progress, reads};
use windfall::engine::rule::Eligible;

use super::store::whole;
use super::whole::eligible;
use super::{Owned, convert, each_case};
use crate::oracle;
use crate::oracle::generate::{case, instants};
use crate::oracle::{Campaign, Instant, MINUTE, Purchase};

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

#[test]
fn progress_agrees_at_any_time() {
    each_case(250, &case(), |case| {
        for t in instants(&case) {
            check(&case.campaign, &case.purchases, t);
        }
    });
}

/// What lies ahead is not recorded yet, but for what comes with clocks that are minutes ahead.
#[test]
fn progress_agrees_as_purchases_come_in() {
    each_case(250, &case(), |case| {
        for t in instants(&case) {
            let recorded: Vec<Purchase> = case.purchases.iter().filter(|p| p.at <= t + 5 * MINUTE).cloned().collect();
            check(&case.campaign, &recorded, t);
        }
    });
}
