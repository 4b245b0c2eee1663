//! Where a customer stands in a campaign at an instant. Progress bars and countdowns show this.

use super::cap::Sum;
use super::goal::Goal;
use super::lookback::{self, Lookback, Need, Step};
use super::rule::Campaign;
use super::state::State;
use super::time::Instant;
use super::window::{Interval, WindowRule};

/// Where a customer stands in a campaign at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub standing: Standing,
    pub unit: Unit,
    /// At most `target`. Money is in minor units.
    pub current: i64,
    /// At least 1. Money is in minor units.
    pub target: i64,
    /// The current window, clipped to the period.
    pub window: Option<Interval>,
    /// The next `recurring` window if there is no current one, clipped to the period. `None` for all other windows.
    pub next_window: Option<Interval>,
    /// The number of the customer's reached awards in the campaign.
    pub awards_earned: i64,
    /// How many more awards the customer can earn. `None` if there is no bound, and 0 for [`Standing::Exhausted`].
    pub awards_left: Option<i64>,
}

/// Whether the customer can earn an award now. The API calls this the state of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No window is open, and no streak is alive.
    NotStarted,
    /// The open window can give an award, or a streak is alive between two occurrences.
    InProgress,
    /// The open window can give no further award.
    Reached,
    /// The customer can earn no further award in the campaign.
    Exhausted,
}

/// What `current` and `target` of a [`Progress`] count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Purchases,
    /// Minor units of the campaign's currency.
    Money,
    /// Different articles or categories.
    Distinct,
    /// Units of articles.
    Units,
    /// Complete windows of a streak.
    Windows,
}

/// Returns what progress at `at` needs in addition to the tail, or `None` if the tail is enough. Purchases can be minutes
/// ahead of the clock. So the tail can be in a window after the one that contains `at`, and says nothing about the latter.
pub fn need(campaign: Campaign<'_>, tail: &State, at: Instant) -> Option<Need> {
    lookback::need(campaign, tail, at, ahead(campaign, tail, at))
}

/// Returns the window that contains `at` if the tail is already in a later one. For a streak between two occurrences, returns the
/// time between them.
fn ahead(campaign: Campaign<'_>, tail: &State, at: Instant) -> Option<Interval> {
    let now = campaign.fixed_window(at).or_else(|| between_occurrences(campaign, at))?;
    tail.window.filter(|window| window.opens > now.opens).map(|_| now)
}

/// Returns the time between two occurrences that contains `at`, for a streak over occurrences. Other goals count nothing then.
fn between_occurrences(campaign: Campaign<'_>, at: Instant) -> Option<Interval> {
    let rule = campaign.rule;
    match (&rule.window, &rule.goal) {
        (WindowRule::Recurring(recurring), Goal::Streak { .. }) => Some(recurring.gap_at(&rule.time_zone, at)),
        _ => None,
    }
}

/// Returns the progress at `at`, an instant inside the period. `lookback` is what [`need`] asked for, and must hold at `at`.
/// `earned` is the sum over the customer's `STANDING` and `DECLINED` awards in the campaign; its points matter only if the rule caps
/// points.
pub fn progress(
    campaign: Campaign<'_>,
    tail: &State,
    earned: Sum,
    lookback: Option<&Lookback>,
    at: Instant,
) -> Progress {
    let state = lookback.and_then(Lookback::state).unwrap_or(tail);
    let Campaign { rule, period, .. } = campaign;
    let unused = lookback.and_then(|lookback| lookback.step(at));
    let window = current_window(campaign, state, unused, at);
    let left = cap(campaign).map(|cap| (cap - earned.awards).max(0));
    let points_are_used_up = rule.max_points_per_customer.is_some_and(|cap| earned.points >= cap);
    let closed_for_good =
        matches!(rule.window, WindowRule::Timer { reopens: false, .. }) && window.is_none() && state.window.is_some();
    let only_window = rule.window.is_only_one();
    let full = window.is_some() && window_is_full(campaign, state, window, earned);
    let counted = match window {
        Some(window) => current(campaign, state, unused, window),
        None => run_between(campaign, state, at),
    };
    let exhausted = left == Some(0) || points_are_used_up || closed_for_good || (full && only_window);
    let standing = if exhausted {
        Standing::Exhausted
    } else if full {
        Standing::Reached
    } else if window.is_some() || counted > 0 {
        Standing::InProgress
    } else {
        Standing::NotStarted
    };
    let (unit, target) = target(&rule.goal);
    let reached_for_good = exhausted && matches!(rule.goal, Goal::Streak { repeat: false, .. });
    let current = if reached_for_good { target } else { counted.min(target) };
    let next_window = match (&rule.window, window) {
        (WindowRule::Recurring(recurring), None) => {
            recurring.next_window(&rule.time_zone, at).filter(|next| next.opens < period.interval().closes)
        }
        _ => None,
    };
    let clip = |window: Interval| window.clip(period.interval());
    Progress {
        standing,
        unit,
        current,
        target,
        window: window.map(clip),
        next_window: next_window.map(clip),
        awards_earned: earned.awards,
        awards_left: if exhausted { Some(0) } else { left },
    }
}

/// Returns the window in which purchases are counted at `at`, not clipped to the period.
fn current_window(campaign: Campaign<'_>, state: &State, unused: Option<Step>, at: Instant) -> Option<Interval> {
    match &campaign.rule.window {
        WindowRule::Campaign => Some(campaign.period.interval()),
        WindowRule::Calendar(_) | WindowRule::Recurring(_) => campaign.fixed_window(at),
        WindowRule::Session { .. } | WindowRule::Timer { .. } => state.window.filter(|window| at < window.closes),
        WindowRule::Rolling { duration } => {
            unused.map(|Step { opens, .. }| Interval { opens, closes: opens.plus(duration.micros()) })
        }
    }
}

/// Whether the counters of the state belong to this window.
fn is_in(campaign: Campaign<'_>, state: &State, window: Interval) -> bool {
    let whole = matches!(campaign.rule.window, WindowRule::Campaign);
    state.window.is_some_and(|counted| whole || counted.opens == window.opens)
}

/// Whether the window can give no further award: its goal does not repeat and is reached, or its caps are used up.
/// Windows of a streak are never full: a streak without `repeat` is reached for good or not at all.
fn window_is_full(campaign: Campaign<'_>, state: &State, window: Option<Interval>, earned: Sum) -> bool {
    if matches!(campaign.rule.goal, Goal::Streak { .. }) {
        return false;
    }
    let in_window = Sum { awards: state.kept, points: state.kept_points };
    let kept = if campaign.rule.window.is_only_one() { earned } else { in_window };
    let capped = campaign.rule.max_per_window.is_some_and(|cap| kept.awards >= i64::from(cap))
        || campaign.rule.max_points_per_window.is_some_and(|cap| kept.points >= cap);
    window.is_some_and(|window| is_in(campaign, state, window)) && (state.done || capped)
}

fn current(campaign: Campaign<'_>, state: &State, unused: Option<Step>, window: Interval) -> i64 {
    if let Some(Step { current, .. }) = unused {
        return current;
    }
    let in_window = is_in(campaign, state, window);
    match &campaign.rule.goal {
        Goal::Streak { .. } if in_window || is_alive(campaign, state, window) => state.run,
        Goal::Streak { .. } => 0,
        _ if !in_window => 0,
        _ if state.done => i64::MAX,
        Goal::EveryPurchase => 0,
        Goal::Purchases { .. } => state.count,
        Goal::Spend { .. } | Goal::Units { .. } => state.sum,
        Goal::Distinct { .. } => state.items.len() as i64,
    }
}

/// Whether a streak can continue in the window `next`, which has no purchases yet. A run lasts until the window after its last
/// complete window closes.
fn is_alive(campaign: Campaign<'_>, state: &State, next: Interval) -> bool {
    let Goal::Streak { purchases_per_window, .. } = campaign.rule.goal else { return false };
    let complete = state.count >= i64::from(purchases_per_window);
    complete && state.window.is_some_and(|before| campaign.follows(before, next))
}

/// Returns the run of a streak that is alive between two occurrences.
fn run_between(campaign: Campaign<'_>, state: &State, at: Instant) -> i64 {
    let WindowRule::Recurring(recurring) = &campaign.rule.window else { return 0 };
    let next = recurring.next_window(&campaign.rule.time_zone, at);
    if next.is_some_and(|next| is_alive(campaign, state, next)) { state.run } else { 0 }
}

fn target(goal: &Goal) -> (Unit, i64) {
    match goal {
        Goal::EveryPurchase => (Unit::Purchases, 1),
        Goal::Purchases { at_least, .. } => (Unit::Purchases, i64::from(*at_least)),
        Goal::Spend { at_least, .. } => (Unit::Money, *at_least),
        Goal::Units { at_least, .. } => (Unit::Units, i64::from(*at_least)),
        Goal::Distinct { at_least, .. } => (Unit::Distinct, i64::from(*at_least)),
        Goal::Streak { length, .. } => (Unit::Windows, i64::from(*length)),
    }
}

/// Returns `maxPerCustomer`, or 1 if the goal can be reached only once.
fn cap(campaign: Campaign<'_>) -> Option<i64> {
    let rule = campaign.rule;
    let only_window = rule.window.is_only_one();
    let streak = matches!(rule.goal, Goal::Streak { .. });
    let once = (only_window || streak) && !rule.goal.repeats();
    if once { Some(1) } else { rule.max_per_customer.map(i64::from) }
}
