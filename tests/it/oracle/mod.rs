//! A second implementation of `docs/semantics.md`, for tests alone: what a customer has reached, where they stand and
//! what is posted when history changes.
//!
//! It is written from the text only and knows nothing of the engine. Each rule stands beside the sentence it
//! transcribes; everything is computed again from the whole history; speed does not matter.

pub(crate) mod book;
pub(crate) mod generate;
pub(crate) mod progress;
pub(crate) mod reached;
mod tests;
pub(crate) mod zone;

/// µs since 1970-01-01T00:00Z.
pub(crate) type Instant = i64;

/// A span in µs.
pub(crate) type Span = i64;

pub(crate) const SECOND: Span = 1_000_000;
pub(crate) const MINUTE: Span = 60 * SECOND;
pub(crate) const HOUR: Span = 60 * MINUTE;
pub(crate) const DAY: Span = 24 * HOUR;

/// One customer's purchase with every refund known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purchase {
    pub(crate) external_id: String,
    pub(crate) at: Instant,
    /// Minor units, as are all amounts.
    pub(crate) total: i64,
    pub(crate) currency: String,
    pub(crate) channel: Option<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) refunds: Vec<Refund>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) sku: String,
    pub(crate) category: Option<String>,
    pub(crate) quantity: u32,
    pub(crate) amount: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refund {
    pub(crate) external_id: String,
    /// Resolved: the lines' sum, or the amount given, or the purchase's total.
    pub(crate) amount: i64,
    /// `(sku, amount)`.
    pub(crate) lines: Vec<(String, i64)>,
}

/// A campaign's rule with its recorded boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    pub(crate) starts_at: Instant,
    pub(crate) ends_at: Option<Instant>,
    /// `[paused, resumed)`; the last one may be open.
    pub(crate) pauses: Vec<(Instant, Option<Instant>)>,
    pub(crate) zone: String,
    pub(crate) currency: String,
    pub(crate) currency_exponent: u32,
    pub(crate) filter: Filter,
    pub(crate) window: Window,
    pub(crate) goal: Goal,
    pub(crate) award: AwardRule,
    pub(crate) max_per_customer: Option<i64>,
    pub(crate) max_per_window: Option<i64>,
    pub(crate) hold_for: Option<Span>,
    pub(crate) expires_after: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) min_amount: Option<i64>,
    pub(crate) channels: Option<Vec<String>>,
    pub(crate) categories: Option<Vec<String>>,
    pub(crate) skus: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Campaign,
    Calendar {
        unit: Unit,
        every: u32,
        /// 0 is Monday, 6 is Sunday.
        week_starts_on: u8,
    },
    Recurring {
        /// 0 is Monday, 6 is Sunday.
        weekdays: Vec<u8>,
        /// Hour and minute.
        from: (u8, u8),
        to: (u8, u8),
    },
    Session {
        gap: Span,
    },
    Timer {
        duration: Span,
        reopens: bool,
    },
    Rolling {
        duration: Span,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    EveryPurchase,
    Purchases { n: u32, repeat: bool },
    Spend { minor: i64, repeat: bool },
    Distinct { of_category: bool, n: u32 },
    Streak { length: u32, per_window: u32, repeat: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AwardRule {
    Points(i64),
    /// Points per major unit, × 10⁶.
    PointsPerUnit {
        rate_micro: i64,
    },
}

/// A reached award.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Award {
    /// `externalId` of the reaching purchase.
    pub(crate) purchase: String,
    /// n-th of the awards that this purchase reached at once, from 1. With `purchase` it names the award.
    pub(crate) nth: u32,
    pub(crate) ordinal: i64,
    pub(crate) points: i64,
    pub(crate) earned_at: Instant,
    /// The window's bounds, unclipped. Of the window `campaign`: `starts_at` and none, being the period itself.
    pub(crate) opens_at: Option<Instant>,
    pub(crate) closes_at: Option<Instant>,
    /// `externalId`s, oldest first.
    pub(crate) evidence: Vec<String>,
}

impl Goal {
    /// Whether the goal carries `repeat: true`.
    pub(crate) fn repeats(&self) -> bool {
        match self {
            Goal::EveryPurchase | Goal::Distinct { .. } => false,
            Goal::Purchases { repeat, .. } | Goal::Spend { repeat, .. } | Goal::Streak { repeat, .. } => *repeat,
        }
    }
}

impl Award {
    /// "**Award order**: `(earnedAt, externalId of the reaching purchase, ordinal)`."
    pub(crate) fn order(&self) -> (Instant, Vec<u8>, i64) {
        (self.earned_at, self.purchase.clone().into_bytes(), self.ordinal)
    }

    /// "*Name* of a reached award: campaign, reaching purchase, n-th of the awards that this purchase reached at once."
    pub(crate) fn name(&self) -> (String, u32) {
        (self.purchase.clone(), self.nth)
    }

    /// "`availableAt = earnedAt + holdFor`"
    pub(crate) fn available_at(&self, campaign: &Campaign) -> Instant {
        self.earned_at + campaign.hold_for.unwrap_or(0)
    }

    /// "`expiresAt = availableAt + expiresAfter`"
    pub(crate) fn expires_at(&self, campaign: &Campaign) -> Option<Instant> {
        campaign.expires_after.map(|after| self.available_at(campaign) + after)
    }
}

/// Whether the rule passes the refused combinations and the limits.
pub(crate) fn legal(c: &Campaign) -> bool {
    combination_is_supported(c) && limits_are_kept(c)
}

fn combination_is_supported(c: &Campaign) -> bool {
    let every_purchase = matches!(c.goal, Goal::EveryPurchase);
    let streak = matches!(c.goal, Goal::Streak { .. });

    // "`rolling` with `everyPurchase`, `streak`, `repeat` or `maxPerWindow`"
    if matches!(c.window, Window::Rolling { .. })
        && (every_purchase || streak || c.goal.repeats() || c.max_per_window.is_some())
    {
        return false;
    }
    // "`streak` with another window or `maxPerWindow`"
    if streak && (!matches!(c.window, Window::Calendar { .. }) || c.max_per_window.is_some()) {
        return false;
    }
    // "`pointsPerUnit` with another goal than `everyPurchase`"
    if matches!(c.award, AwardRule::PointsPerUnit { .. }) && !every_purchase {
        return false;
    }
    // "`spend` with `repeat` below one major unit"
    if let Goal::Spend { minor, repeat: true } = c.goal
        && minor < 10_i64.pow(c.currency_exponent)
    {
        return false;
    }
    true
}

fn limits_are_kept(c: &Campaign) -> bool {
    // "durations > 0 and ≤ `P3660D`"
    let span = |s: Span| s > 0 && s <= 3660 * DAY;
    let time = |(hour, minute): (u8, u8)| hour < 24 && minute < 60;
    // "n, k, length, every, caps and quantity ≥ 1"
    let cap = |cap: Option<i64>| cap.is_none_or(|n| n >= 1);
    // "empty filter lists are refused"
    let list = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|l| !l.is_empty());

    let window = match &c.window {
        Window::Campaign => true,
        Window::Calendar { every, week_starts_on, .. } => *every >= 1 && *week_starts_on <= 6,
        Window::Recurring { weekdays, from, to } => {
            !weekdays.is_empty() && weekdays.iter().all(|day| *day <= 6) && time(*from) && time(*to)
        }
        Window::Session { gap } => span(*gap),
        Window::Timer { duration, .. } | Window::Rolling { duration } => span(*duration),
    };
    let goal = match c.goal {
        Goal::EveryPurchase => true,
        Goal::Purchases { n, .. } => n >= 1,
        // "`distinct` n ≤ 1 000"
        Goal::Distinct { n, .. } => (1..=1_000).contains(&n),
        // "`atLeast` and `minAmount` > 0"
        Goal::Spend { minor, .. } => minor > 0,
        Goal::Streak { length, per_window, .. } => length >= 1 && per_window >= 1,
    };
    let award = match c.award {
        // "`points(n)`, n ≥ 1", "an award has at most 10⁹ points"
        AwardRule::Points(n) => (1..=1_000_000_000).contains(&n),
        // "rate > 0, ≤ 10⁴, ≤ 6 decimals"
        AwardRule::PointsPerUnit { rate_micro } => (1..=10_000 * 1_000_000).contains(&rate_micro),
    };
    window
        && goal
        && award
        && cap(c.max_per_customer)
        && cap(c.max_per_window)
        && c.hold_for.is_none_or(span)
        && c.expires_after.is_none_or(span)
        && c.filter.min_amount.is_none_or(|m| m > 0)
        && list(&c.filter.channels)
        && list(&c.filter.categories)
        && list(&c.filter.skus)
        // "`startsAt < endsAt`"
        && c.ends_at.is_none_or(|end| c.starts_at < end)
}
