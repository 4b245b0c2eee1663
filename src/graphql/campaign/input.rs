//! How campaigns are sent.

use async_graphql::{Enum, InputObject, MaybeUndefined, OneofObject};

use super::rule::{CalendarUnit, DistinctOf, Weekday};
use crate::app::campaign::input as app;
use crate::graphql::scalar::{Count, CurrencyCode, DateTime, Decimal, Duration, LocalTime, Points, TimeZone};

/// A campaign to make.
#[derive(InputObject)]
pub struct CampaignInput {
    /// For people, 1 to 200 bytes.
    name: String,
    /// For people, at most 200 bytes.
    description: Option<String>,
    /// The first instant at which purchases count. It may lie in the past: activation then counts the past.
    starts_at: DateTime,
    /// The first instant at which purchases no longer count; null: open-ended.
    ends_at: Option<DateTime>,
    /// In which days, weeks and local times are meant.
    #[graphql(default_with = "utc()")]
    time_zone: TimeZone,
    /// A purchase in another one does not count.
    currency: CurrencyCode,
    /// Which purchases count; null: all.
    filter: Option<PurchaseFilterInput>,
    /// How a customer's purchases are grouped.
    window: WindowInput,
    /// What must be reached in a window.
    goal: GoalInput,
    /// What reaching it is worth.
    award: AwardInput,
    /// How many awards a customer can have in all; null: any number.
    max_per_customer: Option<i32>,
    /// How many awards a customer can have in one window; null: any number.
    max_per_window: Option<i32>,
    /// How many points may stand at once, over all customers; null: any number.
    budget: Option<Points>,
    /// For how long after the end late purchases and refunds still count.
    #[graphql(default_with = "thirty_days()")]
    lateness: Duration,
    /// For how long points are pending after they were earned; null: they can be spent at once.
    hold_for: Option<Duration>,
    /// For how long points can be spent; null: for ever.
    expires_after: Option<Duration>,
}

fn utc() -> TimeZone {
    TimeZone("UTC".to_owned())
}

fn thirty_days() -> Duration {
    Duration("P30D".to_owned())
}

/// What to change of a campaign. Absent: kept; null: removed. A draft takes every field, an activated campaign `name`,
/// `description`, `budget` and `endsAt`. Refused with STALE_REVISION when the campaign moved on.
#[derive(InputObject)]
pub struct CampaignUpdateInput {
    /// The campaign's `revision` as it was read.
    if_revision: Count,
    /// For people, 1 to 200 bytes.
    name: MaybeUndefined<String>,
    /// For people, at most 200 bytes.
    description: MaybeUndefined<String>,
    /// The first instant at which purchases count.
    starts_at: MaybeUndefined<DateTime>,
    /// The first instant at which purchases no longer count; null: open-ended. Once activated, the new one and the old one
    /// must lie ahead of everything that was counted.
    ends_at: MaybeUndefined<DateTime>,
    /// In which days, weeks and local times are meant.
    time_zone: MaybeUndefined<TimeZone>,
    /// A purchase in another one does not count.
    currency: MaybeUndefined<CurrencyCode>,
    /// Which purchases count; null: all. Replaces the whole filter.
    filter: MaybeUndefined<PurchaseFilterInput>,
    /// How a customer's purchases are grouped.
    window: MaybeUndefined<WindowInput>,
    /// What must be reached in a window.
    goal: MaybeUndefined<GoalInput>,
    /// What reaching it is worth.
    award: MaybeUndefined<AwardInput>,
    /// How many awards a customer can have in all; null: any number.
    max_per_customer: MaybeUndefined<i32>,
    /// How many awards a customer can have in one window; null: any number.
    max_per_window: MaybeUndefined<i32>,
    /// How many points may stand at once, over all customers; null: any number. Lowering it reverses nothing.
    budget: MaybeUndefined<Points>,
    /// For how long after the end late purchases and refunds still count.
    lateness: MaybeUndefined<Duration>,
    /// For how long points are pending after they were earned; null: they can be spent at once.
    hold_for: MaybeUndefined<Duration>,
    /// For how long points can be spent; null: for ever.
    expires_after: MaybeUndefined<Duration>,
}

/// Which purchases count. Whatever is null asks for nothing; lists must not be empty.
#[derive(InputObject)]
pub struct PurchaseFilterInput {
    /// Purchases of which at least so much counts, in major units; above zero.
    min_amount: Option<Decimal>,
    /// Purchases made in one of these channels.
    channels: Option<Vec<String>>,
    /// Purchases with a line in one of these categories; only such lines count.
    categories: Option<Vec<String>>,
    /// Purchases with a line of one of these articles; only such lines count.
    skus: Option<Vec<String>>,
}

/// How a customer's purchases are grouped: exactly one of these.
#[derive(OneofObject)]
pub enum WindowInput {
    /// One window: the whole period.
    Campaign(WholeCampaign),
    /// Blocks of calendar units.
    Calendar(CalendarWindowInput),
    /// Some weekdays between two times of day.
    Recurring(RecurringWindowInput),
    /// Purchases that follow each other in less than a gap.
    Session(SessionWindowInput),
    /// Opened by the customer's first purchase that counts.
    Timer(TimerWindowInput),
    /// The span before each purchase.
    Rolling(RollingWindowInput),
}

/// The one value of a window that needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "app::WholeCampaign")]
pub enum WholeCampaign {
    /// The whole period of the campaign.
    Whole,
}

/// Blocks of days, weeks, months, quarters or years in the campaign's time zone.
#[derive(InputObject)]
pub struct CalendarWindowInput {
    /// What is counted.
    unit: CalendarUnit,
    /// Units in a block, counted from the unit that contains the campaign's start.
    #[graphql(default = 1)]
    every: i32,
    /// Where weeks begin.
    #[graphql(default_with = "Weekday::Monday")]
    week_starts_on: Weekday,
}

/// A window on each of some weekdays, between two times of day in the campaign's time zone.
#[derive(InputObject)]
pub struct RecurringWindowInput {
    /// Days on which it opens; not empty.
    weekdays: Vec<Weekday>,
    /// When it opens.
    from: LocalTime,
    /// When it closes; at or before `from`: on the next day.
    to: LocalTime,
}

/// Purchases that follow each other in less than a gap.
#[derive(InputObject)]
pub struct SessionWindowInput {
    /// A purchase so long after the one before it opens the next session.
    gap: Duration,
}

/// Opened by the customer's first purchase that counts.
#[derive(InputObject)]
pub struct TimerWindowInput {
    /// How long it is open.
    duration: Duration,
    /// Whether the first purchase after it closed opens the next; otherwise there is one window.
    #[graphql(default = false)]
    reopens: bool,
}

/// Each purchase counts together with those shortly before it that no earlier award used up.
#[derive(InputObject)]
pub struct RollingWindowInput {
    /// How far back purchases count.
    duration: Duration,
}

/// What must be reached in a window: exactly one of these.
#[derive(OneofObject)]
pub enum GoalInput {
    /// Reached by each purchase.
    EveryPurchase(EveryPurchase),
    /// Reached by the n-th purchase.
    Purchases(PurchasesGoalInput),
    /// Reached when purchases sum to an amount.
    Spend(SpendGoalInput),
    /// Reached when so many different things were bought.
    Distinct(DistinctGoalInput),
    /// Reached when so many calendar windows in a row had enough purchases.
    Streak(StreakGoalInput),
}

/// The one value of a goal that needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "app::EveryPurchase")]
pub enum EveryPurchase {
    /// Each purchase.
    Each,
}

/// Reached by the n-th purchase of a window.
#[derive(InputObject)]
pub struct PurchasesGoalInput {
    /// How many.
    at_least: i32,
    /// Whether the 2n-th, 3n-th … reach it again.
    #[graphql(default = false)]
    repeat: bool,
}

/// Reached when a window's purchases sum to an amount.
#[derive(InputObject)]
pub struct SpendGoalInput {
    /// How much, in major units; above zero.
    amount: Decimal,
    /// Whether each further multiple reaches it again.
    #[graphql(default = false)]
    repeat: bool,
}

/// Reached when so many different things were bought in a window.
#[derive(InputObject)]
pub struct DistinctGoalInput {
    /// What must differ.
    of: DistinctOf,
    /// How many, 1 to 1000.
    at_least: i32,
}

/// Reached when so many calendar windows in a row had enough purchases.
#[derive(InputObject)]
pub struct StreakGoalInput {
    /// How many windows.
    length: i32,
    /// How many purchases each of them needs.
    #[graphql(default = 1)]
    purchases_per_window: i32,
    /// Whether counting starts again at the next window; otherwise the first run is the only one.
    #[graphql(default = false)]
    repeat: bool,
}

/// What reaching the goal is worth: exactly one of these.
#[derive(OneofObject)]
pub enum AwardInput {
    /// The same points each time, 1 to 10⁹.
    Points(Points),
    /// Points for each major unit of what counts of the purchase; with the goal `everyPurchase` only. Above zero, at most
    /// 10000, at most 6 decimals.
    PointsPerUnit(Decimal),
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
        }
    }
}

impl From<WindowInput> for app::WindowInput {
    fn from(input: WindowInput) -> Self {
        match input {
            WindowInput::Campaign(whole) => Self::Campaign(whole.into()),
            WindowInput::Calendar(CalendarWindowInput { unit, every, week_starts_on }) => {
                Self::Calendar { unit: unit.into(), every, week_starts_on: week_starts_on.into() }
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
        }
    }
}
