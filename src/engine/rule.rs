//! The rule of a campaign (filter → window → goal → award) and its period: which rules are legal, and which purchases are
//! eligible.

use serde::{Deserialize, Serialize};

use super::award::{AwardRule, CategoryRates, MAX_RATES};
use super::dates::{Dates, end_of};
use super::goal::{DistinctOf, Goal};
use super::money::Currency;
use super::purchase::{Key, Line, Purchase, Rounding};
use super::time::{Instant, IsoDuration, LocalTime};
use super::window::{Interval, WindowRule};
use super::zone::Zone;

/// What a campaign counts and awards. The rule is fixed from activation on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The zone of the local times that bound calendar and recurring windows.
    pub time_zone: Zone,
    /// Purchases in another currency do not count.
    pub currency: Currency,
    #[serde(default)]
    pub filter: Filter,
    pub window: WindowRule,
    pub goal: Goal,
    pub award: AwardRule,
    /// How many awards of a customer are kept at most, at least 1. The first ones in award order are kept.
    pub max_per_customer: Option<i32>,
    /// How many awards of a window are kept at most, at least 1. The first ones in award order are kept.
    pub max_per_window: Option<i32>,
    /// How many points the awards of a customer have at most, at least 1. The award that exceeds them gets what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_points_per_customer: Option<i64>,
    /// How many points the awards of a window have at most, at least 1. The award that exceeds them gets what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_points_per_window: Option<i64>,
    /// How long after the end late purchases and refunds still count.
    pub lateness: IsoDuration,
    /// How long points are pending after `earnedAt`.
    pub hold_for: Option<IsoDuration>,
    /// How long points can be spent.
    pub expires_after: Option<IsoDuration>,
}

/// Which purchases count. A field that is `None` sets no condition, and an empty list is not legal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The least eligible amount in minor units, above 0.
    pub min_amount: Option<i64>,
    /// The channel of the purchase must be one of these.
    pub channels: Option<Vec<String>>,
    /// A line matches only if its category is one of these. At least one line must match.
    pub categories: Option<Vec<String>>,
    /// A line matches only if its sku is one of these. At least one line must match.
    pub skus: Option<Vec<String>>,
    /// A line whose category is one of these is excluded: it matches nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_categories: Option<Vec<String>>,
    /// A line whose sku is one of these is excluded: it matches nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded_skus: Option<Vec<String>>,
}

/// When a campaign counts purchases: its recorded boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first instant of the period.
    pub starts_at: Instant,
    /// The first instant after the period. `None` if the period has no end.
    pub ends_at: Option<Instant>,
    /// In order. Only the last pause can be open.
    pub pauses: Vec<Pause>,
}

/// An interval in which purchases do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The first instant of the pause.
    pub from: Instant,
    /// The first instant after the pause. `None` if the campaign is not resumed yet.
    pub to: Option<Instant>,
}

impl Period {
    /// Returns `[startsAt, endsAt)`, pauses included.
    pub fn interval(&self) -> Interval {
        Interval { opens: self.starts_at, closes: self.ends_at.unwrap_or(Instant::FOREVER) }
    }

    /// Whether the instant is inside the period and in no pause.
    pub fn contains(&self, at: Instant) -> bool {
        let paused = |pause: &Pause| pause.from <= at && pause.to.is_none_or(|to| at < to);
        self.interval().contains(at) && !self.pauses.iter().any(paused)
    }
}

/// What decides which purchases count in a campaign and which awards they reach.
#[derive(Clone, Copy, Debug)]
pub struct Campaign<'a> {
    pub rule: &'a Rule,
    pub period: &'a Period,
    /// The revision of the campaign set at which the campaign was settled, if it is settled. Facts recorded since then do not
    /// count.
    pub settled_revision: Option<i64>,
}

/// What an eligible purchase contributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eligible {
    /// The place in the order of the customer's purchases.
    pub key: Key,
    /// The eligible amount in minor units, above 0.
    pub amount: i64,
    /// What an award that this purchase reaches is worth.
    pub points: i64,
    /// What the purchase adds to the sum of a [`Goal::Spend`] or [`Goal::Units`]: the eligible amount or the units. 0 for other
    /// goals.
    pub adds: i64,
    /// The different articles or categories of the matching lines with a net above 0, sorted. Empty unless the goal is
    /// [`Goal::Distinct`].
    pub items: Vec<String>,
}

impl Rule {
    /// Whether points of the campaign wait or expire.
    pub const fn dates_points(&self) -> bool {
        self.hold_for.is_some() || self.expires_after.is_some()
    }

    /// Returns the dates of points that were earned at this instant.
    pub fn dates(&self, earned_at: Instant) -> Dates {
        let day_starts_at = match &self.window {
            WindowRule::Calendar(calendar) => calendar.day_starts_at,
            _ => LocalTime::default(),
        };
        let end = |span: &IsoDuration, begin| end_of(span, begin, &self.time_zone, day_starts_at);
        let available_at = self.hold_for.as_ref().and_then(|span| end(span, earned_at));
        let begin = available_at.unwrap_or(earned_at);
        Dates { available_at, expires_at: self.expires_after.as_ref().and_then(|span| end(span, begin)) }
    }

    /// Whether a cap may give an award fewer points than its goal does.
    pub const fn caps_points(&self) -> bool {
        self.max_points_per_customer.is_some() || self.max_points_per_window.is_some()
    }

    /// Returns the fewest points that an award can have.
    pub const fn least_points(&self) -> i64 {
        if self.caps_points() { 1 } else { self.award.least() }
    }

    /// Whether what a purchase contributes depends on its lines.
    pub fn reads_lines(&self) -> bool {
        let goal = matches!(self.goal, Goal::Distinct { .. } | Goal::Units { .. });
        let award = matches!(self.award, AwardRule::PointsByCategory(_));
        goal || award || self.filter.names_lines() || self.filter.excludes()
    }

    /// Returns what a purchase with this net contributes, apart from its instant and currency. Returns `None` if its lines do not
    /// count. See "Eligible purchases" in `docs/semantics.md`.
    fn count(&self, purchase: &Purchase, net: i64) -> Option<Eligible> {
        let filter = &self.filter;
        let lines = if self.reads_lines() { purchase.lines.as_slice() } else { &[] };
        let nets = if lines.is_empty() { Vec::new() } else { purchase.net_lines(Rounding::Down) };
        let matching = lines.iter().zip(nets.iter().copied()).filter(|(line, _)| filter.matches(line));
        let amount = if filter.names_lines() {
            matching.clone().next()?;
            let sum: i128 = matching.clone().map(|(_, net)| i128::from(net)).sum();
            i64::try_from(sum).unwrap_or(i64::MAX).min(net)
        } else if filter.excludes() && !lines.is_empty() {
            matching.clone().find(|(_, net)| *net > 0)?;
            // What is excluded is rounded up, so that no part of it counts.
            let excluded =
                lines.iter().zip(purchase.net_lines(Rounding::Up)).filter(|(line, _)| filter.is_excluded(line));
            let sum: i128 = excluded.map(|(_, net)| i128::from(net)).sum();
            i64::try_from((i128::from(net) - sum).max(0)).unwrap_or(net)
        } else {
            net
        };
        let adds = match self.goal {
            Goal::Spend { .. } => amount,
            Goal::Units { .. } => Some(units(matching.clone())).filter(|units| *units > 0)?,
            _ => 0,
        };
        let mut items = Vec::new();
        if let Goal::Distinct { of, .. } = self.goal {
            items.extend(matching.clone().filter(|(_, net)| *net > 0).filter_map(|(line, _)| match of {
                DistinctOf::Sku => Some(line.sku.clone()),
                DistinctOf::Category => line.category.clone(),
            }));
            items.sort_unstable();
            items.dedup();
        }
        let by_category = matching.map(|(line, net)| (line.category.as_deref(), net));
        let points = self.award.points(amount, by_category, self.currency);
        Some(Eligible { key: purchase.key.clone(), amount, points, adds, items })
    }
}

impl Filter {
    fn names_lines(&self) -> bool {
        self.categories.is_some() || self.skus.is_some()
    }

    fn excludes(&self) -> bool {
        self.excluded_categories.is_some() || self.excluded_skus.is_some()
    }

    fn is_excluded(&self, line: &Line) -> bool {
        let named = |list: &Option<Vec<String>>, value: Option<&String>| {
            list.as_ref().zip(value).is_some_and(|(list, value)| list.contains(value))
        };
        named(&self.excluded_categories, line.category.as_ref()) || named(&self.excluded_skus, Some(&line.sku))
    }

    fn matches(&self, line: &Line) -> bool {
        among(&self.categories, line.category.as_ref()) && among(&self.skus, Some(&line.sku)) && !self.is_excluded(line)
    }
}

/// Returns the units of lines with these nets: each line has the part of its quantity that is left, in millionths, and the sum is
/// rounded to the nearest whole number, half up. A line whose amount is 0 has none.
fn units<'a>(lines: impl Iterator<Item = (&'a Line, i64)>) -> i64 {
    const MILLION: i128 = 1_000_000;
    let millionths = lines
        .filter(|(line, _)| line.amount > 0)
        .map(|(line, net)| i128::from(line.quantity) * i128::from(net) * MILLION / i128::from(line.amount));
    i64::try_from((millionths.sum::<i128>() + MILLION / 2) / MILLION).unwrap_or(i64::MAX)
}

/// Whether the value is in the list. No list means that every value is.
fn among(list: &Option<Vec<String>>, value: Option<&String>) -> bool {
    list.as_ref().is_none_or(|list| value.is_some_and(|value| list.contains(value)))
}

impl Campaign<'_> {
    /// Returns the window that contains `at` if the bounds of the rule's windows depend on time alone.
    pub(super) fn fixed_window(&self, at: Instant) -> Option<Interval> {
        let Self { rule, period, .. } = self;
        match &rule.window {
            WindowRule::Calendar(calendar) => Some(calendar.window_at(&rule.time_zone, period.starts_at, at)),
            WindowRule::Recurring(recurring) => recurring.window_at(&rule.time_zone, at),
            _ => None,
        }
    }

    /// Whether the window `next` directly follows the window `before`, as a streak requires.
    pub(super) fn follows(&self, before: Interval, next: Interval) -> bool {
        match &self.rule.window {
            WindowRule::Recurring(recurring) => {
                let after = recurring.next_window(&self.rule.time_zone, before.opens);
                after.is_some_and(|after| after.opens == next.opens)
            }
            _ => before.closes == next.opens,
        }
    }

    /// Returns what the purchase contributes, or `None` if it is not eligible.
    pub fn eligible(&self, purchase: &Purchase) -> Option<Eligible> {
        self.contribution(purchase.counted(self.settled_revision)?.as_ref())
    }

    fn contribution(&self, purchase: &Purchase) -> Option<Eligible> {
        let Self { rule, period, .. } = self;
        let filter = &rule.filter;
        if !period.contains(purchase.key.at)
            || purchase.currency != rule.currency
            || !among(&filter.channels, purchase.channel.as_ref())
        {
            return None;
        }
        let net = purchase.net();
        let eligible = rule.count(purchase, net)?;
        if let WindowRule::Recurring(recurring) = &rule.window {
            // A purchase outside every occurrence is not eligible.
            recurring.window_at(&rule.time_zone, purchase.key.at)?;
        }
        let least = filter.min_amount.unwrap_or(1);
        (net > 0 && eligible.amount >= least).then_some(eligible)
    }
}

/// A part of a rule that is not legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path to the part, in the names of the API.
    pub path: &'static [&'static str],
    pub reason: FaultReason,
}

/// Why a part of a rule is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultReason {
    /// The value is outside its limits, which the text states.
    OutOfRange(&'static str),
    /// The part cannot be combined with another part, which the text names.
    Unsupported(&'static str),
}

/// Returns everything that is wrong with a rule and its period; nothing if they are legal. The limits are those of
/// `docs/semantics.md` ("Limits" and "Goals"). The caller checks those of texts, decimals and the number of list entries.
pub fn faults(rule: &Rule, period: &Period) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut range = |holds: bool, path: &'static [&'static str], allowed: &'static str| {
        if !holds {
            faults.push(Fault { path, reason: FaultReason::OutOfRange(allowed) });
        }
    };
    let span = |span: &IsoDuration| (1..=IsoDuration::MAX_MICROS).contains(&span.micros());
    const SPAN: &str = "must be above zero and at most P3660D";
    const ONE: &str = "must be at least 1";
    let money = |minor: i64| (1..=super::money::MAX_MINOR).contains(&minor);
    const MONEY: &str = "must be above zero and at most 10^13 minor units";
    const LIST: &str = "must not be empty";

    range(period.starts_at >= Instant::EPOCH, &["startsAt"], "must not be before 1970");
    range(period.ends_at.is_none_or(|end| period.starts_at < end), &["endsAt"], "must be after startsAt");
    range(rule.filter.min_amount.is_none_or(money), &["filter", "minAmount"], MONEY);
    let listed = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|list| !list.is_empty());
    range(listed(&rule.filter.channels), &["filter", "channels"], LIST);
    range(listed(&rule.filter.categories), &["filter", "categories"], LIST);
    range(listed(&rule.filter.skus), &["filter", "skus"], LIST);
    range(listed(&rule.filter.excluded_categories), &["filter", "excludedCategories"], LIST);
    range(listed(&rule.filter.excluded_skus), &["filter", "excludedSkus"], LIST);
    match &rule.window {
        WindowRule::Campaign => {}
        WindowRule::Calendar(calendar) => range(calendar.every >= 1, &["window", "calendar", "every"], ONE),
        WindowRule::Recurring(recurring) => {
            range(!recurring.weekdays.is_empty(), &["window", "recurring", "weekdays"], LIST);
        }
        WindowRule::Session { gap } => range(span(gap), &["window", "session", "gap"], SPAN),
        WindowRule::Timer { duration, .. } => range(span(duration), &["window", "timer", "duration"], SPAN),
        WindowRule::Rolling { duration } => range(span(duration), &["window", "rolling", "duration"], SPAN),
    }
    match &rule.goal {
        Goal::EveryPurchase => {}
        Goal::Purchases { at_least, .. } => range(*at_least >= 1, &["goal", "purchases", "atLeast"], ONE),
        Goal::Spend { at_least, .. } => range(money(*at_least), &["goal", "spend", "amount"], MONEY),
        Goal::Units { at_least, .. } => range(*at_least >= 1, &["goal", "units", "atLeast"], ONE),
        Goal::Distinct { at_least, .. } => {
            let legal = (1..=super::goal::MAX_DISTINCT).contains(at_least);
            range(legal, &["goal", "distinct", "atLeast"], "must be 1 to 1000");
        }
        Goal::Streak { length, purchases_per_window, .. } => {
            range(*length >= 1, &["goal", "streak", "length"], ONE);
            range(*purchases_per_window >= 1, &["goal", "streak", "purchasesPerWindow"], ONE);
        }
    }
    match &rule.award {
        AwardRule::Points(points) => {
            let legal = (1..=super::award::MAX_POINTS).contains(points);
            range(legal, &["award", "points"], "must be 1 to 10^9");
        }
        AwardRule::PointsPerUnit(rate) => {
            range(rate.is_within(1), &["award", "pointsPerUnit"], "must be above zero and at most 10000");
        }
        AwardRule::PointsByCategory(CategoryRates { rate, rates }) => {
            const RATE: &[&str] = &["award", "pointsByCategory", "rate"];
            const RATES: &[&str] = &["award", "pointsByCategory", "rates"];
            range(rate.is_within(1), RATE, "must be above zero and at most 10000");
            range((1..=MAX_RATES).contains(&rates.len()), RATES, "must have 1 to 100 entries");
            range(rates.iter().all(|one| !one.categories.is_empty()), RATES, "must name at least one category each");
            range(rates.iter().all(|one| one.rate.is_within(0)), RATES, "must have rates of 0 to 10000");
        }
    }
    range(rule.max_per_customer.is_none_or(|cap| cap >= 1), &["maxPerCustomer"], ONE);
    range(rule.max_per_window.is_none_or(|cap| cap >= 1), &["maxPerWindow"], ONE);
    range(rule.max_points_per_customer.is_none_or(|cap| cap >= 1), &["maxPointsPerCustomer"], ONE);
    range(rule.max_points_per_window.is_none_or(|cap| cap >= 1), &["maxPointsPerWindow"], ONE);
    range(span(&rule.lateness), &["lateness"], SPAN);
    range(rule.hold_for.as_ref().is_none_or(span), &["holdFor"], SPAN);
    range(rule.expires_after.as_ref().is_none_or(span), &["expiresAfter"], SPAN);
    faults.extend(unsupported(rule));
    faults
}

/// Returns the parts that cannot be combined with others.
fn unsupported(rule: &Rule) -> Vec<Fault> {
    let rolling = matches!(rule.window, WindowRule::Rolling { .. });
    let streak = matches!(rule.goal, Goal::Streak { .. });
    let per_unit = !matches!(rule.award, AwardRule::Points(_)) && rule.goal != Goal::EveryPurchase;
    let small_repeat = match rule.goal {
        Goal::Spend { at_least, repeat: true } => at_least < rule.currency.minor_per_major(),
        _ => false,
    };
    let rules: [(bool, &'static [&'static str], &'static str); 8] = [
        (
            rolling && (streak || rule.goal.repeats()),
            &["goal"],
            "a rolling window cannot be combined with everyPurchase, streak or repeat",
        ),
        (
            rolling && rule.max_per_window.is_some(),
            &["maxPerWindow"],
            "a rolling window cannot be combined with maxPerWindow",
        ),
        (
            rolling && rule.max_points_per_window.is_some(),
            &["maxPointsPerWindow"],
            "a rolling window cannot be combined with maxPointsPerWindow",
        ),
        (
            streak && !rolling && !matches!(rule.window, WindowRule::Calendar(_) | WindowRule::Recurring(_)),
            &["goal"],
            "a streak requires a calendar or recurring window",
        ),
        (streak && rule.max_per_window.is_some(), &["maxPerWindow"], "a streak cannot be combined with maxPerWindow"),
        (
            streak && rule.max_points_per_window.is_some(),
            &["maxPointsPerWindow"],
            "a streak cannot be combined with maxPointsPerWindow",
        ),
        (small_repeat, &["goal", "spend", "amount"], "a spend goal with repeat requires at least one major unit"),
        (per_unit, &["award"], "points per unit require the goal everyPurchase"),
    ];
    rules
        .into_iter()
        .filter(|(found, ..)| *found)
        .map(|(_, path, reason)| Fault { path, reason: FaultReason::Unsupported(reason) })
        .collect()
}
