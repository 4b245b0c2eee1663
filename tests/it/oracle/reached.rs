//! The reached awards, in the order of `docs/semantics.md`: eligible purchases, windows, goals, awards, caps.

use std::collections::BTreeSet;

use jiff::civil::Date;

use super::contents::in_currency;
use super::zone;
use super::{Award, AwardRule, Campaign, DAY, Goal, Instant, Line, Purchase, Refund, Unit, Window};

/// An eligible purchase, with what the goals count of it.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) external_id: String,
    pub(crate) at: Instant,
    /// The eligible amount of the purchase.
    pub(crate) amount: i64,
    /// The SKUs or categories that `distinct` counts.
    pub(crate) kinds: BTreeSet<String>,
    /// What `units` counts.
    pub(crate) units: i64,
    /// What an award that this purchase reaches is worth.
    pub(crate) points: i64,
}

/// A window with its eligible purchases.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) opens_at: Instant,
    /// `None` for the window `campaign`.
    pub(crate) closes_at: Option<Instant>,
    pub(crate) purchases: Vec<Counted>,
}

/// An award before caps, with the index of the window in which it was reached.
#[derive(Clone, Debug)]
pub(crate) struct Uncapped {
    pub(crate) window: usize,
    pub(crate) award: Award,
}

/// The reached awards in award order.
pub(crate) fn reached(c: &Campaign, purchases: &[Purchase]) -> Vec<Award> {
    // "in award order, an award is kept where its window has a place (`maxPerWindow`) and points (`maxPointsPerWindow`) left and the
    // customer too (`maxPerCustomer`, `maxPointsPerCustomer`). It gets at most the points that both leave; `pointsBeforeCap` is
    // what it would be. One not kept takes nothing."
    let mut kept: Vec<Uncapped> = Vec::new();
    for Uncapped { window, award } in uncapped(c, purchases) {
        let places = |of: &dyn Fn(&Uncapped) -> bool| to_i64(kept.iter().filter(|one| of(one)).count());
        let points =
            |of: &dyn Fn(&Uncapped) -> bool| kept.iter().filter(|one| of(one)).map(|one| one.award.points).sum::<i64>();
        let in_window = |one: &Uncapped| one.window == window;
        let has_place = c.max_per_window.is_none_or(|max| places(&in_window) < max)
            && c.max_per_customer.is_none_or(|max| places(&|_| true) < max);
        let left_in_window = c.max_points_per_window.map(|max| max - points(&in_window));
        let left = c.max_points_per_customer.map(|max| max - points(&|_| true));
        let points = [left_in_window, left].into_iter().flatten().fold(award.points, i64::min);
        if has_place && points > 0 {
            kept.push(Uncapped { window, award: Award { points, ..award } });
        }
    }
    kept.into_iter().map(|one| one.award).collect()
}

/// All awards before caps, in award order.
pub(crate) fn uncapped(c: &Campaign, purchases: &[Purchase]) -> Vec<Uncapped> {
    let eligible = eligible(c, purchases);
    let mut awards = match (&c.window, &c.goal) {
        (Window::Rolling { duration }, goal) => rolling(goal, *duration, &eligible),
        (Window::Calendar { .. } | Window::Recurring { .. }, Goal::Streak { length, per_window, repeat }) => {
            streak(c, *length, *per_window, *repeat, &eligible)
        }
        (_, Goal::EveryPurchase) => every_purchase(c, &groups(c, &eligible)),
        (_, goal) => counted_in_windows(c, goal, &groups(c, &eligible)),
    };
    awards.sort_by_key(|a| a.award.order());
    awards
}

// ── Eligible purchases ──

/// "The purchases of a customer are ordered by `(purchasedAt, externalId)`. An `externalId` is compared byte by byte."
pub(crate) fn eligible(c: &Campaign, purchases: &[Purchase]) -> Vec<Counted> {
    let mut counted: Vec<Counted> = purchases
        .iter()
        .filter(|p| is_eligible(c, p))
        .map(|p| Counted {
            external_id: p.external_id.clone(),
            at: p.at,
            amount: eligible_amount(c, p),
            kinds: kinds(c, p),
            units: units(c, p),
            points: points(c, p),
        })
        .collect();
    counted.sort_by_key(|p| (p.at, p.external_id.clone().into_bytes()));
    counted
}

fn is_eligible(c: &Campaign, p: &Purchase) -> bool {
    // "1. `purchasedAt` is in the period of the campaign and in no pause."
    let in_period = c.starts_at <= p.at && c.ends_at.is_none_or(|end| p.at < end);
    let paused = c.pauses.iter().any(|(from, to)| *from <= p.at && to.is_none_or(|to| p.at < to));
    // "2. Its currency is the currency of the campaign."
    let currency = p.currency == c.currency;
    // "3. If the filter has `channels`, its channel is one of them. A purchase without a channel fails this condition."
    // "4. If the filter has `categories` or `skus`, at least one line matches."
    let channel = c.filter.channels.as_ref().is_none_or(|l| p.channel.as_ref().is_some_and(|ch| l.contains(ch)));
    // "A filter that only excludes takes a purchase without lines whole; of one with lines, at least one that is not excluded must
    // have net above 0."
    let line = if filter_names_lines(c) {
        p.lines.iter().any(|line| line_matches(c, line))
    } else {
        !filter_excludes(c)
            || p.lines.is_empty()
            || p.lines.iter().zip(line_nets(p)).any(|(line, net)| !is_excluded(c, line) && net > 0)
    };
    // Condition 5, about `recurring` windows, is left to `groups`. "6. Its net and its eligible amount are above zero."
    // "7. If the filter has `minAmount`, the eligible amount is at least that."
    let eligible = eligible_amount(c, p);
    let amount = net(p) > 0 && eligible > 0 && c.filter.min_amount.is_none_or(|min| eligible >= min);

    // "for the goal `units`, it has at least one"
    let units = !matches!(c.goal, Goal::Units { .. }) || units(c, p) >= 1;

    in_period && !paused && currency && channel && line && amount && units
}

fn filter_names_lines(c: &Campaign) -> bool {
    c.filter.categories.is_some() || c.filter.skus.is_some()
}

fn filter_excludes(c: &Campaign) -> bool {
    c.filter.excluded_categories.is_some() || c.filter.excluded_skus.is_some()
}

/// "A line is **excluded** that has one of `excludedCategories` or `excludedSkus`; it matches nothing".
fn is_excluded(c: &Campaign, line: &Line) -> bool {
    let categories = c.filter.excluded_categories.iter().flatten();
    let skus = c.filter.excluded_skus.iter().flatten();
    categories.into_iter().any(|category| line.category.as_ref() == Some(category))
        || skus.into_iter().any(|sku| line.sku == *sku)
}

/// "A line matches if its category is one of `categories` and its sku is one of `skus`; a list that is not given
/// matches every line. A line without a category does not match a filter with `categories`."
fn line_matches(c: &Campaign, line: &Line) -> bool {
    let category = match (&c.filter.categories, &line.category) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wanted), Some(category)) => wanted.contains(category),
    };
    let sku = c.filter.skus.as_ref().is_none_or(|wanted| wanted.contains(&line.sku));
    category && sku && !is_excluded(c, line)
}

/// "`back = max(refunded + Σ refunds with refundedAt after refundedUntil, Σ refunds)`" "none: 0; no instant: no refund is after it"
pub(crate) fn back(p: &Purchase) -> i64 {
    let refunds = |counts: &dyn Fn(&Refund) -> bool| -> i64 {
        p.refunds.iter().filter(|refund| counts(refund)).map(|refund| taken_back(p, refund)).sum()
    };
    let sum = p.sum.as_ref().map_or(0, |sum| in_currency(sum.amount, &sum.currency, &p.currency));
    let until = p.sum.as_ref().and_then(|sum| sum.until);
    (sum + refunds(&|refund| until.is_some_and(|until| refund.at > until))).max(refunds(&|_| true))
}

/// What one refund takes back. "a refund of `null` counts as the total"
fn taken_back(p: &Purchase, refund: &Refund) -> i64 {
    match refund.amount {
        None => p.total,
        Some(amount) if refund.lines.is_empty() => in_currency(amount, &refund.currency, &p.currency),
        Some(_) => refund.lines.iter().map(|(_, amount)| in_currency(*amount, &refund.currency, &p.currency)).sum(),
    }
}

/// "`net = max(0, total − back)`"
pub(crate) fn net(p: &Purchase) -> i64 {
    (p.total - back(p)).max(0)
}

/// The net of each line, in the order of the lines.
pub(crate) fn line_nets(p: &Purchase) -> Vec<i64> {
    line_shares(p).into_iter().map(|(down, _)| down).collect()
}

/// What is left of each line, in the order of the lines: rounded down, and rounded up.
fn line_shares(p: &Purchase) -> Vec<(i64, i64)> {
    // "1. `left` is the amount of the line less the refunds that name its `sku`, but not less than 0. If several lines
    // have that `sku`, a refund is taken from them in a fixed order: by category (lines without one first), then by
    // quantity, then by amount."
    let mut in_order: Vec<usize> = (0..p.lines.len()).collect();
    in_order.sort_by_key(|&i| (p.lines[i].category.clone(), p.lines[i].quantity, p.lines[i].amount));
    let mut left: Vec<i64> = p.lines.iter().map(|line| line.amount).collect();
    let named = p.refunds.iter().flat_map(|refund| refund.lines.iter().map(move |line| (refund, line)));
    for (refund, (sku, amount)) in named {
        let mut to_spread = in_currency(*amount, &refund.currency, &p.currency);
        for &i in &in_order {
            if p.lines[i].sku == *sku {
                let taken = to_spread.min(left[i]);
                left[i] -= taken;
                to_spread -= taken;
            }
        }
    }
    // "2. `rest` is `max(0, total − sum of the refunds that have lines)`."
    let naming_lines: i64 = p.refunds.iter().filter(|r| !r.lines.is_empty()).map(|r| taken_back(p, r)).sum();
    let rest = (p.total - naming_lines).max(0);
    // "3. The net of the line is `floor(left × net of the purchase ÷ rest)`, or 0 if `rest` is 0."
    left.into_iter()
        .map(|left| {
            if rest == 0 {
                return (0, 0);
            }
            let (product, rest) = (i128::from(left) * i128::from(net(p)), i128::from(rest));
            (narrow(product / rest), narrow(product / rest + i128::from(product % rest > 0)))
        })
        .collect()
}

/// "without `categories` and `skus`: the net of the purchase; with `categories` or `skus`: the smaller of the net of
/// the purchase and the sum of the nets of the matching lines."
pub(crate) fn eligible_amount(c: &Campaign, p: &Purchase) -> i64 {
    if !filter_names_lines(c) {
        // "where it only excludes, `max(0, net − Σ net of the excluded lines, each rounded up)`; else `net`"
        let excluded = p.lines.iter().zip(line_shares(p)).filter(|(line, _)| is_excluded(c, line));
        return (net(p) - excluded.map(|(_, (_, up))| up).sum::<i64>()).max(0);
    }
    let nets = line_nets(p);
    let matching: i64 = (0..nets.len()).filter(|&i| line_matches(c, &p.lines[i])).map(|i| nets[i]).sum();
    net(p).min(matching)
}

/// "Only matching lines whose net is above zero are counted." "A line without a category does not count for
/// `CATEGORY`."
fn kinds(c: &Campaign, p: &Purchase) -> BTreeSet<String> {
    let nets = line_nets(p);
    let lines = (0..nets.len()).filter(|&i| line_matches(c, &p.lines[i]) && nets[i] > 0).map(|i| &p.lines[i]);
    match c.goal {
        Goal::Distinct { of_category: true, .. } => lines.filter_map(|line| line.category.clone()).collect(),
        _ => lines.map(|line| line.sku.clone()).collect(),
    }
}

/// "Units of a purchase: `Σ quantity × net(line) / amount` over matching lines (each in millionths, rounded down), to the nearest
/// whole number, half up; a line whose amount is 0 has none."
fn units(c: &Campaign, p: &Purchase) -> i64 {
    let lines = p.lines.iter().zip(line_nets(p)).filter(|(line, _)| line_matches(c, line) && line.amount != 0);
    let millionths: i128 = lines
        .map(|(line, net)| i128::from(line.quantity) * i128::from(net) * 1_000_000 / i128::from(line.amount))
        .sum();
    let (whole, part) = (millionths / 1_000_000, millionths % 1_000_000);
    narrow(whole + i128::from(part >= 500_000))
}

// ── Windows ──

/// The windows in order. `session` and `timer` have no windows without purchases; the others can have some.
pub(crate) fn groups(c: &Campaign, eligible: &[Counted]) -> Vec<Group> {
    match &c.window {
        // "The whole period is one window."
        Window::Campaign => {
            vec![Group { opens_at: c.starts_at, closes_at: None, purchases: eligible.to_vec() }]
        }
        // "A purchase belongs to the window that contains its instant, whatever date or time a local clock shows." "5.
        // With a `recurring` window, `purchasedAt` is in one of its occurrences."
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
        // "Two neighbours belong to one window if the later follows **less than** `gap` after the earlier." "The window
        // is `[first purchase, last purchase + gap)`."
        Window::Session { gap } => {
            let mut sessions: Vec<Group> = Vec::new();
            for p in eligible {
                let last = sessions.last().and_then(|s| s.purchases.last());
                if last.is_none_or(|last| p.at - last.at >= *gap) {
                    sessions.push(Group { opens_at: p.at, closes_at: None, purchases: Vec::new() });
                }
                let session = sessions.last_mut().expect("a session is open");
                session.purchases.push(p.clone());
                session.closes_at = Some(p.at + gap);
            }
            sessions
        }
        // "The window is `[t0, t0 + duration)`, where t0 is the first eligible purchase. With `reopens`, the first
        // eligible purchase at or after the close opens the next window. Without `reopens` there is only one window,
        // and later purchases do not count."
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
        Window::Rolling { .. } => unreachable!("a rolling window does not group purchases"),
    }
}

/// The windows of `calendar` or `recurring`, in order and unclipped. The first is the one that contains `startsAt` or
/// follows it; the last opens at or before `until`.
///
/// "A window that contains no instant does not exist."
pub(crate) fn bounded_windows(c: &Campaign, until: Instant) -> Vec<(Instant, Instant)> {
    let mut windows = Vec::new();
    match &c.window {
        // "Blocks are counted from the unit that contains `startsAt`; bounds at local `dayStartsAt` of their first day." "A block
        // is one window."
        Window::Calendar { unit, every, week_starts_on, day_starts_at } => {
            let first = unit_that_contains(c, *unit, *week_starts_on, *day_starts_at);
            let begins = |date| zone::bound(&c.zone, zone::clock(date, *day_starts_at));
            for block in 0.. {
                let opens = begins(plus_units(*unit, first, block * i64::from(*every)));
                let closes = begins(plus_units(*unit, first, (block + 1) * i64::from(*every)));
                if opens > until {
                    break;
                }
                windows.push((opens, closes));
            }
        }
        // "`from` and `to` are local times in the `timeZone` of the campaign. If `to` is not after `from`, the window
        // closes on the next day, and it belongs to the weekday on which it opened. If `to` equals `from`, the window
        // lasts one local day."
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
        _ => unreachable!("only `calendar` and `recurring` have such bounds"),
    }
    windows.retain(|(opens, closes)| opens < closes && c.starts_at < *closes);
    windows
}

/// The first date of the unit that contains `startsAt`. Near a clock change, this can be another unit than that of the
/// date that the clock shows.
fn unit_that_contains(c: &Campaign, unit: Unit, week_starts_on: u8, day_starts_at: (u8, u8)) -> Date {
    let begins = |date| zone::bound(&c.zone, zone::clock(date, day_starts_at));
    let shown = zone::date_shown(&c.zone, c.starts_at);
    (-3..=3)
        .map(|days| first_date(unit, week_starts_on, zone::plus_days(shown, days)))
        .find(|first| begins(*first) <= c.starts_at && c.starts_at < begins(plus_units(unit, *first, 1)))
        .expect("units follow each other without a hole")
}

/// The first date of the unit that contains a date.
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

/// 0 is Monday, 6 is Sunday.
fn weekday(date: Date) -> u8 {
    u8::try_from(date.weekday().to_monday_zero_offset()).expect("0 to 6")
}

// ── Goals and awards ──

/// "`everyPurchase` gives an award at each purchase." `ordinal` is "always 1 for `everyPurchase`", and the evidence is
/// "the purchase itself".
fn every_purchase(c: &Campaign, groups: &[Group]) -> Vec<Uncapped> {
    let mut awards = Vec::new();
    for (window, group) in groups.iter().enumerate() {
        for p in &group.purchases {
            let points = p.points;
            // "An award of zero points does not exist: it has no ordinal and takes no place under a cap."
            if points == 0 {
                continue;
            }
            let award = Award {
                purchase: p.external_id.clone(),
                nth: 1,
                ordinal: 1,
                points,
                points_before_cap: points,
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

/// The goals `purchases`, `spend` and `distinct`: "The engine counts the eligible purchases of a window in order."
fn counted_in_windows(c: &Campaign, goal: &Goal, groups: &[Group]) -> Vec<Uncapped> {
    let mut awards = Vec::new();
    for (window, group) in groups.iter().enumerate() {
        let reaching = reaching(goal, &group.purchases);
        for (i, &at) in reaching.iter().enumerate() {
            // "the eligible purchases of the window after the one that reached the previous ordinal, up to and
            // including the reaching one". "For `spend`, the purchase that reached the previous ordinal is included
            // too, because its excess carries over."
            let from = match (i.checked_sub(1), goal) {
                (None, _) => 0,
                (Some(previous), Goal::Spend { .. } | Goal::Units { .. }) => reaching[previous],
                (Some(previous), _) => reaching[previous] + 1,
            };
            let p = &group.purchases[at];
            let award = Award {
                purchase: p.external_id.clone(),
                nth: to_u32(reaching[..=i].iter().filter(|other| **other == at).count()),
                // "`ordinal` is 1, 2, 3 … among the awards of one window, before caps are applied."
                ordinal: to_i64(i + 1),
                points: p.points,
                points_before_cap: p.points,
                // "`earnedAt` is the `purchasedAt` of the reaching purchase."
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
            // "the n-th purchase, where n is `atLeast`; with `repeat` also the 2n-th, the 3n-th, and so on"
            Goal::Purchases { n, repeat: false } => i64::from(to_u32(after.len()) == *n),
            Goal::Purchases { n, repeat: true } => i64::from(to_u32(after.len()).is_multiple_of(*n)),
            // "the purchase at which the sum of the eligible amounts reaches `amount`; with `repeat` at each further
            // multiple"
            Goal::Spend { minor, repeat: false } => i64::from(sum(before) < *minor && sum(after) >= *minor),
            // "One purchase can reach several multiples at once. It gives at most 100 awards; further multiples count
            // as reached and give no award."
            Goal::Spend { minor, repeat: true } => (sum(after) / minor - sum(before) / minor).min(100),
            // "the purchase at which `atLeast` different `SKU`s or `CATEGORY`s have been bought"
            // "the purchase at which the sum of units of matching lines reaches n; with `repeat` each further multiple, as for
            // `spend`"
            Goal::Units { n, repeat } => {
                let (n, before, after) = (i64::from(*n), all_units(before), all_units(after));
                if *repeat { (after / n - before / n).min(100) } else { i64::from(before < n && after >= n) }
            }
            Goal::Distinct { n, .. } => i64::from(different(before) < *n && different(after) >= *n),
            Goal::EveryPurchase | Goal::Streak { .. } => unreachable!("they have functions of their own"),
        };
        reaching.extend((0..times).map(|_| i));
    }
    reaching
}

/// The closing bound of an award's window. For a session: "The window of an award is the session as it was when the
/// goal was reached: `[first purchase, reaching purchase + gap)`."
fn closes_at(c: &Campaign, group: &Group, reaching: &Counted) -> Option<Instant> {
    match c.window {
        Window::Session { gap } => Some(reaching.at + gap),
        _ => group.closes_at,
    }
}

/// "At a purchase at instant t, it counts that purchase and all earlier ones that have `purchasedAt > t − duration` and
/// that no earlier award has used. If these reach the goal, the award uses up **all** of them."
fn rolling(goal: &Goal, duration: i64, eligible: &[Counted]) -> Vec<Uncapped> {
    rolling_completions(goal, duration, eligible)
        .into_iter()
        .enumerate()
        .map(|(window, evidence)| {
            let (first, reaching) = (&evidence[0], &evidence[evidence.len() - 1]);
            let award = Award {
                purchase: reaching.external_id.clone(),
                nth: 1,
                // "It is always 1 for `everyPurchase`, `rolling` and `streak`."
                ordinal: 1,
                points: reaching.points,
                points_before_cap: reaching.points,
                earned_at: reaching.at,
                // "It lasts from the first purchase of the evidence to `earnedAt`, and contains both instants."
                opens_at: Some(first.at),
                closes_at: Some(reaching.at),
                // "all purchases that the award used up"
                evidence: ids(&evidence),
            };
            Uncapped { window, award }
        })
        .collect()
}

/// The purchases that each award of a `rolling` campaign used up.
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
            Goal::Units { n, .. } => all_units(&counted) >= i64::from(*n),
            Goal::Distinct { n, .. } => different(&counted) >= *n,
            Goal::EveryPurchase | Goal::Streak { .. } => unreachable!("refused at creation"),
        };
        if reached {
            completions.push(counted);
        }
    }
    completions
}

/// "the k-th purchase of the last of `length` **consecutive** windows with at least k purchases each". "With `repeat`,
/// counting starts again at the next window after an award. Without `repeat`, only the first streak of a customer gives
/// an award."
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
            points: p.points,
            points_before_cap: p.points,
            earned_at: p.at,
            // "The window of the award is the last window of the streak."
            opens_at: Some(last.opens_at),
            closes_at: last.closes_at,
            // "the first k purchases of each of the windows"
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

/// "`points(n)`, n ≥ 1; or `pointsPerUnit(rate, rates)`: `floor(Σ (part of the eligible amount in major units × its rate))`, rounded
/// once". "`pointsPerUnit` stops" at 10⁹.
fn points(c: &Campaign, p: &Purchase) -> i64 {
    let eligible = i128::from(eligible_amount(c, p));
    let rated = match &c.award {
        AwardRule::Points(n) => return *n,
        AwardRule::PointsPerUnit { rate_micro } => eligible * i128::from(*rate_micro),
        AwardRule::PointsByCategory { rate_micro, rates } => {
            let matching: Vec<(&Line, i128)> = p
                .lines
                .iter()
                .zip(line_nets(p))
                .filter(|(line, _)| line_matches(c, line))
                .map(|(line, net)| (line, i128::from(net)))
                .collect();
            let together: i128 = matching.iter().map(|(_, net)| net).sum();
            // "where all matching lines together exceed the eligible amount, each counts as `floor(net(line) × eligible / their sum)`"
            let counts = |net: i128| if together > eligible { net * eligible / together } else { net };
            // "each matching line's net goes by the first of `rates` whose `categories` has its category, all the rest by `rate`"
            let rate_of = |line: &Line| {
                let named =
                    rates.iter().find(|(names, _)| line.category.as_ref().is_some_and(|own| names.contains(own)));
                named.map(|(_, rate)| i128::from(*rate))
            };
            let parts: Vec<(i128, i128)> =
                matching.iter().filter_map(|(line, net)| Some((counts(*net), rate_of(line)?))).collect();
            let rest = eligible - parts.iter().map(|(part, _)| part).sum::<i128>();
            parts.iter().map(|(part, rate)| part * rate).sum::<i128>() + rest * i128::from(*rate_micro)
        }
    };
    narrow((rated / (10_i128.pow(c.currency_exponent) * 1_000_000)).min(1_000_000_000))
}

pub(crate) fn sum(purchases: &[Counted]) -> i64 {
    purchases.iter().map(|p| p.amount).sum()
}

pub(crate) fn all_units(purchases: &[Counted]) -> i64 {
    purchases.iter().map(|p| p.units).sum()
}

pub(crate) fn different(purchases: &[Counted]) -> u32 {
    to_u32(purchases.iter().flat_map(|p| &p.kinds).collect::<BTreeSet<_>>().len())
}

fn ids(purchases: &[Counted]) -> Vec<String> {
    purchases.iter().map(|p| p.external_id.clone()).collect()
}

/// The next window of `recurring` opens within this span, even across clock changes.
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
