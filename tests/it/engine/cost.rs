//! Counts what a change loads. The cost follows from what the change can affect, never from the length of the history.

use std::collections::BTreeMap;

use windfall::engine::cap::Sum;
use windfall::engine::diff::RecordedAward;
use windfall::engine::evaluate::{CHECKPOINT_EVERY, Change, MAX_STRIDE};
use windfall::engine::progress::need;
use windfall::engine::purchase::Key;
use windfall::engine::rule::Eligible;
use windfall::engine::time::Instant;

use super::Owned;
use super::progress::{Stored, Way};
use super::store::{Loads, Store};
use crate::oracle::{AwardRule, Campaign, DAY, Filter, Goal, HOUR, MINUTE, Unit, Window};

const STEP: usize = CHECKPOINT_EVERY as usize;
const START: i64 = 19_000 * DAY;
const THREE: Goal = Goal::Purchases { n: 3, repeat: true };

fn owned(window: Window, goal: Goal) -> Owned {
    Owned::new(&campaign(window, goal))
}

fn campaign(window: Window, goal: Goal) -> Campaign {
    Campaign {
        starts_at: START,
        ends_at: None,
        pauses: Vec::new(),
        zone: "Europe/Berlin".to_owned(),
        currency: "EUR".to_owned(),
        currency_exponent: 2,
        filter: Filter::default(),
        window,
        goal,
        award: AwardRule::Points(10),
        max_per_customer: None,
        max_per_window: None,
        max_points_per_customer: None,
        max_points_per_window: None,
        hold_for: None,
        expires_after: None,
    }
}

fn days() -> Window {
    Window::Calendar { unit: Unit::Day, every: 1, week_starts_on: 0, day_starts_at: (0, 0) }
}

/// A purchase `after` microseconds after the start. It contains one of two articles, which alternate by the hour.
fn bought(after: i64) -> Eligible {
    let key = Key { at: Instant(START + after), external_id: format!("p{after}") };
    Eligible { key, amount: 100, points: 10, adds: 0, items: vec![format!("article {}", after / HOUR % 2)] }
}

fn comes(purchase: Eligible) -> Vec<Change> {
    vec![Change { before: None, after: Some(purchase) }]
}

fn goes(purchase: Eligible) -> Vec<Change> {
    vec![Change { before: Some(purchase), after: None }]
}

/// One purchase an hour, each in its own commit.
fn hourly(owned: &Owned, purchases: i64) -> Store<'_> {
    let mut store = Store::new(owned.campaign(), CHECKPOINT_EVERY);
    for hour in 0..purchases {
        store.commit_unlimited(comes(bought(hour * HOUR)));
    }
    store
}

fn loaded(store: &mut Store<'_>) -> usize {
    std::mem::take(&mut store.loads).purchases.iter().sum()
}

#[test]
fn appending_loads_nothing() {
    let gap = 2 * HOUR;
    let windows = [
        Window::Campaign,
        days(),
        Window::Session { gap },
        Window::Timer { duration: gap, reopens: true },
        Window::Timer { duration: gap, reopens: false },
    ];
    for window in windows {
        let owned = owned(window, THREE);
        let mut store = hourly(&owned, 200);
        assert_eq!(loaded(&mut store), 0);
        store.assert_as_folded_whole();
    }
}

#[test]
fn a_late_purchase_in_the_middle_moves_the_awards_after_it_and_reverses_none() {
    let owned = owned(Window::Campaign, THREE);
    let mut store = hourly(&owned, 900);
    assert_eq!(store.recorded.len(), 300);
    let diff = store.commit_unlimited(comes(bought(450 * HOUR + MINUTE)));
    assert_eq!((diff.reversed.len(), diff.awarded.len()), (0, 0));
    assert_eq!(diff.changed.len(), 150);
    // Loads all purchases after the change, and those since the last checkpoint before it.
    assert!(store.loads.purchases.len() <= 7, "{:?}", store.loads);
    assert!(loaded(&mut store) <= 450 + STEP);
    store.assert_as_folded_whole();
    let diff = store.commit_unlimited(comes(bought(451 * HOUR + MINUTE)));
    assert_eq!((diff.reversed.len(), diff.awarded.len()), (0, 0));
    let diff = store.commit_unlimited(comes(bought(452 * HOUR + MINUTE)));
    assert_eq!((diff.reversed.len(), diff.awarded.len()), (0, 1));
    store.assert_as_folded_whole();
}

/// The loads of commits that add one late purchase, or remove it again, at any place in the history.
#[derive(Debug, Default)]
struct Late {
    most: usize,
    sum: usize,
    commits: usize,
    /// The most loads that one commit needed.
    goes: usize,
}

impl Late {
    fn note(&mut self, store: &mut Store<'_>) {
        self.goes = self.goes.max(store.loads.purchases.len());
        let loads = loaded(store);
        self.most = self.most.max(loads);
        self.sum += loads;
        self.commits += 1;
    }

    fn mean(&self) -> usize {
        self.sum / self.commits
    }
}

fn late(window: Window, goal: Goal) -> Late {
    let owned = owned(window, goal);
    let mut store = hourly(&owned, 900);
    loaded(&mut store);
    let mut late = Late::default();
    for hour in (0..900).step_by(7) {
        let purchase = bought(hour * HOUR + MINUTE);
        store.commit_unlimited(comes(purchase.clone()));
        late.note(&mut store);
        store.commit_unlimited(goes(purchase));
        late.note(&mut store);
    }
    store.assert_as_folded_whole();
    late
}

#[test]
fn a_late_purchase_costs_no_more_than_what_it_can_affect() {
    // A change loads from the checkpoint before it to the first one after its day. It can load twice that, because the
    // chunks double.
    let needed = 24 + 2 * STEP;
    let in_days = [THREE, Goal::EveryPurchase, Goal::Streak { length: 3, per_window: 30, repeat: true }];
    for goal in in_days {
        let late = late(days(), goal.clone());
        assert!(late.most <= 2 * needed && late.mean() <= needed && late.goes <= 4, "{goal:?}: {late:?}");
    }
    // Where the purchase adds nothing to what was reached, the fold ends at the next checkpoint.
    let distinct = |n| Goal::Distinct { of_category: false, n };
    for goal in [Goal::EveryPurchase, distinct(1), distinct(3), Goal::Purchases { n: 1, repeat: false }] {
        let late = late(Window::Campaign, goal.clone());
        assert!(late.most <= 2 * STEP + 1 && late.goes <= 2, "{goal:?}: {late:?}");
    }
    // The fold covers the purchases that can count together with the changed one, and those that can count together
    // with the first that is folded again.
    let rolling = late(Window::Rolling { duration: 100 * HOUR }, Goal::Purchases { n: 102, repeat: false });
    assert!(rolling.most <= 101 + 2 * (101 + 2 * STEP) && rolling.goes <= 10, "{rolling:?}");
    let rolling = late(Window::Rolling { duration: 3000 * DAY }, Goal::Purchases { n: 5000, repeat: false });
    assert!(rolling.most <= 901 && rolling.goes <= 16, "{rolling:?}");
    // The fold ends at the close of a timer that does not reopen, however long ago that was.
    let late = late(Window::Timer { duration: 30 * HOUR, reopens: false }, THREE);
    assert!(late.most <= 33 && late.goes <= 3, "{late:?}");
}

#[test]
fn appending_to_a_rolling_window_loads_each_purchase_about_once() {
    let distinct = |n| Goal::Distinct { of_category: false, n };
    let purchases = |n| Goal::Purchases { n, repeat: false };
    let spend = |minor| Goal::Spend { minor, repeat: false };
    let cases = [
        // No purchase ever becomes too old or is used up.
        (3000 * DAY, purchases(20_000)),
        (3000 * DAY, spend(2_000_000)),
        // The window is always one short of the goal and holds many unused purchases.
        (3000 * DAY, distinct(3)),
        (100 * HOUR, purchases(101)),
        (100 * HOUR, spend(10_001)),
        (100 * HOUR, distinct(3)),
        // The goal is reached again and again.
        (100 * HOUR, purchases(50)),
        (3000 * DAY, purchases(3000)),
        (100 * HOUR, spend(10_000)),
        (2 * HOUR, distinct(2)),
    ];
    for (duration, goal) in cases {
        let appends = 10_000;
        let owned = owned(Window::Rolling { duration }, goal.clone());
        let mut store = hourly(&owned, appends);
        let loads = loaded(&mut store);
        assert!(loads <= 10_000, "{goal:?} in {duration}: {loads}");
        store.assert_as_folded_whole();
    }
}

/// The rows read by a commit that adds a late purchase, and by one that removes it: purchases, checkpoints and awards.
fn late_rows(campaign: &Campaign, purchases: i64, at: i64) -> [usize; 2] {
    let owned = Owned::new(campaign);
    let mut store = hourly(&owned, purchases);
    let late = bought(at * HOUR + MINUTE);
    let changes = [comes(late.clone()), goes(late)];
    let rows = changes.map(|change| {
        store.loads = Loads::default();
        store.at_most = 64;
        store.commit_unlimited(change);
        assert!(store.loads.goes() <= 12, "{:?}", store.loads);
        store.loads.rows()
    });
    store.assert_as_folded_whole();
    rows
}

/// The number of purchases of a short history, which is compared with one of [`LONG`] purchases.
const SHORT: i64 = 512;
const LONG: i64 = 8 * SHORT;

#[test]
fn a_local_change_reads_no_more_of_a_long_history() {
    let every = |max_per_customer, max_per_window| Campaign {
        max_per_customer,
        max_per_window,
        ..campaign(Window::Campaign, Goal::EveryPurchase)
    };
    let timer = Window::Timer { duration: 3000 * DAY, reopens: false };
    let cases = [
        campaign(days(), THREE),
        every(None, None),
        // These caps are never reached.
        every(Some(1_000_000), None),
        every(None, Some(1_000_000)),
        Campaign { max_points_per_customer: Some(1_000_000), ..every(None, None) },
        Campaign { max_points_per_window: Some(1_000_000), ..campaign(days(), Goal::EveryPurchase) },
        Campaign { max_per_window: Some(1_000_000), ..campaign(timer, Goal::EveryPurchase) },
        Campaign { max_per_customer: Some(1_000_000), ..campaign(days(), THREE) },
        campaign(Window::Rolling { duration: 20 * HOUR }, Goal::Purchases { n: 50, repeat: false }),
    ];
    for case in cases {
        let [short, long] = [SHORT, LONG].map(|purchases| late_rows(&case, purchases, purchases / 2));
        for (short, long) in short.into_iter().zip(long) {
            assert!(long * 10 <= short * 13, "{short} and {long} rows: {case:#?}");
            assert!(long <= 150, "{long} rows: {case:#?}");
        }
    }
}

/// The last award that a cap in points trimmed gets what becomes free, even if the number of awards is at its cap too.
#[test]
fn a_trimmed_award_grows_though_no_place_is_left() {
    let owned = Owned::new(&Campaign {
        max_per_customer: Some(3),
        max_points_per_customer: Some(25),
        ..campaign(Window::Campaign, Goal::EveryPurchase)
    });
    let mut store = Store::new(owned.campaign(), 1);
    for after in 0..6 {
        store.commit_unlimited(comes(bought(after * HOUR)));
    }
    let kept = |store: &Store<'_>| {
        let award = |award: &RecordedAward| ((award.reached.by.at.0 - START) / HOUR, award.reached.points);
        store.recorded.iter().map(award).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(kept(&store), BTreeMap::from([(0, 10), (1, 10), (2, 5)]));
    // The change is folded up to the second purchase. The third one follows.
    let smaller = Eligible { points: 4, ..bought(0) };
    store.commit_unlimited(vec![Change { before: Some(bought(0)), after: Some(smaller.clone()) }]);
    assert_eq!(kept(&store), BTreeMap::from([(0, 4), (1, 10), (2, 10)]));
    store.assert_as_folded_whole();
    store.commit_unlimited(goes(smaller));
    assert_eq!(kept(&store), BTreeMap::from([(1, 10), (2, 10), (3, 5)]));
    store.assert_as_folded_whole();
}

#[test]
fn a_cap_that_binds_costs_the_awards_that_it_lets_in_and_keeps_out() {
    let capped = |purchases: i64| Campaign {
        max_per_customer: Some(purchases / 2),
        ..campaign(Window::Campaign, Goal::EveryPurchase)
    };
    for place in [4, 2, 1] {
        // The change comes long before the last award that the cap leaves, shortly before that award, or after it.
        let rows = [SHORT, LONG].map(|purchases| {
            let at = purchases / place - 10;
            late_rows(&capped(purchases), purchases, at)
        });
        for (short, long) in rows[0].into_iter().zip(rows[1]) {
            assert!(long * 10 <= short * 13 && long <= 200, "{rows:?} rows, {place}");
        }
    }
}

#[test]
fn a_long_fold_asks_for_a_bounded_stretch_at_once() {
    let owned = owned(Window::Campaign, THREE);
    let mut store = hourly(&owned, LONG);
    store.loads = Loads::default();
    store.commit_unlimited(comes(bought(MINUTE)));
    let most = |loads: &[usize]| loads.iter().copied().max();
    assert!(most(&store.loads.purchases) <= Some(STEP * MAX_STRIDE + 1), "{:?}", store.loads);
    assert!(most(&store.loads.checkpoints) <= Some(MAX_STRIDE), "{:?}", store.loads);
    let chunks = store.checkpoints.len() / MAX_STRIDE;
    assert!(store.loads.goes() <= 2 * (8 + chunks), "{:?}", store.loads);
    store.assert_as_folded_whole();
}

#[test]
fn a_rolling_window_is_never_held_whole() {
    let at_most = 50;
    let owned = owned(Window::Rolling { duration: 1000 * HOUR }, Goal::Purchases { n: 700, repeat: false });
    let mut store = hourly(&owned, 2_000);
    store.at_most = at_most;
    store.loads = Loads::default();
    // The whole window becomes too old at the same time.
    store.commit_unlimited(comes(bought(4_000 * HOUR)));
    assert!(store.loads.purchases.iter().all(|loaded| *loaded <= at_most), "{:?}", store.loads);
    store.commit_unlimited(comes(bought(500 * HOUR + MINUTE)));
    store.assert_as_folded_whole();
}

#[test]
fn checkpoints_with_many_items_take_no_more_room_than_the_history() {
    for purchases in [SHORT, LONG] {
        let owned = owned(Window::Campaign, Goal::Distinct { of_category: false, n: 1_000 });
        let mut store = Store::new(owned.campaign(), CHECKPOINT_EVERY);
        for hour in 0..purchases {
            let items = vec![format!("an article with a long name {:04}", hour % 900)];
            store.commit_unlimited(comes(Eligible { items, ..bought(hour * HOUR) }));
        }
        store.assert_as_folded_whole();
        let stored = |state| serde_json::to_string(state).expect("a state is plain data").len();
        let bytes: usize = store.checkpoints.iter().map(stored).sum();
        // This is about the size of a purchase without lines.
        assert!(bytes <= 280 * store.eligible.len(), "{bytes} bytes for {purchases} purchases");
        // A late purchase is still cheap.
        store.loads = Loads::default();
        let items = vec!["an article with a long name 0007".to_owned()];
        store.commit_unlimited(comes(Eligible { items, ..bought(purchases / 2 * HOUR + MINUTE) }));
        assert!(store.loads.rows() <= 1_000, "{:?}", store.loads);
        store.assert_as_folded_whole();
    }
}

/// One commit removes a purchase and adds another. As many purchases count as before, but not for as long.
#[test]
fn changes_that_balance_each_other_in_a_rolling_window_are_folded_to_the_end_of_both() {
    let owned = owned(Window::Rolling { duration: 100 * HOUR }, Goal::Purchases { n: 90, repeat: false });
    for apart in [5, 40, 80] {
        let mut store = Store::new(owned.campaign(), 1);
        for hour in (0..400).filter(|hour| hour % 5 != 0 || *hour == 100) {
            store.commit_unlimited(comes(bought(hour * HOUR)));
        }
        let goes = Change { before: Some(bought(100 * HOUR)), after: None };
        let comes = Change { before: None, after: Some(bought((100 + apart) * HOUR)) };
        store.commit_unlimited(vec![goes, comes]);
        store.assert_as_folded_whole();
    }
}

/// The number of purchases that a look at the progress loads, and the bytes of its result.
fn look(store: &Store<'_>, at: Instant) -> (usize, usize) {
    let stored = Stored {
        campaign: store.campaign,
        eligible: store.eligible.clone(),
        tail: store.tail.state.clone(),
        checkpoints: store.checkpoints.clone(),
        awards: Sum::default(),
    };
    let need = need(stored.campaign, &stored.tail, at).expect("the tail alone is not enough");
    let (found, loaded) = stored.look(need, at, Way { page: 32, max_steps: 16, margin: MINUTE }, None);
    (loaded, serde_json::to_string(&found).expect("plain data").len())
}

#[test]
fn progress_costs_the_same_however_much_a_window_holds() {
    let distinct = Goal::Distinct { of_category: false, n: 3 };
    let spend = Goal::Spend { minor: 1_000_000_000, repeat: false };
    let purchases = Goal::Purchases { n: 1_000_000, repeat: false };
    let rolling = |hours: i64| Window::Rolling { duration: hours * HOUR };
    let years = Window::Calendar { unit: Unit::Year, every: 1, week_starts_on: 0, day_starts_at: (0, 0) };
    // The first window loses no purchase. The last is as long as the history and loses one purchase an hour.
    type Hours = fn(i64) -> i64;
    let cases: [(Hours, Goal); 4] = [
        (|_| 80_000, purchases.clone()),
        (|_| 80_000, spend),
        (|_| 80_000, distinct),
        (|hours| hours, purchases.clone()),
    ];
    for (hours, goal) in cases {
        // Looks at the time of the last purchase, a second earlier, and ten hours later.
        for after_last in [0, -1_000_000, 10 * HOUR] {
            let cost = |purchases: i64| {
                let owned = owned(rolling(hours(purchases)), goal.clone());
                look(&hourly(&owned, purchases), Instant(START + (purchases - 1) * HOUR + after_last))
            };
            let (few, many) = (cost(200), cost(1_600));
            assert!(many.0 * 10 <= few.0 * 13 && many.0 <= 80, "{goal:?}: {few:?} {many:?}");
            assert!(many.1 * 10 <= few.1 * 13, "{goal:?}: {few:?} {many:?}");
        }
    }
    // The clock is behind and shows the year before that of the last purchase.
    for purchases in [200, 1_600] {
        let owned = owned(years.clone(), THREE);
        let new_year = 19_358 * DAY;
        let mut store = hourly(&owned, purchases);
        store.commit_unlimited(comes(bought(new_year - START + HOUR)));
        let (loaded, bytes) = look(&store, Instant(new_year - 2 * HOUR));
        assert!(loaded < STEP && bytes < 400, "{loaded} {bytes}");
    }
}
