//! The section "Progress" of `docs/semantics.md`. The campaign must be running, and `t` must lie in its period.

use super::reached::{
    self, AHEAD, Counted, Group, all_units, bounded_windows, different, eligible, groups, reached, rolling_completions,
    sum, to_i64, uncapped,
};
use super::{Campaign, Goal, Instant, Purchase, Window};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) state: State,
    pub(crate) unit: CountedUnit,
    /// In minor units if `unit` is MONEY.
    pub(crate) current: i128,
    pub(crate) target: i128,
    /// The current window, clipped to the period.
    pub(crate) window: Option<Bounds>,
    /// The next window, clipped to the period. `None` if a window contains the instant.
    pub(crate) next_window: Option<Bounds>,
    pub(crate) awards_earned: i64,
    pub(crate) awards_left: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    NotStarted,
    InProgress,
    Reached,
    Exhausted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedUnit {
    Purchases,
    Money,
    Distinct,
    Units,
    Windows,
}

/// `opensAt` and `closesAt` of a window.
pub(crate) type Bounds = (Instant, Option<Instant>);

pub(crate) fn progress(c: &Campaign, purchases: &[Purchase], t: Instant) -> Progress {
    let eligible = eligible(c, purchases);
    let now = counted_now(c, &eligible, t);
    let (unit, target) = unit_and_target(&c.goal);

    // "`awardsEarned` is the number of the customer's reached awards in the campaign"
    let reached = reached(c, purchases);
    let awards_earned = to_i64(reached.len());
    let left = bound_of_awards(c).map(|bound| bound - awards_earned);
    let points_are_used_up =
        c.max_points_per_customer.is_some_and(|max| reached.iter().map(|award| award.points).sum::<i64>() >= max);

    // "`REACHED`: the open window can give no further award: its goal does not repeat and is reached, or it has
    // `maxPerWindow` awards". "`everyPurchase` is `REACHED` only because of a cap." "A streak is never `REACHED`."
    // The same for `maxPointsPerWindow`.
    let uncapped = uncapped(c, purchases);
    let of_window = || uncapped.iter().filter(|a| now.index == Some(a.window));
    let (in_window, points_in_window) = (to_i64(of_window().count()), of_window().map(|a| a.award.points).sum::<i64>());
    let without_repeat = !matches!(c.goal, Goal::EveryPurchase | Goal::Streak { .. }) && !c.goal.repeats();
    let window_is_full = without_repeat && in_window >= 1
        || c.max_per_window.is_some_and(|max| in_window >= max)
        || c.max_points_per_window.is_some_and(|max| points_in_window >= max);

    // "`EXHAUSTED`: the customer can earn no further award in the campaign; this takes precedence over `REACHED`"
    let only_window = matches!(c.window, Window::Campaign | Window::Timer { reopens: false, .. });
    let exhausted = left == Some(0) || points_are_used_up || only_window && window_is_full || now.timer_is_over;
    // "`awardsLeft` is … 0 if the state is `EXHAUSTED`."
    let awards_left = if exhausted { Some(0) } else { left };
    // "A streak without `repeat` that was reached is `EXHAUSTED`, and `current` equals `target`."
    let reached_for_good = exhausted && matches!(c.goal, Goal::Streak { repeat: false, .. });

    let state = if exhausted {
        State::Exhausted
    } else if window_is_full {
        State::Reached
    } else if now.window.is_some() || now.current > 0 {
        // "An open window without purchases: IN_PROGRESS". "A streak over occurrences, between two of them: … IN_PROGRESS while a
        // run lives".
        State::InProgress
    } else {
        State::NotStarted
    };
    Progress {
        state,
        unit,
        // "`current` never exceeds `target`."
        current: if reached_for_good { target } else { now.current.min(target) },
        target,
        window: now.window.map(|window| clip(c, window)),
        next_window: now.next_window.map(|window| clip(c, window)),
        awards_earned,
        awards_left,
    }
}

/// "`Award.window` and `CampaignProgress.window` return bounds that are clipped to the period as it is now. Bounds are
/// stored and compared unclipped."
pub(crate) fn clip(c: &Campaign, (opens, closes): Bounds) -> Bounds {
    let closes = match (closes, c.ends_at) {
        (Some(closes), Some(end)) => Some(closes.min(end)),
        (closes, end) => closes.or(end),
    };
    (opens.max(c.starts_at), closes)
}

/// The table of `unit` and `target`. MONEY is counted in minor units here, and returned in major units.
fn unit_and_target(goal: &Goal) -> (CountedUnit, i128) {
    match goal {
        // "1; `current` is always 0"
        Goal::EveryPurchase => (CountedUnit::Purchases, 1),
        Goal::Purchases { n, .. } => (CountedUnit::Purchases, i128::from(*n)),
        Goal::Spend { minor, .. } => (CountedUnit::Money, i128::from(*minor)),
        Goal::Units { n, .. } => (CountedUnit::Units, i128::from(*n)),
        Goal::Distinct { n, .. } => (CountedUnit::Distinct, i128::from(*n)),
        Goal::Streak { length, .. } => (CountedUnit::Windows, i128::from(*length)),
    }
}

/// "`awardsLeft` is `maxPerCustomer` less `awardsEarned`. If the goal can be reached only once, 1 takes the place of
/// `maxPerCustomer`. That is the case for the window `campaign`, for a `timer` without `reopens` and for a `streak`,
/// each with a goal without `repeat`; `everyPurchase` counts as a goal with `repeat`. `awardsLeft` is `null` if there
/// is no bound".
fn bound_of_awards(c: &Campaign) -> Option<i64> {
    let repeats = matches!(c.goal, Goal::EveryPurchase) || c.goal.repeats();
    let one_window = matches!(c.window, Window::Campaign | Window::Timer { reopens: false, .. });
    let streak = matches!(c.goal, Goal::Streak { .. });
    if !repeats && (one_window || streak) { Some(1) } else { c.max_per_customer }
}

/// The current window and what is counted in it, as the first table of the section says.
struct Now {
    current: i128,
    /// The index of the window among all windows of the campaign. `None` if no window is current, and for `rolling`,
    /// where each award has a window of its own.
    index: Option<usize>,
    /// The bounds of the current window, unclipped.
    window: Option<Bounds>,
    next_window: Option<Bounds>,
    /// Whether a timer that does not reopen has closed.
    timer_is_over: bool,
}

const NOTHING: Now = Now { current: 0, index: None, window: None, next_window: None, timer_is_over: false };

fn counted_now(c: &Campaign, eligible: &[Counted], t: Instant) -> Now {
    match (&c.window, &c.goal) {
        (Window::Calendar { .. } | Window::Recurring { .. }, Goal::Streak { length, per_window, repeat }) => {
            streak(c, *length, *per_window, *repeat, eligible, t)
        }
        // "the window that contains t"
        (Window::Campaign, _) => {
            let group = &groups(c, eligible)[0];
            let in_period = c.starts_at <= t && c.ends_at.is_none_or(|end| t < end);
            if in_period { in_group(&c.goal, 0, group) } else { NOTHING }
        }
        (Window::Calendar { .. } | Window::Recurring { .. }, _) => in_bounded_window(c, eligible, t),
        (Window::Session { .. } | Window::Timer { .. }, _) => in_last_window(c, eligible, t),
        (Window::Rolling { duration }, _) => rolling(c, *duration, eligible, t),
    }
}

/// "Purchases with `purchasedAt` after t count if they lie in the current window."
fn in_group(goal: &Goal, index: usize, group: &Group) -> Now {
    Now {
        current: count(goal, &group.purchases),
        index: Some(index),
        window: Some((group.opens_at, group.closes_at)),
        ..NOTHING
    }
}

/// "With `repeat`, `current` starts again each time the goal is reached"
fn count(goal: &Goal, purchases: &[Counted]) -> i128 {
    match goal {
        Goal::EveryPurchase => 0,
        Goal::Purchases { n, repeat: true } => i128::from(reached::to_u32(purchases.len()) % n),
        Goal::Purchases { .. } => i128::from(reached::to_u32(purchases.len())),
        Goal::Spend { minor, repeat: true } => i128::from(sum(purchases) % minor),
        Goal::Spend { .. } => i128::from(sum(purchases)),
        Goal::Units { n, repeat: true } => i128::from(all_units(purchases) % i64::from(*n)),
        Goal::Units { .. } => i128::from(all_units(purchases)),
        Goal::Distinct { .. } => i128::from(different(purchases)),
        Goal::Streak { .. } => unreachable!("counted in windows"),
    }
}

/// "the window that contains t"; "between two occurrences `null`, and `nextWindow` is the next one".
fn in_bounded_window(c: &Campaign, eligible: &[Counted], t: Instant) -> Now {
    let windows = windows_in_period(c, t);
    if let Some(index) = windows.iter().position(|w| contains(*w, t)) {
        let (opens, closes) = windows[index];
        let purchases = eligible.iter().filter(|p| contains((opens, closes), p.at)).cloned().collect();
        return in_group(&c.goal, index, &Group { opens_at: opens, closes_at: Some(closes), purchases });
    }
    let next = windows.iter().find(|(opens, _)| *opens > t);
    Now { next_window: next.map(|(opens, closes)| (*opens, Some(*closes))), ..NOTHING }
}

/// The windows that overlap the period, up to those that open within [`AHEAD`] of t.
fn windows_in_period(c: &Campaign, t: Instant) -> Vec<(Instant, Instant)> {
    let mut windows = bounded_windows(c, t.max(c.starts_at) + AHEAD);
    windows.retain(|(opens, _)| c.ends_at.is_none_or(|end| *opens < end));
    windows
}

fn contains((opens, closes): (Instant, Instant), t: Instant) -> bool {
    opens <= t && t < closes
}

/// "the last window, as long as t is before its close; else `null`". "A timer without `reopens` is `EXHAUSTED` after
/// its window has closed."
fn in_last_window(c: &Campaign, eligible: &[Counted], t: Instant) -> Now {
    let groups = groups(c, eligible);
    let Some(last) = groups.last() else { return NOTHING };
    if last.closes_at.is_some_and(|closes| t < closes) {
        return in_group(&c.goal, groups.len() - 1, last);
    }
    Now { timer_is_over: matches!(c.window, Window::Timer { reopens: false, .. }), ..NOTHING }
}

/// "`[oldest, oldest + duration)`, where `oldest` is the first unused purchase; `null` if there is none". "For
/// `rolling`, the unused purchases are those with `purchasedAt > t − duration` and before `oldest + duration` that no
/// award has used."
fn rolling(c: &Campaign, duration: i64, eligible: &[Counted], t: Instant) -> Now {
    let completions = rolling_completions(&c.goal, duration, eligible);
    let used = |p: &Counted| completions.iter().flatten().any(|u| u.external_id == p.external_id);
    let unused: Vec<Counted> = eligible.iter().filter(|p| p.at > t - duration && !used(p)).cloned().collect();
    let Some(oldest) = unused.first() else { return NOTHING };
    // "Purchases with `purchasedAt` after t count if they lie in the current window."
    let closes = oldest.at + duration;
    let in_window: Vec<Counted> = unused.iter().filter(|p| p.at < closes).cloned().collect();
    Now { current: count(&c.goal, &in_window), window: Some((oldest.at, Some(closes))), ..NOTHING }
}

/// "the complete windows of the current run"; "a run lasts until the window after its last complete window closes".
fn streak(c: &Campaign, length: u32, per_window: u32, repeat: bool, eligible: &[Counted], t: Instant) -> Now {
    let windows = windows_in_period(c, t);
    let open = windows.iter().position(|w| contains(*w, t));
    // The current window, or between two occurrences the next one, in which nothing counts yet.
    let now = open.unwrap_or_else(|| windows.iter().filter(|(opens, _)| *opens <= t).count());

    // The indices of the complete windows of the run.
    let mut run: Vec<usize> = Vec::new();
    for (i, window) in windows[..now + usize::from(open.is_some())].iter().enumerate() {
        let first_run_is_over = !repeat && reached::to_u32(run.len()) == length;
        let complete = reached::to_u32(eligible.iter().filter(|p| contains(*window, p.at)).count()) >= per_window;
        if first_run_is_over || !complete {
            continue;
        }
        if run.last().is_some_and(|last| last + 1 < i) {
            run.clear();
        }
        run.push(i);
        // "With `repeat`, `current` starts again each time the goal is reached"
        if repeat && reached::to_u32(run.len()) == length {
            run.clear();
        }
    }
    let alive = run.last().is_some_and(|last| now <= last + 1);
    let bounds = |(opens, closes): (Instant, Instant)| (opens, Some(closes));
    Now {
        current: if alive { i128::from(reached::to_u32(run.len())) } else { 0 },
        index: open,
        window: open.map(|open| bounds(windows[open])),
        next_window: if open.is_none() { windows.get(now).copied().map(bounds) } else { None },
        ..NOTHING
    }
}
