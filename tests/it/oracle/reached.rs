//! Reached awards: eligible purchases → windows → goals → awards → caps.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::zone;
use super::{Award, AwardRule, Campaign, DAY, Goal, Instant, Line, Purchase, Unit, Window};

/// An eligible purchase and what the goals count of it.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) external_id: String,
    pub(crate) at: Instant,
    /// The eligible amount.
    pub(crate) amount: i64,
    /// What `distinct` counts.
    pub(crate) kinds: BTreeSet<String>,
}

/// A window's purchases.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) opens_at: Instant,
    /// None: the window `campaign`.
    pub(crate) closes_at: Option<Instant>,
    pub(crate) purchases: Vec<Counted>,
}

/// An award before caps, with the window that it was reached in.
#[derive(Clone, Debug)]
pub(crate) struct Uncapped {
    pub(crate) window: usize,
    pub(crate) award: Award,
}

/// The reached awards in award order.
pub(crate) fn reached(c: &Campaign, purchases: &[Purchase]) -> Vec<Award> {
    let mut awards = uncapped(c, purchases);

    // "`maxPerWindow` keeps the first n of a window,"
    if let Some(max) = c.max_per_window {
        let all = awards.clone();
        let earlier_in_window = |i: usize| all[..i].iter().filter(|a| a.window == all[i].window).count();
        awards = (0..all.len()).filter(|&i| to_i64(earlier_in_window(i)) < max).map(|i| all[i].clone()).collect();
    }
    // "then `maxPerCustomer` the first n of what is left."
    if let Some(max) = c.max_per_customer {
        awards.truncate(usize::try_from(max).expect("a small cap"));
    }
    awards.into_iter().map(|a| a.award).collect()
}

/// All awards before caps, in award order.
pub(crate) fn uncapped(c: &Campaign, purchases: &[Purchase]) -> Vec<Uncapped> {
    let eligible = eligible(c, purchases);
    let mut awards = match (&c.window, &c.goal) {
        (Window::Rolling { duration }, goal) => rolling(c, goal, *duration, &eligible),
        (Window::Calendar { .. }, Goal::Streak { length, per_window, repeat }) => {
            streak(c, *length, *per_window, *repeat, &eligible)
        }
        (_, Goal::EveryPurchase) => every_purchase(c, &groups(c, &eligible)),
        (_, goal) => counted_in_windows(c, goal, &groups(c, &eligible)),
    };
    awards.sort_by_key(|a| a.award.order());
    awards
}

// ── Eligible purchases ──

/// "A customer's purchases are ordered by `(purchasedAt, externalId)`, `externalId` as bytes."
pub(crate) fn eligible(c: &Campaign, purchases: &[Purchase]) -> Vec<Counted> {
    let mut counted: Vec<Counted> = purchases
        .iter()
        .filter(|p| is_eligible(c, p))
        .map(|p| Counted {
            external_id: p.external_id.clone(),
            at: p.at,
            amount: eligible_amount(c, p),
            kinds: kinds(c, p),
        })
        .collect();
    counted.sort_by_key(|p| (p.at, p.external_id.clone().into_bytes()));
    counted
}

fn is_eligible(c: &Campaign, p: &Purchase) -> bool {
    // "(1) `startsAt <= purchasedAt < endsAt` (none: open-ended), and `purchasedAt` lies in no pause"
    let in_period = c.starts_at <= p.at && c.ends_at.is_none_or(|end| p.at < end);
    let paused = c.pauses.iter().any(|(from, to)| *from <= p.at && to.is_none_or(|to| p.at < to));
    // "(2) its currency is the campaign's"
    let currency = p.currency == c.currency;
    // "(3) its channel is among the filter's `channels` (if given), and at least one line matches `categories` and
    // `skus` (each, if given)"
    let channel = c.filter.channels.as_ref().is_none_or(|l| p.channel.as_ref().is_some_and(|ch| l.contains(ch)));
    let line = !filter_names_lines(c) || p.lines.iter().any(|line| line_matches(c, line));
    // "(4) its net and its **eligible amount** are above zero, and the eligible amount is at least `minAmount`."
    let eligible = eligible_amount(c, p);
    let amount = net(p) > 0 && eligible > 0 && c.filter.min_amount.is_none_or(|min| eligible >= min);

    in_period && !paused && currency && channel && line && amount
}

fn filter_names_lines(c: &Campaign) -> bool {
    c.filter.categories.is_some() || c.filter.skus.is_some()
}

/// "A purchase without channel, category or lines fails a filter that asks for them."
fn line_matches(c: &Campaign, line: &Line) -> bool {
    let category = match (&c.filter.categories, &line.category) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wanted), Some(category)) => wanted.contains(category),
    };
    let sku = c.filter.skus.as_ref().is_none_or(|wanted| wanted.contains(&line.sku));
    category && sku
}

/// "`net = max(0, total − all refunds)`"
pub(crate) fn net(p: &Purchase) -> i64 {
    (p.total - p.refunds.iter().map(|r| r.amount).sum::<i64>()).max(0)
}

/// The net of each line, in line order.
pub(crate) fn line_nets(p: &Purchase) -> Vec<i64> {
    // "For each line `left = amount − refunds that name its sku` (spread over lines of that sku by category, none first,
    // then quantity, then amount; each down to 0)"
    let mut in_order: Vec<usize> = (0..p.lines.len()).collect();
    in_order.sort_by_key(|&i| (p.lines[i].category.clone(), p.lines[i].quantity, p.lines[i].amount));
    let mut left: Vec<i64> = p.lines.iter().map(|line| line.amount).collect();
    for (sku, amount) in p.refunds.iter().flat_map(|r| &r.lines) {
        let mut to_spread = *amount;
        for &i in &in_order {
            if p.lines[i].sku == *sku {
                let taken = to_spread.min(left[i]);
                left[i] -= taken;
                to_spread -= taken;
            }
        }
    }
    // "`rest = max(0, total − refunds that name lines)`"
    let naming_lines: i64 = p.refunds.iter().filter(|r| !r.lines.is_empty()).map(|r| r.amount).sum();
    let rest = (p.total - naming_lines).max(0);
    // "`net(line) = floor(left × net / rest)`, 0 where `rest = 0`"
    left.into_iter()
        .map(|left| if rest == 0 { 0 } else { narrow(i128::from(left) * i128::from(net(p)) / i128::from(rest)) })
        .collect()
}

/// "Eligible amount: `min(net, Σ net of the matching lines)` where the filter names `categories` or `skus`, else
/// `net`."
pub(crate) fn eligible_amount(c: &Campaign, p: &Purchase) -> i64 {
    if !filter_names_lines(c) {
        return net(p);
    }
    let nets = line_nets(p);
    let matching: i64 = (0..nets.len()).filter(|&i| line_matches(c, &p.lines[i])).map(|i| nets[i]).sum();
    net(p).min(matching)
}

/// "n different ones …, over matching lines with net above 0; lines without category do not count"
fn kinds(c: &Campaign, p: &Purchase) -> BTreeSet<String> {
    let nets = line_nets(p);
    let lines = (0..nets.len()).filter(|&i| line_matches(c, &p.lines[i]) && nets[i] > 0).map(|i| &p.lines[i]);
    match c.goal {
        Goal::Distinct { of_category: true, .. } => lines.filter_map(|line| line.category.clone()).collect(),
        _ => lines.map(|line| line.sku.clone()).collect(),
    }
}

// ── Windows ──

/// The windows that have purchases, in order; for `calendar` and `recurring` also those without.
pub(crate) fn groups(c: &Campaign, eligible: &[Counted]) -> Vec<Group> {
    match &c.window {
        // "the whole period"
        Window::Campaign => {
            vec![Group { opens_at: c.starts_at, closes_at: None, purchases: eligible.to_vec() }]
        }
        // "A purchase belongs to the window whose interval contains its **instant**, whatever date its local clock
        // shows." "Purchases outside every occurrence do not count."
        Window::Calendar { .. } | Window::Recurring { .. } => {
            let until = eligible.last().map_or(c.starts_at, |p| p.at);
            bounded_windows(c, until)
                .into_iter()
                .map(|(opens, closes)| Group {
                    opens_at: opens,
                    closes_at: Some(closes),
                    purchases: eligible.iter().filter(|p| opens <= p.at && p.at < closes).cloned().collect(),
                })
                .collect()
        }
        // "neighbours belong together when the later comes **less than** `gap` after the earlier: `[first, last + gap)`"
        Window::Session { gap } => {
            let mut sessions: Vec<Group> = Vec::new();
            for p in eligible {
                let last = sessions.last().and_then(|s| s.purchases.last());
                if last.is_none_or(|last| p.at - last.at >= *gap) {
                    sessions.push(Group { opens_at: p.at, closes_at: None, purchases: Vec::new() });
                }
                let session = sessions.last_mut().expect("one was opened");
                session.purchases.push(p.clone());
                session.closes_at = Some(p.at + gap);
            }
            sessions
        }
        // "opened by the first eligible purchase at t0: `[t0, t0 + duration)`. With `reopens`, the first one at or
        // after the close opens the next; without, there is one window"
        Window::Timer { duration, reopens } => {
            let mut timers: Vec<Group> = Vec::new();
            for p in eligible {
                match timers.last_mut() {
                    Some(timer) if p.at < timer.opens_at + duration => timer.purchases.push(p.clone()),
                    Some(_) if !reopens => (),
                    _ => timers.push(Group {
                        opens_at: p.at,
                        closes_at: Some(p.at + duration),
                        purchases: vec![p.clone()],
                    }),
                }
            }
            timers
        }
        Window::Rolling { .. } => unreachable!("rolling has no bounds"),
    }
}

/// The windows of `calendar` or `recurring` that meet the period's start or what follows, in order, as far as they
/// open at or before `until`; unclipped.
/// "Windows that contain no instant (a skipped day) do not exist".
pub(crate) fn bounded_windows(c: &Campaign, until: Instant) -> Vec<(Instant, Instant)> {
    let mut windows = Vec::new();
    match &c.window {
        // "in the campaign's zone, in blocks of `every` units counted from the unit that contains `startsAt`; bounds at
        // local midnight. A block is one window."
        Window::Calendar { unit, every, week_starts_on } => {
            let first = unit_that_contains(c, *unit, *week_starts_on);
            for block in 0.. {
                let opens = zone::midnight(&c.zone, plus_units(*unit, first, block * i64::from(*every)));
                let closes = zone::midnight(&c.zone, plus_units(*unit, first, (block + 1) * i64::from(*every)));
                if opens > until {
                    break;
                }
                windows.push((opens, closes));
            }
        }
        // "one window per local occurrence (Fridays 18:00–20:00). `to <= from` runs past midnight and belongs to the
        // day it starts on (`from = to`: 24 local hours)."
        Window::Recurring { weekdays, from, to } => {
            let first = zone::plus_days(zone::date_shown(&c.zone, c.starts_at), -3);
            for day in 0.. {
                let date = zone::plus_days(first, day);
                let opens = zone::bound(&c.zone, zone::clock(date, *from));
                let closing_date = if to <= from { zone::plus_days(date, 1) } else { date };
                let closes = zone::bound(&c.zone, zone::clock(closing_date, *to));
                if opens > until {
                    break;
                }
                if weekdays.contains(&weekday(date)) {
                    windows.push((opens, closes));
                }
            }
        }
        _ => unreachable!("no bounds of its own"),
    }
    windows.retain(|(opens, closes)| opens < closes && c.starts_at < *closes);
    windows
}

/// The first date of the unit whose instants include `startsAt`.
fn unit_that_contains(c: &Campaign, unit: Unit, week_starts_on: u8) -> Date {
    let shown = zone::date_shown(&c.zone, c.starts_at);
    (-3..=3)
        .map(|days| first_date(unit, week_starts_on, zone::plus_days(shown, days)))
        .find(|first| {
            zone::midnight(&c.zone, *first) <= c.starts_at
                && c.starts_at < zone::midnight(&c.zone, plus_units(unit, *first, 1))
        })
        .expect("units follow each other without a hole")
}

/// The first date of the unit that a date is in.
fn first_date(unit: Unit, week_starts_on: u8, date: Date) -> Date {
    (0..)
        .map(|days| zone::plus_days(date, -days))
        .find(|d| match unit {
            Unit::Day => true,
            Unit::Week => weekday(*d) == week_starts_on,
            Unit::Month => d.day() == 1,
            Unit::Quarter => d.day() == 1 && [1, 4, 7, 10].contains(&d.month()),
            Unit::Year => d.day() == 1 && d.month() == 1,
        })
        .expect("every unit has a first date")
}

fn plus_units(unit: Unit, date: Date, n: i64) -> Date {
    match unit {
        Unit::Day => zone::plus_days(date, n),
        Unit::Week => zone::plus_days(date, 7 * n),
        Unit::Month => zone::plus_months(date, n),
        Unit::Quarter => zone::plus_months(date, 3 * n),
        Unit::Year => zone::plus_months(date, 12 * n),
    }
}

/// 0 is Monday.
fn weekday(date: Date) -> u8 {
    u8::try_from(date.weekday().to_monday_zero_offset()).expect("0 to 6")
}

// ── Goals and awards ──

/// "`everyPurchase`: each purchase". "`ordinal`: … always 1 for `everyPurchase`". "Evidence: `everyPurchase`: its
/// purchase".
fn every_purchase(c: &Campaign, groups: &[Group]) -> Vec<Uncapped> {
    let mut awards = Vec::new();
    for (window, group) in groups.iter().enumerate() {
        for p in &group.purchases {
            let points = points(c, p.amount);
            // "An award of zero points does not exist: no ordinal, no cap."
            if points == 0 {
                continue;
            }
            let award = Award {
                purchase: p.external_id.clone(),
                nth: 1,
                ordinal: 1,
                points,
                earned_at: p.at,
                opens_at: Some(group.opens_at),
                closes_at: closes_at(c, group, p),
                evidence: vec![p.external_id.clone()],
            };
            awards.push(Uncapped { window, award });
        }
    }
    awards
}

/// `purchases`, `spend` and `distinct`: "Counted over a window's purchases in order."
fn counted_in_windows(c: &Campaign, goal: &Goal, groups: &[Group]) -> Vec<Uncapped> {
    let mut awards = Vec::new();
    for (window, group) in groups.iter().enumerate() {
        let reaching = reaching(goal, &group.purchases);
        for (i, &at) in reaching.iter().enumerate() {
            // "the window's eligible purchases after the one that reached the previous ordinal (for `spend` that one
            // included: its excess carries over), up to and including the reaching one"
            let from = match (i.checked_sub(1), goal) {
                (None, _) => 0,
                (Some(previous), Goal::Spend { .. }) => reaching[previous],
                (Some(previous), _) => reaching[previous] + 1,
            };
            let p = &group.purchases[at];
            let award = Award {
                purchase: p.external_id.clone(),
                nth: to_u32(reaching[..=i].iter().filter(|other| **other == at).count()),
                // "`ordinal`: 1, 2 … among the awards of a window before caps"
                ordinal: to_i64(i + 1),
                points: points(c, p.amount),
                // "`earnedAt`: `purchasedAt` of the reaching purchase."
                earned_at: p.at,
                opens_at: Some(group.opens_at),
                closes_at: closes_at(c, group, p),
                evidence: ids(&group.purchases[from..=at]),
            };
            awards.push(Uncapped { window, award });
        }
    }
    awards
}

/// For each award of a window, the index of the purchase that reached it.
fn reaching(goal: &Goal, purchases: &[Counted]) -> Vec<usize> {
    let mut reaching = Vec::new();
    for i in 0..purchases.len() {
        let (before, after) = (&purchases[..i], &purchases[..=i]);
        let times = match goal {
            // "the n-th purchase; with `repeat` also the 2n-th, 3n-th …"
            Goal::Purchases { n, repeat: false } => i64::from(to_u32(after.len()) == *n),
            Goal::Purchases { n, repeat: true } => i64::from(to_u32(after.len()).is_multiple_of(*n)),
            // "the purchase at which the sum of eligible amounts reaches m; with `repeat` each further multiple"
            Goal::Spend { minor, repeat: false } => i64::from(sum(before) < *minor && sum(after) >= *minor),
            // "(one purchase may reach several: at most 100 are awarded, the rest count as reached)"
            Goal::Spend { minor, repeat: true } => (sum(after) / minor - sum(before) / minor).min(100),
            // "the purchase at which n different ones have been bought"
            Goal::Distinct { n, .. } => i64::from(different(before) < *n && different(after) >= *n),
            Goal::EveryPurchase | Goal::Streak { .. } => unreachable!("counted on their own"),
        };
        reaching.extend((0..times).map(|_| i));
    }
    reaching
}

/// The award's closing bound: the window's, but a session's "as they stood when the goal was reached,
/// `[first, reaching + gap)`".
fn closes_at(c: &Campaign, group: &Group, reaching: &Counted) -> Option<Instant> {
    match c.window {
        Window::Session { gap } => Some(reaching.at + gap),
        _ => group.closes_at,
    }
}

/// "at each purchase, in order, count it and those before it with `purchasedAt > t − duration` that no earlier
/// completion used. Reaching the goal is a completion and uses up **all** of them"
fn rolling(c: &Campaign, goal: &Goal, duration: i64, eligible: &[Counted]) -> Vec<Uncapped> {
    rolling_completions(goal, duration, eligible)
        .into_iter()
        .enumerate()
        .map(|(window, evidence)| {
            let (first, reaching) = (&evidence[0], &evidence[evidence.len() - 1]);
            let award = Award {
                purchase: reaching.external_id.clone(),
                nth: 1,
                // "always 1 for `everyPurchase`, `rolling` and `streak`"
                ordinal: 1,
                points: points(c, reaching.amount),
                earned_at: reaching.at,
                // "rolling: `[first of the evidence, earnedAt]`"
                opens_at: Some(first.at),
                closes_at: Some(reaching.at),
                // "`rolling`: those used up"
                evidence: ids(&evidence),
            };
            Uncapped { window, award }
        })
        .collect()
}

/// What each completion of a `rolling` goal used up.
pub(crate) fn rolling_completions(goal: &Goal, duration: i64, eligible: &[Counted]) -> Vec<Vec<Counted>> {
    let mut completions: Vec<Vec<Counted>> = Vec::new();
    for i in 0..eligible.len() {
        let t = eligible[i].at;
        let used = |p: &Counted| completions.iter().flatten().any(|u| u.external_id == p.external_id);
        let counted: Vec<Counted> =
            eligible[..=i].iter().filter(|p| p.at > t - duration && !used(p)).cloned().collect();
        let reached = match goal {
            Goal::Purchases { n, .. } => to_u32(counted.len()) >= *n,
            Goal::Spend { minor, .. } => sum(&counted) >= *minor,
            Goal::Distinct { n, .. } => different(&counted) >= *n,
            Goal::EveryPurchase | Goal::Streak { .. } => unreachable!("refused at creation"),
        };
        if reached {
            completions.push(counted);
        }
    }
    completions
}

/// "the k-th purchase of the n-th of n **consecutive** windows with at least k each. With `repeat` counting starts
/// again at the next window; without, the first run is the only one"
fn streak(c: &Campaign, length: u32, per_window: u32, repeat: bool, eligible: &[Counted]) -> Vec<Uncapped> {
    let k = usize::try_from(per_window).expect("a small number");
    let mut awards = Vec::new();
    let mut run: Vec<Group> = Vec::new();
    for (window, group) in groups(c, eligible).into_iter().enumerate() {
        if group.purchases.len() < k {
            run.clear();
            continue;
        }
        run.push(group);
        if to_u32(run.len()) < length {
            continue;
        }
        let last = &run[run.len() - 1];
        let p = &last.purchases[k - 1];
        let award = Award {
            purchase: p.external_id.clone(),
            nth: 1,
            ordinal: 1,
            points: points(c, p.amount),
            earned_at: p.at,
            // "a streak's: the n-th window's"
            opens_at: Some(last.opens_at),
            closes_at: last.closes_at,
            // "`streak`: the first k of each of the n windows"
            evidence: run.iter().flat_map(|group| ids(&group.purchases[..k])).collect(),
        };
        awards.push(Uncapped { window, award });
        run.clear();
        if !repeat {
            break;
        }
    }
    awards
}

/// "`points(n)`, n ≥ 1; or `pointsPerUnit(rate)`: `floor(eligible amount in major units × rate)`."
/// "an award has at most 10⁹ points (`pointsPerUnit` stops there)"
fn points(c: &Campaign, eligible_amount: i64) -> i64 {
    match c.award {
        AwardRule::Points(n) => n,
        AwardRule::PointsPerUnit { rate_micro } => {
            let product = i128::from(eligible_amount) * i128::from(rate_micro);
            narrow((product / (10_i128.pow(c.currency_exponent) * 1_000_000)).min(1_000_000_000))
        }
    }
}

pub(crate) fn sum(purchases: &[Counted]) -> i64 {
    purchases.iter().map(|p| p.amount).sum()
}

pub(crate) fn different(purchases: &[Counted]) -> u32 {
    to_u32(purchases.iter().flat_map(|p| &p.kinds).collect::<BTreeSet<_>>().len())
}

fn ids(purchases: &[Counted]) -> Vec<String> {
    purchases.iter().map(|p| p.external_id.clone()).collect()
}

/// The next window of `recurring` opens within this span, whatever the clocks do.
pub(crate) const AHEAD: i64 = 40 * DAY;

pub(crate) fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("a small number")
}

pub(crate) fn to_i64(n: usize) -> i64 {
    i64::try_from(n).expect("a small number")
}

fn narrow(n: i128) -> i64 {
    i64::try_from(n).expect("within the limits")
}
