//! The input types of campaigns.

use async_graphql::{Enum, InputObject, MaybeUndefined, OneofObject};

use super::rule::{CalendarUnit, DistinctOf, Weekday};
use crate::app::campaign::input as app;
use crate::engine::time;
use crate::graphql::scalar::{Count, CurrencyCode, DateTime, Decimal, Duration, LocalTime, Points, TimeZone};

/// A campaign to create. Parts that cannot be combined are refused with `UNSUPPORTED_COMBINATION`.
#[derive(InputObject)]
pub struct CampaignInput {
    /// The name that people see, 1 to 200 bytes.
    name: String,
    /// The description that people see, 1 to 200 bytes. Null means no description.
    description: Option<String>,
    /// The first instant at which purchases count. It must not be before 1970. If it is in the past when the campaign
    /// is activated, purchases that are already recorded count too.
    starts_at: DateTime,
    /// The first instant at which purchases no longer count. It must be after `startsAt`. Null means that the campaign
    /// has no end.
    ends_at: Option<DateTime>,
    /// The time zone of the calendar units, weekdays and local times of the window.
    #[graphql(default_with = "utc()")]
    time_zone: TimeZone,
    /// The currency of all amounts of the campaign. A purchase in another currency does not count.
    currency: CurrencyCode,
    /// Which purchases count. Null means no filter.
    filter: Option<PurchaseFilterInput>,
    /// How the eligible purchases of a customer are grouped.
    window: WindowInput,
    /// What a customer must reach in a window.
    goal: GoalInput,
    /// What reaching the goal is worth.
    award: AwardInput,
    /// The maximum number of awards of one customer in the campaign, at least 1; `DECLINED` awards are included. Null
    /// means no maximum.
    max_per_customer: Option<i32>,
    /// The maximum number of awards of one customer in one window, at least 1; `DECLINED` awards are included. Null
    /// means no maximum. It cannot be combined with the window `rolling` or the goal `streak`.
    max_per_window: Option<i32>,
    /// The maximum number of points of one customer's awards in the campaign, at least 1; `DECLINED` awards are included. The award
    /// that exceeds it gets what is left. Null means no maximum.
    max_points_per_customer: Option<Points>,
    /// The maximum number of points of one customer's awards in one window, at least 1; `DECLINED` awards are included. The award that
    /// exceeds it gets what is left. Null means no maximum. It cannot be combined with the window `rolling` or the goal `streak`.
    max_points_per_window: Option<Points>,
    /// The maximum number of points of `STANDING` awards at the same time, over all customers: 0 to 2^53 − 1. An award
    /// that does not fit becomes `DECLINED`. Null means no maximum.
    budget: Option<Points>,
    /// How long after `endsAt` late purchases and refunds still count. It must be above zero and at most `P3660D`.
    #[graphql(default_with = "thirty_days()")]
    lateness: Duration,
    /// How long points are pending after `earnedAt`. It must be above zero and at most `P3660D`. Null means that points
    /// can be spent immediately. A campaign with `holdFor` can be a draft but cannot be activated.
    hold_for: Option<Duration>,
    /// How long points can be spent. It must be above zero and at most `P3660D`. Null means that points never expire. A
    /// campaign with `expiresAfter` can be a draft but cannot be activated.
    expires_after: Option<Duration>,
}

fn utc() -> TimeZone {
    TimeZone("UTC".to_owned())
}

fn thirty_days() -> Duration {
    Duration("P30D".to_owned())
}

/// Changes of a campaign. A field that is absent keeps its value. A null removes the value; a field that a campaign
/// must have refuses null with `REQUIRED`. A draft accepts every field. An activated campaign accepts only `name`,
/// `description`, `budget` and `endsAt`; a different value of any other field is refused with `CAMPAIGN_NOT_EDITABLE`.
#[derive(InputObject)]
pub struct CampaignUpdateInput {
    /// The `revision` of the campaign as the caller read it. If the campaign has changed since, the error is
    /// `STALE_REVISION`.
    if_revision: Count,
    /// The name that people see, 1 to 200 bytes.
    name: MaybeUndefined<String>,
    /// The description that people see, 1 to 200 bytes. Null means no description.
    description: MaybeUndefined<String>,
    /// The first instant at which purchases count. It must not be before 1970.
    starts_at: MaybeUndefined<DateTime>,
    /// The first instant at which purchases no longer count. It must be after `startsAt`. Null means that the campaign
    /// has no end. After the activation, the old and the new `endsAt` must both be later than now, than every recorded
    /// `purchasedAt` and than the last pause or resume, and the campaign must not have been ended (`BOUNDARY_IN_PAST`).
    ends_at: MaybeUndefined<DateTime>,
    /// The time zone of the calendar units, weekdays and local times of the window.
    time_zone: MaybeUndefined<TimeZone>,
    /// The currency of all amounts of the campaign. A purchase in another currency does not count.
    currency: MaybeUndefined<CurrencyCode>,
    /// Which purchases count. The new filter replaces the old one as a whole. Null means no filter.
    filter: MaybeUndefined<PurchaseFilterInput>,
    /// How the eligible purchases of a customer are grouped.
    window: MaybeUndefined<WindowInput>,
    /// What a customer must reach in a window.
    goal: MaybeUndefined<GoalInput>,
    /// What reaching the goal is worth.
    award: MaybeUndefined<AwardInput>,
    /// The maximum number of awards of one customer in the campaign, at least 1; `DECLINED` awards are included. Null
    /// means no maximum.
    max_per_customer: MaybeUndefined<i32>,
    /// The maximum number of awards of one customer in one window, at least 1; `DECLINED` awards are included. Null
    /// means no maximum. It cannot be combined with the window `rolling` or the goal `streak`.
    max_per_window: MaybeUndefined<i32>,
    /// The maximum number of points of one customer's awards in the campaign, at least 1; `DECLINED` awards are included. The award
    /// that exceeds it gets what is left. Null means no maximum.
    max_points_per_customer: MaybeUndefined<Points>,
    /// The maximum number of points of one customer's awards in one window, at least 1; `DECLINED` awards are included. The award that
    /// exceeds it gets what is left. Null means no maximum. It cannot be combined with the window `rolling` or the goal `streak`.
    max_points_per_window: MaybeUndefined<Points>,
    /// The maximum number of points of `STANDING` awards at the same time, over all customers: 0 to 2^53 − 1. Null
    /// means no maximum. A lower budget reverses no awards, and a higher one does not decide `DECLINED` awards again.
    budget: MaybeUndefined<Points>,
    /// How long after `endsAt` late purchases and refunds still count. It must be above zero and at most `P3660D`.
    lateness: MaybeUndefined<Duration>,
    /// How long points are pending after `earnedAt`. It must be above zero and at most `P3660D`. Null means that points
    /// can be spent immediately. A campaign with `holdFor` can be a draft but cannot be activated.
    hold_for: MaybeUndefined<Duration>,
    /// How long points can be spent. It must be above zero and at most `P3660D`. Null means that points never expire. A
    /// campaign with `expiresAfter` can be a draft but cannot be activated.
    expires_after: MaybeUndefined<Duration>,
}

/// Which purchases count. A purchase must meet every condition that is not null. Its eligible amount is its net, but with
/// `categories` or `skus` at most the sum of the nets of the matching lines. Excluded lines match nothing; if the filter names no
/// `categories` or `skus`, their nets are subtracted. Each list has 1 to 500 entries of 1 to 200 bytes.
#[derive(InputObject)]
pub struct PurchaseFilterInput {
    /// The minimum of the eligible amount of a purchase, in major units. It must be above 0.
    min_amount: Option<Decimal>,
    /// The purchase is made in one of these channels. A purchase without a channel does not count.
    channels: Option<Vec<String>>,
    /// At least one line of the purchase has one of these categories. Only lines that match both `categories` and
    /// `skus` count.
    categories: Option<Vec<String>>,
    /// At least one line of the purchase has one of these skus. Only lines that match both `categories` and `skus`
    /// count.
    skus: Option<Vec<String>>,
    /// A line that has one of these categories is excluded, such as shipping or gift cards.
    excluded_categories: Option<Vec<String>>,
    /// A line that has one of these skus is excluded.
    excluded_skus: Option<Vec<String>>,
}

/// How the eligible purchases of a customer are grouped: exactly one of these.
#[derive(OneofObject)]
pub enum WindowInput {
    /// One window for each customer: the whole period of the campaign.
    Campaign(WholeCampaign),
    /// Blocks of days, weeks, months, quarters or years.
    Calendar(CalendarWindowInput),
    /// One window on each of some weekdays, between two times of day.
    Recurring(RecurringWindowInput),
    /// Purchases of which each follows the previous one after less than a gap.
    Session(SessionWindowInput),
    /// A window of fixed length, which the customer's first eligible purchase opens.
    Timer(TimerWindowInput),
    /// Each purchase together with those in a span before it. It cannot be combined with the goals `everyPurchase` and
    /// `streak`, with `repeat` or with `maxPerWindow`.
    Rolling(RollingWindowInput),
}

/// The only value of the window `campaign`, which has no parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "app::WholeCampaign")]
pub enum WholeCampaign {
    /// The window is the whole period of the campaign.
    Whole,
}

/// Blocks of calendar units in the campaign's time zone. Each block is one window, which begins and ends at the local time
/// `dayStartsAt`.
#[derive(InputObject)]
pub struct CalendarWindowInput {
    /// The unit of which the blocks consist.
    unit: CalendarUnit,
    /// The number of units in a block, at least 1. Blocks are counted from the unit that contains `startsAt`.
    #[graphql(default = 1)]
    every: i32,
    /// The first day of a week. It matters only if `unit` is `WEEK`.
    #[graphql(default_with = "Weekday::Monday")]
    week_starts_on: Weekday,
    /// The local time at which a unit begins on its first day. A shop that is open past midnight counts a purchase at 01:00 to
    /// the day before with `"04:00"`.
    #[graphql(default_with = "midnight()")]
    day_starts_at: LocalTime,
}

fn midnight() -> LocalTime {
    LocalTime(time::LocalTime::default().to_string())
}

/// One window on each of the given weekdays, between two times of day in the campaign's time zone. Purchases outside
/// these windows do not count.
#[derive(InputObject)]
pub struct RecurringWindowInput {
    /// The weekdays on which a window opens; at least one.
    weekdays: Vec<Weekday>,
    /// The local time at which the window opens.
    from: LocalTime,
    /// The local time at which the window closes. If it is not after `from`, the window closes on the next day.
    to: LocalTime,
}

/// A session: purchases of which each follows the previous one after less than `gap`.
#[derive(InputObject)]
pub struct SessionWindowInput {
    /// The span without a purchase that ends a session. A purchase exactly `gap` after the previous one opens the next
    /// session. It must be above zero and at most `P3660D`.
    gap: Duration,
}

/// The customer's first eligible purchase opens a window of fixed length.
#[derive(InputObject)]
pub struct TimerWindowInput {
    /// How long a window stays open, from its first purchase on. It must be above zero and at most `P3660D`.
    duration: Duration,
    /// Whether the first eligible purchase at or after the close opens the next window. Otherwise there is only one
    /// window, and later purchases do not count.
    #[graphql(default = false)]
    reopens: bool,
}

/// Each purchase counts together with those in the `duration` before it. An award uses up all purchases that it is
/// based on.
#[derive(InputObject)]
pub struct RollingWindowInput {
    /// How far back purchases count. A purchase exactly `duration` old no longer counts. It must be above zero and at
    /// most `P3660D`.
    duration: Duration,
}

/// What a customer must reach in a window: exactly one of these.
#[derive(OneofObject)]
pub enum GoalInput {
    /// Each eligible purchase reaches the goal.
    EveryPurchase(EveryPurchase),
    /// The n-th eligible purchase of a window reaches the goal.
    Purchases(PurchasesGoalInput),
    /// The eligible amounts of a window sum to an amount.
    Spend(SpendGoalInput),
    /// A number of different skus or categories have been bought in a window.
    Distinct(DistinctGoalInput),
    /// The matching lines of a window have a number of units, such as six coffees.
    Units(UnitsGoalInput),
    /// A number of consecutive windows have enough purchases. This goal requires the window `calendar` or `recurring` and cannot be
    /// combined with `maxPerWindow`.
    Streak(StreakGoalInput),
}

/// The only value of the goal `everyPurchase`, which has no parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "app::EveryPurchase")]
pub enum EveryPurchase {
    /// Each eligible purchase reaches the goal.
    Each,
}

/// The n-th eligible purchase of a window reaches the goal; n is `atLeast`.
#[derive(InputObject)]
pub struct PurchasesGoalInput {
    /// The number of purchases that reach the goal, at least 1.
    at_least: i32,
    /// Whether the 2n-th, the 3n-th, and so on, reach the goal again.
    #[graphql(default = false)]
    repeat: bool,
}

/// The goal is reached when the eligible amounts of a window sum to `amount`.
#[derive(InputObject)]
pub struct SpendGoalInput {
    /// The amount that reaches the goal, in major units. It must be above 0, and at least 1 with `repeat`.
    amount: Decimal,
    /// Whether each further multiple of `amount` in the window reaches the goal again. What exceeds a multiple carries
    /// over to the next award. One purchase gives at most 100 awards.
    #[graphql(default = false)]
    repeat: bool,
}

/// The goal is reached when `atLeast` different skus or categories have been bought in a window.
#[derive(InputObject)]
pub struct DistinctGoalInput {
    /// Whether different skus or different categories are counted.
    of: DistinctOf,
    /// The number of different skus or categories that reaches the goal, 1 to 1000.
    at_least: i32,
}

/// The goal is reached when the units of the matching lines of a window sum to `atLeast`.
#[derive(InputObject)]
pub struct UnitsGoalInput {
    /// The number of units that reaches the goal, at least 1.
    at_least: i32,
    /// Whether each further multiple of `atLeast` in the window reaches the goal again. What exceeds a multiple carries over to the
    /// next award. One purchase gives at most 100 awards.
    #[graphql(default = false)]
    repeat: bool,
}

/// The goal is reached when `length` consecutive windows each have enough eligible purchases. The window must be
/// `calendar` or `recurring`.
#[derive(InputObject)]
pub struct StreakGoalInput {
    /// The number of windows in a streak, at least 1.
    length: i32,
    /// The number of eligible purchases that each window needs, at least 1.
    #[graphql(default = 1)]
    purchases_per_window: i32,
    /// Whether counting starts again at the next window after an award. Otherwise only the customer's first streak
    /// gives an award.
    #[graphql(default = false)]
    repeat: bool,
}

/// What an award is worth: exactly one of these.
#[derive(OneofObject)]
pub enum AwardInput {
    /// The points of each award, always the same: 1 to 10⁹.
    Points(Points),
    /// The points for each major unit of the eligible amount of the purchase. An award is rounded down to whole points
    /// and is worth at most 10⁹. The rate must be above 0, at most 10000, and have at most 6 decimals. It requires the
    /// goal `everyPurchase`.
    PointsPerUnit(Decimal),
    /// The points for each major unit, by the categories of the lines. An award is rounded down once and is worth at most 10⁹. It
    /// requires the goal `everyPurchase`.
    PointsByCategory(PointsByCategoryInput),
}

/// Rates by category. Each matching line goes by the first of `rates` that names its category, and all the rest of the eligible amount
/// by `rate`.
#[derive(InputObject)]
pub struct PointsByCategoryInput {
    /// The rate of everything that no entry of `rates` names. It must be above 0, at most 10000, and have at most 6 decimals.
    rate: Decimal,
    /// 1 to 100 entries.
    rates: Vec<CategoryRateInput>,
}

/// The rate of some categories.
#[derive(InputObject)]
pub struct CategoryRateInput {
    /// 1 to 500 categories.
    categories: Vec<String>,
    /// It must be at most 10000 and have at most 6 decimals. With 0, these categories give no points.
    rate: Decimal,
}

impl From<CampaignInput> for app::CampaignInput {
    fn from(input: CampaignInput) -> Self {
        Self {
            name: input.name,
            description: input.description,
            starts_at: input.starts_at.into(),
            ends_at: input.ends_at.map(String::from),
            time_zone: input.time_zone.into(),
            currency: input.currency.into(),
            filter: input.filter.map(app::FilterInput::from),
            window: input.window.into(),
            goal: input.goal.into(),
            award: input.award.into(),
            max_per_customer: input.max_per_customer,
            max_per_window: input.max_per_window,
            max_points_per_customer: input.max_points_per_customer.map(|points| points.0),
            max_points_per_window: input.max_points_per_window.map(|points| points.0),
            budget: input.budget.map(|points| points.0),
            lateness: input.lateness.into(),
            hold_for: input.hold_for.map(String::from),
            expires_after: input.expires_after.map(String::from),
        }
    }
}

impl From<CampaignUpdateInput> for app::CampaignUpdate {
    fn from(input: CampaignUpdateInput) -> Self {
        Self {
            if_revision: input.if_revision.0,
            name: patch(input.name),
            description: patch(input.description),
            starts_at: patch(input.starts_at),
            ends_at: patch(input.ends_at),
            time_zone: patch(input.time_zone),
            currency: patch(input.currency),
            filter: patch(input.filter),
            window: patch(input.window),
            goal: patch(input.goal),
            award: patch(input.award),
            max_per_customer: patch(input.max_per_customer),
            max_per_window: patch(input.max_per_window),
            max_points_per_customer: patch(input.max_points_per_customer.map_value(|points| points.0)),
            max_points_per_window: patch(input.max_points_per_window.map_value(|points| points.0)),
            budget: patch(input.budget.map_value(|points| points.0)),
            lateness: patch(input.lateness),
            hold_for: patch(input.hold_for),
            expires_after: patch(input.expires_after),
        }
    }
}

fn patch<T: Into<U>, U>(value: MaybeUndefined<T>) -> Option<Option<U>> {
    match value {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value.into())),
    }
}

impl From<PurchaseFilterInput> for app::FilterInput {
    fn from(input: PurchaseFilterInput) -> Self {
        Self {
            min_amount: input.min_amount.map(String::from),
            channels: input.channels,
            categories: input.categories,
            skus: input.skus,
            excluded_categories: input.excluded_categories,
            excluded_skus: input.excluded_skus,
        }
    }
}

impl From<WindowInput> for app::WindowInput {
    fn from(input: WindowInput) -> Self {
        match input {
            WindowInput::Campaign(whole) => Self::Campaign(whole.into()),
            WindowInput::Calendar(CalendarWindowInput { unit, every, week_starts_on, day_starts_at }) => {
                let (unit, week_starts_on) = (unit.into(), week_starts_on.into());
                Self::Calendar { unit, every, week_starts_on, day_starts_at: day_starts_at.into() }
            }
            WindowInput::Recurring(RecurringWindowInput { weekdays, from, to }) => Self::Recurring {
                weekdays: weekdays.into_iter().map(Into::into).collect(),
                from: from.into(),
                to: to.into(),
            },
            WindowInput::Session(SessionWindowInput { gap }) => Self::Session { gap: gap.into() },
            WindowInput::Timer(TimerWindowInput { duration, reopens }) => {
                Self::Timer { duration: duration.into(), reopens }
            }
            WindowInput::Rolling(RollingWindowInput { duration }) => Self::Rolling { duration: duration.into() },
        }
    }
}

impl From<GoalInput> for app::GoalInput {
    fn from(input: GoalInput) -> Self {
        match input {
            GoalInput::EveryPurchase(each) => Self::EveryPurchase(each.into()),
            GoalInput::Purchases(PurchasesGoalInput { at_least, repeat }) => Self::Purchases { at_least, repeat },
            GoalInput::Spend(SpendGoalInput { amount, repeat }) => Self::Spend { amount: amount.into(), repeat },
            GoalInput::Distinct(DistinctGoalInput { of, at_least }) => Self::Distinct { of: of.into(), at_least },
            GoalInput::Units(UnitsGoalInput { at_least, repeat }) => Self::Units { at_least, repeat },
            GoalInput::Streak(StreakGoalInput { length, purchases_per_window, repeat }) => {
                Self::Streak { length, purchases_per_window, repeat }
            }
        }
    }
}

impl From<AwardInput> for app::AwardInput {
    fn from(input: AwardInput) -> Self {
        match input {
            AwardInput::Points(points) => Self::Points(points.0),
            AwardInput::PointsPerUnit(rate) => Self::PointsPerUnit(rate.into()),
            AwardInput::PointsByCategory(PointsByCategoryInput { rate, rates }) => {
                let of =
                    |CategoryRateInput { categories, rate }| app::CategoryRateInput { categories, rate: rate.into() };
                let rates = rates.into_iter().map(of).collect();
                Self::PointsByCategory(app::CategoryRatesInput { rate: rate.into(), rates })
            }
        }
    }
}
