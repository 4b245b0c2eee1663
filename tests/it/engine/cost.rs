//! What a change costs, in purchases loaded: it follows from what the change can affect, never from the length of the
//! history.

use windfall::engine::evaluate::{CHECKPOINT_EVERY, Change};
use windfall::engine::progress::need;
use windfall::engine::purchase::Key;
use windfall::engine::rule::Eligible;
use windfall::engine::time::Instant;

use super::Owned;
use super::progress::{Stored, Way};
use super::store::Store;
use crate::oracle::{AwardRule, Campaign, DAY, Filter, Goal, HOUR, MINUTE, Unit, Window};

const STEP: usize = CHECKPOINT_EVERY as usize;
const START: i64 = 19_000 * DAY;
const THREE: Goal = Goal::Purchases { n: 3, repeat: true };

fn owned(window: Window, goal: Goal) -> Owned {
    Owned::new(&Campaign {
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
        hold_for: None,
        expires_after: None,
    })
}

fn days() -> Window {
    Window::Calendar { unit: Unit::Day, every: 1, week_starts_on: 0 }
}

/// Bought so long after the start; one of two articles.
fn bought(after: i64) -> Eligible {
    let key = Key { at: Instant(START + after), external_id: "p".to_owned() };
    Eligible { key, amount: 100, items: vec![format!("article {}", after / HOUR % 2)] }
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
    std::mem::take(&mut store.loads).iter().sum()
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
    // All that follow, and those since the last checkpoint before.
    assert!(store.loads.len() <= 7, "{:?}", store.loads);
    assert!(loaded(&mut store) <= 450 + STEP);
    store.assert_as_folded_whole();
    let diff = store.commit_unlimited(comes(bought(451 * HOUR + MINUTE)));
    assert_eq!((diff.reversed.len(), diff.awarded.len()), (0, 0));
    let diff = store.commit_unlimited(comes(bought(452 * HOUR + MINUTE)));
    assert_eq!((diff.reversed.len(), diff.awarded.len()), (0, 1));
    store.assert_as_folded_whole();
}

/// What one late purchase, or its return, loads, wherever it lies.
#[derive(Debug, Default)]
struct Late {
    most: usize,
    sum: usize,
    commits: usize,
    /// In how many goes, at most.
    goes: usize,
}

impl Late {
    fn note(&mut self, store: &mut Store<'_>) {
        self.goes = self.goes.max(store.loads.len());
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
    // From the checkpoint before it to the first one after its day; at the most twice that, since the chunks double.
    let needed = 24 + 2 * STEP;
    let in_days = [THREE, Goal::EveryPurchase, Goal::Streak { length: 3, per_window: 30, repeat: true }];
    for goal in in_days {
        let late = late(days(), goal.clone());
        assert!(late.most <= 2 * needed && late.mean() <= needed && late.goes <= 4, "{goal:?}: {late:?}");
    }
    // Where it adds nothing to what was reached, to the next checkpoint.
    let distinct = |n| Goal::Distinct { of_category: false, n };
    for goal in [Goal::EveryPurchase, distinct(1), distinct(3), Goal::Purchases { n: 1, repeat: false }] {
        let late = late(Window::Campaign, goal.clone());
        assert!(late.most <= 2 * STEP + 1 && late.goes <= 2, "{goal:?}: {late:?}");
    }
    // As far as it can count beside others, and what can count beside the first that is folded again.
    let rolling = late(Window::Rolling { duration: 100 * HOUR }, Goal::Purchases { n: 102, repeat: false });
    assert!(rolling.most <= 101 + 2 * (101 + 2 * STEP) && rolling.goes <= 6, "{rolling:?}");
    let rolling = late(Window::Rolling { duration: 3000 * DAY }, Goal::Purchases { n: 5000, repeat: false });
    assert!(rolling.most <= 901 && rolling.goes <= 8, "{rolling:?}");
    // To the close of a timer that has closed for good, however long ago.
    let late = late(Window::Timer { duration: 30 * HOUR, reopens: false }, THREE);
    assert!(late.most <= 33 && late.goes <= 3, "{late:?}");
}

#[test]
fn appending_to_a_rolling_window_loads_each_purchase_about_once() {
    let distinct = |n| Goal::Distinct { of_category: false, n };
    let purchases = |n| Goal::Purchases { n, repeat: false };
    let spend = |minor| Goal::Spend { minor, repeat: false };
    let cases = [
        // Nothing is ever too old, nothing ever used.
        (3000 * DAY, purchases(20_000)),
        (3000 * DAY, spend(2_000_000)),
        // Always one short of the goal, with much that is unused.
        (3000 * DAY, distinct(3)),
        (100 * HOUR, purchases(101)),
        (100 * HOUR, spend(10_001)),
        (100 * HOUR, distinct(3)),
        // Reached again and again.
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

/// What a look at the progress loads, and the bytes of what it keeps.
fn look(store: &Store<'_>, at: Instant) -> (usize, usize) {
    let stored = Stored {
        campaign: store.campaign,
        eligible: store.eligible.clone(),
        tail: store.tail.state.clone(),
        checkpoints: store.checkpoints.clone(),
        awards: 0,
    };
    let need = need(stored.campaign, &stored.tail, at).expect("more than the tail");
    let (found, loaded) = stored.look(need, at, Way { page: 32, max_steps: 16, margin: MINUTE }, None);
    (loaded, serde_json::to_string(&found).expect("plain data").len())
}

#[test]
fn progress_costs_the_same_however_much_a_window_holds() {
    let distinct = Goal::Distinct { of_category: false, n: 3 };
    let spend = Goal::Spend { minor: 1_000_000_000, repeat: false };
    let purchases = Goal::Purchases { n: 1_000_000, repeat: false };
    let rolling = |hours: i64| Window::Rolling { duration: hours * HOUR };
    let years = Window::Calendar { unit: Unit::Year, every: 1, week_starts_on: 0 };
    // A window that loses nothing, and one that is as long as the history and loses a purchase an hour.
    let cases: [(fn(i64) -> i64, Goal); 4] = [
        (|_| 80_000, purchases.clone()),
        (|_| 80_000, spend),
        (|_| 80_000, distinct),
        (|hours| hours, purchases.clone()),
    ];
    for (hours, goal) in cases {
        // When the last purchase was made, a second before, and ten hours later.
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
    // The clock is behind: it shows the year before the last purchase's.
    for purchases in [200, 1_600] {
        let owned = owned(years.clone(), THREE);
        let new_year = 19_358 * DAY;
        let mut store = hourly(&owned, purchases);
        store.commit_unlimited(comes(bought(new_year - START + HOUR)));
        let (loaded, bytes) = look(&store, Instant(new_year - 2 * HOUR));
        assert!(loaded < STEP && bytes < 400, "{loaded} {bytes}");
    }
}
