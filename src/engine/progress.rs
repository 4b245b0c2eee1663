//! Where a customer stands in a campaign at an instant: what a progress bar and a countdown show.

use super::award::Reached;
use super::evaluate::Range;
use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::state::{State, too_old};
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

/// What must be loaded to tell the progress at `at`, beside the tail's state; none: nothing. Rolling windows need what
/// is unused. A tail that lies in a later window than `at` (purchases may lie minutes ahead) says nothing of this one.
pub fn reads(campaign: Campaign<'_>, tail: &State, at: Instant) -> Option<Range> {
    match &campaign.rule.window {
        WindowRule::Rolling { duration } => {
            let after = tail.used_to.clone().max(Some(too_old(at, duration.micros())));
            let later = is_later(tail, at);
            (later || tail.count > 0).then_some(Range { after: after.filter(|_| !later), to: None })
        }
        _ => ahead(campaign, tail, at).map(|window| {
            let from_start = matches!(campaign.rule.goal, Goal::Streak { .. });
            let after = (!from_start).then(|| Key::before(window.opens));
            Range { after, to: Some(Key::before(window.closes)) }
        }),
    }
}

/// Whether the tail's last purchase lies ahead of `at`: what has become too old beside it may still count at `at`.
fn is_later(tail: &State, at: Instant) -> bool {
    tail.last.as_ref().is_some_and(|last| last.at > at)
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

/// The progress at `at`, inside the period. `loaded`: what [`reads`] asked for, in order. `awards_earned`: the
/// customer's STANDING and DECLINED awards in the campaign.
pub fn progress(
    campaign: Campaign<'_>,
    tail: &State,
    awards_earned: i64,
    loaded: &[Eligible],
    at: Instant,
) -> Progress {
    let folded = ahead(campaign, tail, at).map(|_| fold(campaign, loaded).0);
    let state = folded.as_ref().unwrap_or(tail);
    let Campaign { rule, period } = campaign;
    let unused = unused(campaign, tail, loaded, at);
    let window = current_window(campaign, state, &unused, at);
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
        Some(window) => current(campaign, state, &unused, window).min(target),
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

fn fold(campaign: Campaign<'_>, purchases: &[Eligible]) -> (State, Vec<Reached>) {
    let (mut state, mut awards) = (State::default(), Vec::new());
    for next in 0..purchases.len() {
        state.step(campaign, purchases, next, &mut awards);
    }
    (state, awards)
}

/// Rolling: the unused purchases in the window that the oldest of them opens.
fn unused<'a>(campaign: Campaign<'_>, tail: &State, loaded: &'a [Eligible], at: Instant) -> Vec<&'a Eligible> {
    let WindowRule::Rolling { duration } = &campaign.rule.window else { return Vec::new() };
    let too_old = too_old(at, duration.micros());
    let used = if is_later(tail, at) { completions(campaign, loaded) } else { Vec::new() };
    let is_used = |key: &Key| used.iter().any(|(first, by)| (first..=by).contains(&key));
    let mut unused = loaded.iter().filter(|purchase| purchase.key > too_old && !is_used(&purchase.key)).peekable();
    let Some(closes) = unused.peek().map(|oldest| oldest.key.at.plus(duration.micros())) else { return Vec::new() };
    unused.take_while(|purchase| purchase.key.at < closes).collect()
}

/// Rolling: the first and the last purchase of each completion, those beyond the cap too.
fn completions(campaign: Campaign<'_>, purchases: &[Eligible]) -> Vec<(Key, Key)> {
    let (_, awards) = fold(campaign, purchases);
    awards.into_iter().map(|award| (award.evidence_from, award.by)).collect()
}

/// The window that is counted now, unclipped.
fn current_window(campaign: Campaign<'_>, state: &State, unused: &[&Eligible], at: Instant) -> Option<Interval> {
    match &campaign.rule.window {
        WindowRule::Campaign => Some(campaign.period.interval()),
        WindowRule::Calendar(_) | WindowRule::Recurring(_) => fixed_window(campaign, at),
        WindowRule::Session { .. } | WindowRule::Timer { .. } => state.window.filter(|window| at < window.closes),
        WindowRule::Rolling { duration } => unused.first().map(|oldest| {
            let opens = oldest.key.at;
            Interval { opens, closes: opens.plus(duration.micros()) }
        }),
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

fn current(campaign: Campaign<'_>, state: &State, unused: &[&Eligible], window: Interval) -> i64 {
    if matches!(campaign.rule.window, WindowRule::Rolling { .. }) {
        return match &campaign.rule.goal {
            Goal::Spend { .. } => unused.iter().map(|purchase| purchase.amount).sum(),
            Goal::Distinct { .. } => {
                let items: std::collections::BTreeSet<_> = unused.iter().flat_map(|p| &p.items).collect();
                items.len() as i64
            }
            _ => unused.len() as i64,
        };
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
