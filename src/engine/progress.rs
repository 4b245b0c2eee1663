//! Where a customer stands in a campaign at an instant: what a progress bar and a countdown show.

use super::goal::Goal;
use super::lookback::{self, Lookback, Need, Step};
use super::rule::Campaign;
use super::state::State;
use super::time::Instant;
use super::window::{Interval, WindowRule};

/// Where a customer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// In one word.
    pub standing: Standing,
    /// What is counted.
    pub unit: Unit,
    /// At most `target`; money in minor units.
    pub current: i64,
    /// ≥ 1; money in minor units.
    pub target: i64,
    /// The current window, clipped to the period.
    pub window: Option<Interval>,
    /// The next one, where there is none now and time alone fixes it; clipped to the period.
    pub next_window: Option<Interval>,
    /// The customer's reached awards in the campaign.
    pub awards_earned: i64,
    /// How many more the customer can earn; none: no bound. 0 if it is [`Standing::Exhausted`].
    pub awards_left: Option<i64>,
}

/// A [`Progress`] in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No window now.
    NotStarted,
    /// In a window that can give an award.
    InProgress,
    /// In a window that can give no further award.
    Reached,
    /// This customer can earn no further award in the campaign.
    Exhausted,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Purchases.
    Purchases,
    /// Minor units of the campaign's currency.
    Money,
    /// Different articles or categories.
    Distinct,
    /// Completed windows of a streak.
    Windows,
}

/// What progress at `at` takes beside the tail; none: nothing. A tail that lies in a later window than `at` (purchases may
/// lie minutes ahead) says nothing of this one.
pub fn need(campaign: Campaign<'_>, tail: &State, at: Instant) -> Option<Need> {
    lookback::need(campaign, tail, at, ahead(campaign, tail, at))
}

/// The window that contains `at`, where the tail is in a later one already.
fn ahead(campaign: Campaign<'_>, tail: &State, at: Instant) -> Option<Interval> {
    let now = fixed_window(campaign, at)?;
    tail.window.filter(|window| window.opens > now.opens).map(|_| now)
}

/// The window that time alone fixes, if the rule has such and one contains `at`.
fn fixed_window(campaign: Campaign<'_>, at: Instant) -> Option<Interval> {
    let Campaign { rule, period } = campaign;
    match &rule.window {
        WindowRule::Calendar(calendar) => Some(calendar.window_at(&rule.time_zone, period.starts_at, at)),
        WindowRule::Recurring(recurring) => recurring.window_at(&rule.time_zone, at),
        _ => None,
    }
}

/// The progress at `at`, inside the period. `lookback`: what [`need`] asked for, which holds at `at`. `awards_earned`: the
/// customer's STANDING and DECLINED awards in the campaign.
pub fn progress(
    campaign: Campaign<'_>,
    tail: &State,
    awards_earned: i64,
    lookback: Option<&Lookback>,
    at: Instant,
) -> Progress {
    let state = lookback.and_then(Lookback::state).unwrap_or(tail);
    let Campaign { rule, period } = campaign;
    let unused = lookback.and_then(|lookback| lookback.step(at));
    let window = current_window(campaign, state, unused, at);
    let left = cap(campaign).map(|cap| (cap - awards_earned).max(0));
    let closed_for_good =
        matches!(rule.window, WindowRule::Timer { reopens: false, .. }) && window.is_none() && state.window.is_some();
    let only_window = rule.window.is_only_one();
    let full = window.is_some() && window_is_full(campaign, state, window, awards_earned);
    let exhausted = left == Some(0) || closed_for_good || (full && only_window);
    let standing = if exhausted {
        Standing::Exhausted
    } else if window.is_none() {
        Standing::NotStarted
    } else if full {
        Standing::Reached
    } else {
        Standing::InProgress
    };
    let (unit, target) = target(&rule.goal);
    let reached_for_good = exhausted && matches!(rule.goal, Goal::Streak { repeat: false, .. });
    let current = match window {
        _ if reached_for_good => target,
        Some(window) => current(campaign, state, unused, window).min(target),
        None => 0,
    };
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
        awards_earned,
        awards_left: if exhausted { Some(0) } else { left },
    }
}

/// The window that is counted now, unclipped.
fn current_window(campaign: Campaign<'_>, state: &State, unused: Option<Step>, at: Instant) -> Option<Interval> {
    match &campaign.rule.window {
        WindowRule::Campaign => Some(campaign.period.interval()),
        WindowRule::Calendar(_) | WindowRule::Recurring(_) => fixed_window(campaign, at),
        WindowRule::Session { .. } | WindowRule::Timer { .. } => state.window.filter(|window| at < window.closes),
        WindowRule::Rolling { duration } => {
            unused.map(|Step { opens, .. }| Interval { opens, closes: opens.plus(duration.micros()) })
        }
    }
}

/// Whether the state's counts are of this window.
fn is_in(campaign: Campaign<'_>, state: &State, window: Interval) -> bool {
    let whole = matches!(campaign.rule.window, WindowRule::Campaign);
    state.window.is_some_and(|counted| whole || counted.opens == window.opens)
}

/// No further award can come of the window: its goal does not repeat and is reached, or its cap is. A streak has no
/// window that could be full: one that does not repeat is reached for good, or not at all.
fn window_is_full(campaign: Campaign<'_>, state: &State, window: Option<Interval>, awards_earned: i64) -> bool {
    if matches!(campaign.rule.goal, Goal::Streak { .. }) {
        return false;
    }
    let kept = if campaign.rule.window.is_only_one() { awards_earned } else { state.kept };
    let capped = campaign.rule.max_per_window.is_some_and(|cap| kept >= i64::from(cap));
    window.is_some_and(|window| is_in(campaign, state, window)) && (state.done || capped)
}

fn current(campaign: Campaign<'_>, state: &State, unused: Option<Step>, window: Interval) -> i64 {
    if let Some(Step { current, .. }) = unused {
        return current;
    }
    let in_window = is_in(campaign, state, window);
    match &campaign.rule.goal {
        Goal::Streak { purchases_per_window, .. } => {
            // A run lives until the window after its last complete one closes.
            let complete = state.count >= i64::from(*purchases_per_window);
            let alive = state.window.is_some_and(|before| complete && before.closes == window.opens);
            if in_window || alive { state.run } else { 0 }
        }
        _ if !in_window => 0,
        _ if state.done => i64::MAX,
        Goal::EveryPurchase => 0,
        Goal::Purchases { .. } => state.count,
        Goal::Spend { .. } => state.sum,
        Goal::Distinct { .. } => state.items.len() as i64,
    }
}

fn target(goal: &Goal) -> (Unit, i64) {
    match goal {
        Goal::EveryPurchase => (Unit::Purchases, 1),
        Goal::Purchases { at_least, .. } => (Unit::Purchases, i64::from(*at_least)),
        Goal::Spend { at_least, .. } => (Unit::Money, *at_least),
        Goal::Distinct { at_least, .. } => (Unit::Distinct, i64::from(*at_least)),
        Goal::Streak { length, .. } => (Unit::Windows, i64::from(*length)),
    }
}

/// `maxPerCustomer`, or 1 where the goal can be reached once in all.
fn cap(campaign: Campaign<'_>) -> Option<i64> {
    let rule = campaign.rule;
    let only_window = rule.window.is_only_one();
    let streak = matches!(rule.goal, Goal::Streak { .. });
    let once = (only_window || streak) && !rule.goal.repeats();
    if once { Some(1) } else { rule.max_per_customer.map(i64::from) }
}
