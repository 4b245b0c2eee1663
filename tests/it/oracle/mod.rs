//! A second implementation of `docs/semantics.md`, for tests only: the reached awards of a customer, the progress, and
//! what is posted when history changes.
//!
//! It is written from that page alone and shares no code with the engine. Each rule stands beside the sentence or the
//! row of a table that it implements. Everything is computed from the whole history each time; speed does not matter.

pub(crate) mod book;
pub(crate) mod contents;
pub(crate) mod generate;
pub(crate) mod points;
pub(crate) mod progress;
pub(crate) mod reached;
mod tests;
pub(crate) mod zone;

/// An instant in microseconds since 1970-01-01T00:00Z.
pub(crate) type Instant = i64;

/// A span of time in microseconds.
pub(crate) type Span = i64;

pub(crate) const SECOND: Span = 1_000_000;
pub(crate) const MINUTE: Span = 60 * SECOND;
pub(crate) const HOUR: Span = 60 * MINUTE;
pub(crate) const DAY: Span = 24 * HOUR;

/// A purchase of one customer as its counting content has it, with all its recorded refunds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purchase {
    pub(crate) external_id: String,
    pub(crate) at: Instant,
    /// In minor units, like all amounts.
    pub(crate) total: i64,
    pub(crate) currency: String,
    pub(crate) channel: Option<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) refunds: Vec<Refund>,
    /// The running sum of the highest recorded revision that states one.
    pub(crate) sum: Option<Sum>,
}

/// A running sum of what was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) amount: i64,
    /// The currency of the amount.
    pub(crate) currency: String,
    /// The instant up to which the sum was counted.
    pub(crate) until: Option<Instant>,
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
    pub(crate) at: Instant,
    /// What the refund takes back: the sum of its lines or the amount given. `None`: the total of the purchase.
    pub(crate) amount: Option<i64>,
    /// The currency of the amounts.
    pub(crate) currency: String,
    /// Each line as `(sku, amount)`.
    pub(crate) lines: Vec<(String, i64)>,
}

/// The rule of a campaign, with its recorded boundaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Campaign {
    pub(crate) starts_at: Instant,
    pub(crate) ends_at: Option<Instant>,
    /// Each pause as `[paused, resumed)`. The last one may be open.
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
    pub(crate) max_points_per_customer: Option<i64>,
    pub(crate) max_points_per_window: Option<i64>,
    pub(crate) hold_for: Option<Span>,
    pub(crate) expires_after: Option<Span>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) min_amount: Option<i64>,
    pub(crate) channels: Option<Vec<String>>,
    pub(crate) categories: Option<Vec<String>>,
    pub(crate) skus: Option<Vec<String>>,
    pub(crate) excluded_categories: Option<Vec<String>>,
    pub(crate) excluded_skus: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Campaign,
    Calendar {
        unit: Unit,
        every: u32,
        /// 0 is Monday, 6 is Sunday.
        week_starts_on: u8,
        /// The local `(hour, minute)` at which a unit begins.
        day_starts_at: (u8, u8),
    },
    Recurring {
        /// 0 is Monday, 6 is Sunday.
        weekdays: Vec<u8>,
        /// The local `(hour, minute)` at which a window opens.
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
    Units { n: u32, repeat: bool },
    Streak { length: u32, per_window: u32, repeat: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AwardRule {
    Points(i64),
    /// Points per major unit of the currency, times 10⁶.
    PointsPerUnit {
        rate_micro: i64,
    },
    PointsByCategory {
        rate_micro: i64,
        /// Each as `(categories, rate)`.
        rates: Vec<(Vec<String>, i64)>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Award {
    /// The `externalId` of the reaching purchase.
    pub(crate) purchase: String,
    /// The position, from 1, among the awards that this purchase reached. With `purchase` it names the award.
    pub(crate) nth: u32,
    pub(crate) ordinal: i64,
    pub(crate) points: i64,
    /// What the goal gave before the caps in points.
    pub(crate) points_before_cap: i64,
    pub(crate) earned_at: Instant,
    /// The unclipped bounds of the window. For the window `campaign` they are `starts_at` and `None`.
    pub(crate) opens_at: Option<Instant>,
    pub(crate) closes_at: Option<Instant>,
    /// The `externalId`s of the evidence, oldest first.
    pub(crate) evidence: Vec<String>,
}

impl Goal {
    /// Whether the goal has `repeat: true`.
    pub(crate) fn repeats(&self) -> bool {
        match self {
            Goal::EveryPurchase | Goal::Distinct { .. } => false,
            Goal::Purchases { repeat, .. }
            | Goal::Spend { repeat, .. }
            | Goal::Units { repeat, .. }
            | Goal::Streak { repeat, .. } => *repeat,
        }
    }
}

impl Award {
    /// "**Award order** is the order by `(earnedAt, externalId of the reaching purchase, ordinal)`."
    pub(crate) fn order(&self) -> (Instant, Vec<u8>, i64) {
        (self.earned_at, self.purchase.clone().into_bytes(), self.ordinal)
    }

    /// "The *name* of a reached award consists of the customer, the campaign, the reaching purchase, and the position
    /// (1, 2, 3 …) among the awards that this purchase reached." The customer and the campaign are the same for all
    /// awards here.
    pub(crate) fn name(&self) -> (String, u32) {
        (self.purchase.clone(), self.nth)
    }

    /// "`availableAt = earnedAt + holdFor` (without: none, available when posted)"
    pub(crate) fn available_at(&self, campaign: &Campaign) -> Option<Instant> {
        campaign.hold_for.map(|span| campaign.end_of(span, self.earned_at))
    }

    /// "`expiresAt = availableAt (or earnedAt) + expiresAfter`"
    pub(crate) fn expires_at(&self, campaign: &Campaign) -> Option<Instant> {
        let begin = self.available_at(campaign).unwrap_or(self.earned_at);
        campaign.expires_after.map(|span| campaign.end_of(span, begin))
    }

    /// What distinguishes the lot of the points while they are pending.
    pub(crate) fn dates(&self, campaign: &Campaign) -> (Option<Instant>, Option<Instant>) {
        (self.available_at(campaign), self.expires_at(campaign))
    }
}

impl Campaign {
    /// "A span that is a multiple of 24 hours is local days (the campaign's zone; `dayStartsAt`, else midnight), counted from the next
    /// start of one, or from its begin where that is a start; any other is exact."
    fn end_of(&self, span: Span, begin: Instant) -> Instant {
        if span % DAY != 0 {
            return begin + span;
        }
        let day_starts_at = match self.window {
            Window::Calendar { day_starts_at, .. } => day_starts_at,
            _ => (0, 0),
        };
        let start_of = |date| zone::bound(&self.zone, zone::clock(date, day_starts_at));
        let shown = zone::date_shown(&self.zone, begin);
        let dates = (-3..4).map(|days| zone::plus_days(shown, days));
        let starts: Vec<_> = dates.map(|date| (start_of(date), date)).filter(|(start, _)| *start >= begin).collect();
        let first = starts[0].0;
        // Of days that begin at the same instant, all but the last are skipped by a clock change.
        let (_, date) = starts.into_iter().rfind(|(start, _)| *start == first).expect("the first one");
        start_of(zone::plus_days(date, span / DAY))
    }
}

/// Whether the rule is a supported combination and keeps all limits.
pub(crate) fn legal(c: &Campaign) -> bool {
    combination_is_supported(c) && limits_are_kept(c)
}

fn combination_is_supported(c: &Campaign) -> bool {
    let every_purchase = matches!(c.goal, Goal::EveryPurchase);
    let streak = matches!(c.goal, Goal::Streak { .. });

    // "`maxPointsPerWindow` with `rolling` or `streak`"
    let caps_windows = c.max_per_window.is_some() || c.max_points_per_window.is_some();

    // Window `rolling` does not go together with `everyPurchase`, `streak`, `repeat` and `maxPerWindow`.
    if matches!(c.window, Window::Rolling { .. }) && (every_purchase || streak || c.goal.repeats() || caps_windows) {
        return false;
    }
    // Goal `streak` does not go together with windows other than `calendar` and `recurring`, and with `maxPerWindow`.
    let follow_each_other = matches!(c.window, Window::Calendar { .. } | Window::Recurring { .. });
    if streak && (!follow_each_other || caps_windows) {
        return false;
    }
    // Awards per unit do not go together with goals other than `everyPurchase`.
    if !matches!(c.award, AwardRule::Points(_)) && !every_purchase {
        return false;
    }
    // Goal `spend` with `repeat` does not go together with an `amount` below one major unit of the currency.
    if let Goal::Spend { minor, repeat: true } = c.goal
        && minor < 10_i64.pow(c.currency_exponent)
    {
        return false;
    }
    true
}

fn limits_are_kept(c: &Campaign) -> bool {
    // "above zero, at most `P3660D`"
    let span = |s: Span| s > 0 && s <= 3660 * DAY;
    let time = |(hour, minute): (u8, u8)| hour < 24 && minute < 60;
    // "`atLeast`, `length`, `purchasesPerWindow`, `every`, `maxPerCustomer`, `maxPerWindow`: at least 1"
    let cap = |cap: Option<i64>| cap.is_none_or(|n| n >= 1);
    // "each list of a filter: 1 to 500 entries". The lists here are never that long.
    let list = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|l| !l.is_empty());

    let window = match &c.window {
        Window::Campaign => true,
        Window::Calendar { every, week_starts_on, day_starts_at, .. } => {
            *every >= 1 && *week_starts_on <= 6 && time(*day_starts_at)
        }
        Window::Recurring { weekdays, from, to } => {
            !weekdays.is_empty() && weekdays.iter().all(|day| *day <= 6) && time(*from) && time(*to)
        }
        Window::Session { gap } => span(*gap),
        Window::Timer { duration, .. } | Window::Rolling { duration } => span(*duration),
    };
    let goal = match c.goal {
        Goal::EveryPurchase => true,
        Goal::Purchases { n, .. } | Goal::Units { n, .. } => n >= 1,
        // "`atLeast` of `distinct`: at most 1 000"
        Goal::Distinct { n, .. } => (1..=1_000).contains(&n),
        // "`minAmount`, `amount` of `spend`: above 0"
        Goal::Spend { minor, .. } => minor > 0,
        Goal::Streak { length, per_window, .. } => length >= 1 && per_window >= 1,
    };
    let most_rate = 10_000 * 1_000_000;
    let award = match &c.award {
        // "`points` of an award: 1 to 10⁹"
        AwardRule::Points(n) => (1..=1_000_000_000).contains(n),
        // "`pointsPerUnit`: above 0, at most 10 000, at most 6 decimals"
        AwardRule::PointsPerUnit { rate_micro } => (1..=most_rate).contains(rate_micro),
        // "1 to 100 rates, categories not empty, a rate of `rates` may be 0"
        AwardRule::PointsByCategory { rate_micro, rates } => {
            let legal =
                |(categories, rate): &(Vec<String>, i64)| !categories.is_empty() && (0..=most_rate).contains(rate);
            (1..=most_rate).contains(rate_micro) && (1..=100).contains(&rates.len()) && rates.iter().all(legal)
        }
    };
    window
        && goal
        && award
        && cap(c.max_per_customer)
        && cap(c.max_per_window)
        && cap(c.max_points_per_customer)
        && cap(c.max_points_per_window)
        && c.hold_for.is_none_or(span)
        && c.expires_after.is_none_or(span)
        && c.filter.min_amount.is_none_or(|m| m > 0)
        && list(&c.filter.channels)
        && list(&c.filter.categories)
        && list(&c.filter.skus)
        && list(&c.filter.excluded_categories)
        && list(&c.filter.excluded_skus)
        // "`endsAt`: after `startsAt`"
        && c.ends_at.is_none_or(|end| c.starts_at < end)
}
