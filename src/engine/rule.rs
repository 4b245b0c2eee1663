//! A campaign's rule over its period: filter → window → goal → award. What is legal, and what is eligible.

use serde::{Deserialize, Serialize};

use super::award::AwardRule;
use super::goal::{DistinctOf, Goal};
use super::money::Currency;
use super::purchase::{Key, Purchase};
use super::time::{Instant, Span};
use super::window::{Interval, WindowRule};
use super::zone::Zone;

/// What a campaign counts and awards. Fixed from activation on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// For calendar and recurring windows.
    pub time_zone: Zone,
    /// A purchase in another does not count.
    pub currency: Currency,
    /// Which purchases count.
    #[serde(default)]
    pub filter: Filter,
    /// How they are grouped.
    pub window: WindowRule,
    /// What must be reached in a window.
    pub goal: Goal,
    /// What that is worth.
    pub award: AwardRule,
    /// A customer's first so many awards, ≥ 1.
    pub max_per_customer: Option<i32>,
    /// A window's first so many awards, ≥ 1.
    pub max_per_window: Option<i32>,
    /// How long after the end late purchases and refunds count.
    pub lateness: Span,
    /// How long points are pending.
    pub hold_for: Option<Span>,
    /// How long points can be spent.
    pub expires_after: Option<Span>,
}

/// Which purchases count. An empty list is not legal; none asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Minor units, > 0.
    pub min_amount: Option<i64>,
    /// The purchase's channel is one of them.
    pub channels: Option<Vec<String>>,
    /// At least one line's category is one of them.
    pub categories: Option<Vec<String>>,
    /// At least one line's article is one of them.
    pub skus: Option<Vec<String>>,
}

/// When a campaign counts: its recorded boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// First instant.
    pub starts_at: Instant,
    /// First instant after; none: open-ended.
    pub ends_at: Option<Instant>,
    /// In which purchases do not count; the last may be open.
    pub pauses: Vec<Pause>,
}

/// A stretch in which purchases do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// First instant.
    pub from: Instant,
    /// First instant after; none: not resumed yet.
    pub to: Option<Instant>,
}

impl Period {
    /// `[startsAt, endsAt)`.
    pub fn interval(&self) -> Interval {
        Interval { opens: self.starts_at, closes: self.ends_at.unwrap_or(Instant::FOREVER) }
    }

    /// Inside the period and in no pause.
    pub fn contains(&self, at: Instant) -> bool {
        let paused = |pause: &Pause| pause.from <= at && pause.to.is_none_or(|to| at < to);
        self.interval().contains(at) && !self.pauses.iter().any(paused)
    }
}

/// A campaign as the fold sees it.
#[derive(Clone, Copy, Debug)]
pub struct Campaign<'a> {
    /// What it counts.
    pub rule: &'a Rule,
    /// When.
    pub period: &'a Period,
}

/// What an eligible purchase contributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eligible {
    /// Its place in the customer's order.
    pub key: Key,
    /// Eligible amount in minor units, > 0.
    pub amount: i64,
    /// The different articles or categories of its matching lines, sorted; empty unless the goal tells them apart.
    pub items: Vec<String>,
}

impl Rule {
    /// The most awards that a customer can have: the lower of the caps that bind all of them.
    pub fn most_awards(&self) -> Option<i64> {
        let per_window = self.max_per_window.filter(|_| self.window.is_only_one());
        self.max_per_customer.into_iter().chain(per_window).min().map(i64::from)
    }

    /// Whether what a purchase contributes depends on its lines.
    pub fn reads_lines(&self) -> bool {
        self.filter.names_lines() || matches!(self.goal, Goal::Distinct { .. })
    }
}

impl Filter {
    fn names_lines(&self) -> bool {
        self.categories.is_some() || self.skus.is_some()
    }
}

impl Campaign<'_> {
    /// What the purchase contributes; none: it does not count.
    pub fn eligible(&self, purchase: &Purchase) -> Option<Eligible> {
        let Self { rule, period } = self;
        let filter = &rule.filter;
        let among = |list: &Option<Vec<String>>, value: Option<&String>| {
            list.as_ref().is_none_or(|list| value.is_some_and(|value| list.contains(value)))
        };
        if !period.contains(purchase.key.at)
            || purchase.currency != rule.currency
            || !among(&filter.channels, purchase.channel.as_ref())
        {
            return None;
        }
        let net = purchase.net();
        let distinct = if let Goal::Distinct { of, .. } = rule.goal { Some(of) } else { None };
        let mut amount = net;
        let mut items = Vec::new();
        if filter.names_lines() || distinct.is_some() {
            let matches = |line: &&super::purchase::Line| {
                among(&filter.categories, line.category.as_ref()) && among(&filter.skus, Some(&line.sku))
            };
            if filter.names_lines() && !purchase.lines.iter().any(|line| matches(&line)) {
                return None;
            }
            let net_lines = purchase.net_lines();
            let matching = || purchase.lines.iter().zip(&net_lines).filter(|(line, _)| matches(line));
            if filter.names_lines() {
                let sum: i128 = matching().map(|(_, net)| i128::from(*net)).sum();
                amount = i64::try_from(sum).unwrap_or(i64::MAX).min(net);
            }
            if let Some(of) = distinct {
                items.extend(matching().filter(|(_, net)| **net > 0).filter_map(|(line, _)| match of {
                    DistinctOf::Sku => Some(line.sku.clone()),
                    DistinctOf::Category => line.category.clone(),
                }));
                items.sort_unstable();
                items.dedup();
            }
        }
        if let WindowRule::Recurring(recurring) = &rule.window {
            // Purchases outside every occurrence do not count, whatever else they are.
            recurring.window_at(&rule.time_zone, purchase.key.at)?;
        }
        let enough = net > 0 && amount > 0 && filter.min_amount.is_none_or(|least| amount >= least);
        enough.then(|| Eligible { key: purchase.key.clone(), amount, items })
    }
}

/// A part of a rule that is not legal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Into the campaign, in the API's names.
    pub path: &'static [&'static str],
    /// Why.
    pub reason: FaultReason,
}

/// Why a part of a rule is not legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultReason {
    /// Outside its limits, which the text names.
    OutOfRange(&'static str),
    /// Not together with another part.
    Unsupported(&'static str),
}

/// All that is wrong with a rule and its period; empty: legal. Limits of the text's own ("Limits", "Goals").
pub fn faults(rule: &Rule, period: &Period) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut range = |holds: bool, path: &'static [&'static str], allowed: &'static str| {
        if !holds {
            faults.push(Fault { path, reason: FaultReason::OutOfRange(allowed) });
        }
    };
    let span = |span: &Span| (1..=Span::MAX_MICROS).contains(&span.micros());
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
            let most = super::award::MAX_RATE * 10_i64.pow(super::award::RATE_DECIMALS);
            let legal = (1..=most).contains(&rate.0);
            range(legal, &["award", "pointsPerUnit"], "must be above zero and at most 10000");
        }
    }
    range(rule.max_per_customer.is_none_or(|cap| cap >= 1), &["maxPerCustomer"], ONE);
    range(rule.max_per_window.is_none_or(|cap| cap >= 1), &["maxPerWindow"], ONE);
    range(span(&rule.lateness), &["lateness"], SPAN);
    range(rule.hold_for.as_ref().is_none_or(span), &["holdFor"], SPAN);
    range(rule.expires_after.as_ref().is_none_or(span), &["expiresAfter"], SPAN);
    faults.extend(unsupported(rule));
    faults
}

/// Parts that do not go together.
fn unsupported(rule: &Rule) -> Vec<Fault> {
    let rolling = matches!(rule.window, WindowRule::Rolling { .. });
    let streak = matches!(rule.goal, Goal::Streak { .. });
    let per_unit = matches!(rule.award, AwardRule::PointsPerUnit(_)) && rule.goal != Goal::EveryPurchase;
    let small_repeat = match rule.goal {
        Goal::Spend { at_least, repeat: true } => at_least < rule.currency.minor_per_major(),
        _ => false,
    };
    let rules: [(bool, &'static [&'static str], &'static str); 6] = [
        (
            rolling && (streak || rule.goal.repeats()),
            &["goal"],
            "a rolling window does not take everyPurchase, streak or repeat",
        ),
        (rolling && rule.max_per_window.is_some(), &["maxPerWindow"], "a rolling window does not take maxPerWindow"),
        (
            streak && !rolling && !matches!(rule.window, WindowRule::Calendar(_)),
            &["goal"],
            "a streak takes a calendar window",
        ),
        (streak && rule.max_per_window.is_some(), &["maxPerWindow"], "a streak does not take maxPerWindow"),
        (small_repeat, &["goal", "spend", "amount"], "a repeated spend goal takes at least one major unit"),
        (per_unit, &["award"], "pointsPerUnit takes the goal everyPurchase"),
    ];
    rules
        .into_iter()
        .filter(|(found, ..)| *found)
        .map(|(_, path, reason)| Fault { path, reason: FaultReason::Unsupported(reason) })
        .collect()
}
