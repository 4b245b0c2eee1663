//! The parts of a campaign, as they are read: filter, window, goal and award.

use async_graphql::{Enum, SimpleObject, Union};

use crate::app::campaign::set::Campaign;
use crate::engine::award;
use crate::engine::goal;
use crate::engine::rule::{Filter, Rule};
use crate::engine::window::{self, Calendar, Recurring};
use crate::graphql::money::Money;
use crate::graphql::scalar::{DateTime, Decimal, Duration, LocalTime, Points};
use crate::graphql::window::closes_at;

/// Which purchases count. A purchase must meet every condition that is not null. Its eligible amount is its net, but with
/// `categories` or `skus` at most the sum of the nets of the matching lines. Excluded lines match nothing; if the filter names no
/// `categories` or `skus`, their nets are subtracted.
#[derive(Clone, Debug, SimpleObject)]
pub struct PurchaseFilter {
    /// The minimum of the eligible amount of a purchase.
    min_amount: Option<Money>,
    /// The purchase is made in one of these channels. A purchase without a channel does not count.
    channels: Option<Vec<String>>,
    /// At least one line of the purchase has one of these categories. Only lines that match both `categories` and
    /// `skus` count.
    categories: Option<Vec<String>>,
    /// At least one line of the purchase has one of these skus. Only lines that match both `categories` and `skus`
    /// count.
    skus: Option<Vec<String>>,
    /// A line that has one of these categories is excluded.
    excluded_categories: Option<Vec<String>>,
    /// A line that has one of these skus is excluded.
    excluded_skus: Option<Vec<String>>,
}

impl PurchaseFilter {
    /// Returns `None` if the rule has no filter.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let Filter { min_amount, channels, categories, skus, excluded_categories, excluded_skus } = rule.filter.clone();
        (rule.filter != Filter::default()).then(|| Self {
            min_amount: min_amount.map(|minor| Money::new(minor, rule.currency)),
            channels,
            categories,
            skus,
            excluded_categories,
            excluded_skus,
        })
    }
}

/// How the eligible purchases of a customer are grouped.
#[derive(Clone, Debug, Union)]
pub enum WindowRule {
    Campaign(CampaignWindow),
    Calendar(CalendarWindow),
    Recurring(RecurringWindow),
    Session(SessionWindow),
    Timer(TimerWindow),
    Rolling(RollingWindow),
}

/// One window for each customer: the whole period of the campaign.
#[derive(Clone, Debug, SimpleObject)]
pub struct CampaignWindow {
    /// The `startsAt` of the campaign.
    opens_at: DateTime,
    /// The `endsAt` of the campaign. Null if the campaign has no end.
    closes_at: Option<DateTime>,
}

/// Blocks of calendar units in the campaign's time zone. Each block is one window, which begins and ends at the local time
/// `dayStartsAt`.
#[derive(Clone, Debug, SimpleObject)]
pub struct CalendarWindow {
    /// The unit of which the blocks consist.
    unit: CalendarUnit,
    /// The number of units in a block. Blocks are counted from the unit that contains `startsAt`.
    every: i32,
    /// The first day of a week. It matters only if `unit` is `WEEK`.
    week_starts_on: Weekday,
    /// The local time at which a unit begins on its first day.
    day_starts_at: LocalTime,
}

/// One window on each of the given weekdays, between two times of day in the campaign's time zone. Purchases outside
/// these windows do not count.
#[derive(Clone, Debug, SimpleObject)]
pub struct RecurringWindow {
    /// The weekdays on which a window opens.
    weekdays: Vec<Weekday>,
    /// The local time at which the window opens.
    from: LocalTime,
    /// The local time at which the window closes. If it is not after `from`, the window closes on the next day.
    to: LocalTime,
}

/// A session: purchases of which each follows the previous one after less than `gap`.
#[derive(Clone, Debug, SimpleObject)]
pub struct SessionWindow {
    /// The span without a purchase that ends a session. A purchase exactly `gap` after the previous one opens the next
    /// session.
    gap: Duration,
}

/// The customer's first eligible purchase opens a window of fixed length.
#[derive(Clone, Debug, SimpleObject)]
pub struct TimerWindow {
    /// How long a window stays open, from its first purchase on.
    duration: Duration,
    /// Whether the first eligible purchase at or after the close opens the next window. Otherwise there is only one
    /// window, and later purchases do not count.
    reopens: bool,
}

/// No fixed windows: each purchase counts together with those in the `duration` before it. An award uses up all
/// purchases that it is based on.
#[derive(Clone, Debug, SimpleObject)]
pub struct RollingWindow {
    /// How far back purchases count. A purchase exactly `duration` old no longer counts.
    duration: Duration,
}

impl WindowRule {
    pub(super) fn of(campaign: &Campaign) -> Self {
        let text = |span: &crate::engine::time::IsoDuration| Duration(span.as_str().to_owned());
        match &campaign.rule.window {
            window::WindowRule::Campaign => {
                let period = campaign.life.period.interval();
                let (opens_at, closes_at) = (period.opens.into(), closes_at(period));
                Self::Campaign(CampaignWindow { opens_at, closes_at })
            }
            window::WindowRule::Calendar(Calendar { unit, every, week_starts_on, day_starts_at }) => {
                let (unit, week_starts_on) = ((*unit).into(), (*week_starts_on).into());
                let day_starts_at = LocalTime(day_starts_at.to_string());
                Self::Calendar(CalendarWindow { unit, every: *every, week_starts_on, day_starts_at })
            }
            window::WindowRule::Recurring(Recurring { weekdays, from, to }) => Self::Recurring(RecurringWindow {
                weekdays: weekdays.iter().map(|weekday| Weekday::from(*weekday)).collect(),
                from: LocalTime(from.to_string()),
                to: LocalTime(to.to_string()),
            }),
            window::WindowRule::Session { gap } => Self::Session(SessionWindow { gap: text(gap) }),
            window::WindowRule::Timer { duration, reopens } => {
                Self::Timer(TimerWindow { duration: text(duration), reopens: *reopens })
            }
            window::WindowRule::Rolling { duration } => Self::Rolling(RollingWindow { duration: text(duration) }),
        }
    }
}

/// A unit of the calendar in the time zone of the campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "window::CalendarUnit")]
pub enum CalendarUnit {
    /// A local day, from midnight to midnight.
    Day,
    /// Seven local days, beginning on `weekStartsOn`.
    Week,
    /// A calendar month, beginning on the 1st.
    Month,
    /// Three calendar months, beginning on 1 January, 1 April, 1 July or 1 October.
    Quarter,
    /// A calendar year, beginning on 1 January.
    Year,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "window::Weekday")]
pub enum Weekday {
    /// Monday, day 1 of the week in ISO 8601.
    Monday,
    /// Tuesday, day 2 of the week in ISO 8601.
    Tuesday,
    /// Wednesday, day 3 of the week in ISO 8601.
    Wednesday,
    /// Thursday, day 4 of the week in ISO 8601.
    Thursday,
    /// Friday, day 5 of the week in ISO 8601.
    Friday,
    /// Saturday, day 6 of the week in ISO 8601.
    Saturday,
    /// Sunday, day 7 of the week in ISO 8601.
    Sunday,
}

/// What a customer must reach in a window.
#[derive(Clone, Debug, Union)]
pub enum Goal {
    EveryPurchase(EveryPurchaseGoal),
    Purchases(PurchasesGoal),
    Spend(SpendGoal),
    Distinct(DistinctGoal),
    Units(UnitsGoal),
    Streak(StreakGoal),
}

/// Each eligible purchase reaches the goal.
#[derive(Clone, Debug, SimpleObject)]
pub struct EveryPurchaseGoal {
    /// The number of purchases that reach the goal: always 1.
    at_least: i32,
}

/// The n-th eligible purchase of a window reaches the goal; n is `atLeast`.
#[derive(Clone, Debug, SimpleObject)]
pub struct PurchasesGoal {
    /// The number of purchases that reach the goal.
    at_least: i32,
    /// Whether the 2n-th, the 3n-th, and so on, reach the goal again.
    repeat: bool,
}

/// The goal is reached when the eligible amounts of a window sum to `amount`.
#[derive(Clone, Debug, SimpleObject)]
pub struct SpendGoal {
    /// The amount that reaches the goal.
    amount: Money,
    /// Whether each further multiple of `amount` in the window reaches the goal again. What exceeds a multiple carries
    /// over to the next award. One purchase gives at most 100 awards.
    repeat: bool,
}

/// The goal is reached when `atLeast` different skus or categories have been bought in a window.
#[derive(Clone, Debug, SimpleObject)]
pub struct DistinctGoal {
    /// Whether different skus or different categories are counted.
    of: DistinctOf,
    /// The number of different skus or categories that reaches the goal.
    at_least: i32,
}

/// The goal is reached when the units of the matching lines of a window sum to `atLeast`. A line has as many units as its quantity. If
/// it is refunded in part, it has a part of them, and the units of a purchase are rounded to the nearest whole number.
#[derive(Clone, Debug, SimpleObject)]
pub struct UnitsGoal {
    /// The number of units that reaches the goal.
    at_least: i32,
    /// Whether each further multiple of `atLeast` in the window reaches the goal again. What exceeds a multiple carries over to the
    /// next award. One purchase gives at most 100 awards.
    repeat: bool,
}

/// The goal is reached when `length` consecutive windows each have enough eligible purchases.
#[derive(Clone, Debug, SimpleObject)]
pub struct StreakGoal {
    /// The number of windows in a streak.
    length: i32,
    /// The number of eligible purchases that each window needs.
    purchases_per_window: i32,
    /// Whether counting starts again at the next window after an award. Otherwise only the customer's first streak
    /// gives an award.
    repeat: bool,
}

/// What a `distinct` goal counts. Only lines that match the filter and whose net is above 0 are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "goal::DistinctOf")]
pub enum DistinctOf {
    /// The skus of the lines.
    Sku,
    /// The categories of the lines. A line without a category does not count.
    Category,
}

impl Goal {
    pub(super) fn of(rule: &Rule) -> Self {
        match rule.goal {
            goal::Goal::EveryPurchase => Self::EveryPurchase(EveryPurchaseGoal { at_least: 1 }),
            goal::Goal::Purchases { at_least, repeat } => Self::Purchases(PurchasesGoal { at_least, repeat }),
            goal::Goal::Spend { at_least, repeat } => {
                Self::Spend(SpendGoal { amount: Money::new(at_least, rule.currency), repeat })
            }
            goal::Goal::Distinct { of, at_least } => Self::Distinct(DistinctGoal { of: of.into(), at_least }),
            goal::Goal::Units { at_least, repeat } => Self::Units(UnitsGoal { at_least, repeat }),
            goal::Goal::Streak { length, purchases_per_window, repeat } => {
                Self::Streak(StreakGoal { length, purchases_per_window, repeat })
            }
        }
    }
}

/// What an award is worth.
#[derive(Clone, Debug, Union)]
pub enum AwardRule {
    Points(FixedPoints),
    PointsPerUnit(PointsPerUnit),
}

/// Each award is worth the same points.
#[derive(Clone, Debug, SimpleObject)]
pub struct FixedPoints {
    /// The points of each award.
    points: Points,
}

/// An award is worth `floor(eligible amount × rate)` points, at most 10⁹, where the eligible amount is that of the reaching purchase in
/// major units. A matching line whose category `rates` names goes by that rate instead. An award of 0 points does not exist.
#[derive(Clone, Debug, SimpleObject)]
pub struct PointsPerUnit {
    /// The points for each major unit of the campaign's currency, without trailing zeros.
    rate: Decimal,
    /// The rates of some categories. The first that names the category of a line counts.
    rates: Vec<CategoryRate>,
}

/// The rate of some categories.
#[derive(Clone, Debug, SimpleObject)]
pub struct CategoryRate {
    /// The categories.
    categories: Vec<String>,
    /// The points for each major unit of the campaign's currency, without trailing zeros.
    rate: Decimal,
}

impl AwardRule {
    pub(super) fn of(rule: &Rule) -> Self {
        match &rule.award {
            award::AwardRule::Points(points) => Self::Points(FixedPoints { points: Points(*points) }),
            award::AwardRule::PointsPerUnit(rate) => {
                Self::PointsPerUnit(PointsPerUnit { rate: Decimal(rate.format()), rates: Vec::new() })
            }
            award::AwardRule::PointsByCategory(award::CategoryRates { rate, rates }) => {
                let of = |one: &award::CategoryRate| CategoryRate {
                    categories: one.categories.clone(),
                    rate: Decimal(one.rate.format()),
                };
                let rates = rates.iter().map(of).collect();
                Self::PointsPerUnit(PointsPerUnit { rate: Decimal(rate.format()), rates })
            }
        }
    }
}
