//! What a campaign consists of.

use async_graphql::{Enum, SimpleObject, Union};

use crate::app::campaigns::Campaign;
use crate::engine::award;
use crate::engine::goal;
use crate::engine::rule::{Filter, Rule};
use crate::engine::window::{self, Calendar, Recurring};
use crate::graphql::money::Money;
use crate::graphql::scalar::{DateTime, Decimal, Duration, LocalTime, Points};
use crate::graphql::window::closes_at;

/// Which purchases count. Whatever is null asks for nothing.
#[derive(Clone, Debug, SimpleObject)]
pub struct PurchaseFilter {
    /// Purchases of which at least so much counts.
    min_amount: Option<Money>,
    /// Purchases made in one of these channels.
    channels: Option<Vec<String>>,
    /// Purchases with a line in one of these categories; only such lines count.
    categories: Option<Vec<String>>,
    /// Purchases with a line of one of these articles; only such lines count.
    skus: Option<Vec<String>>,
}

impl PurchaseFilter {
    /// None where everything counts.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let Filter { min_amount, channels, categories, skus } = rule.filter.clone();
        (rule.filter != Filter::default()).then(|| Self {
            min_amount: min_amount.map(|minor| Money::new(minor, rule.currency)),
            channels,
            categories,
            skus,
        })
    }
}

/// How a customer's purchases are grouped.
#[derive(Clone, Debug, Union)]
pub enum WindowRule {
    /// The whole period.
    Campaign(CampaignWindow),
    /// Blocks of calendar units.
    Calendar(CalendarWindow),
    /// Local occurrences.
    Recurring(RecurringWindow),
    /// Neighbours less than a gap apart.
    Session(SessionWindow),
    /// Opened by a purchase.
    Timer(TimerWindow),
    /// The span before each purchase.
    Rolling(RollingWindow),
}

/// One window: the whole period of the campaign.
#[derive(Clone, Debug, SimpleObject)]
pub struct CampaignWindow {
    /// The campaign's start.
    opens_at: DateTime,
    /// The campaign's end; null: it is open-ended.
    closes_at: Option<DateTime>,
}

/// Blocks of days, weeks, months, quarters or years in the campaign's time zone, from local midnight to local midnight.
#[derive(Clone, Debug, SimpleObject)]
pub struct CalendarWindow {
    /// What is counted.
    unit: CalendarUnit,
    /// Units in a block, counted from the unit that contains the campaign's start.
    every: i32,
    /// Where weeks begin.
    week_starts_on: Weekday,
}

/// A window on each of some weekdays, between two times of day in the campaign's time zone.
#[derive(Clone, Debug, SimpleObject)]
pub struct RecurringWindow {
    /// Days on which it opens.
    weekdays: Vec<Weekday>,
    /// When it opens.
    from: LocalTime,
    /// When it closes; at or before `from`: on the next day.
    to: LocalTime,
}

/// Purchases that follow each other in less than a gap.
#[derive(Clone, Debug, SimpleObject)]
pub struct SessionWindow {
    /// A purchase so long after the one before it opens the next session.
    gap: Duration,
}

/// Opened by the customer's first purchase that counts.
#[derive(Clone, Debug, SimpleObject)]
pub struct TimerWindow {
    /// How long it is open.
    duration: Duration,
    /// Whether the first purchase after it closed opens the next; otherwise there is one window.
    reopens: bool,
}

/// No fixed bounds: each purchase counts together with those shortly before it that no earlier award used up.
#[derive(Clone, Debug, SimpleObject)]
pub struct RollingWindow {
    /// How far back purchases count.
    duration: Duration,
}

impl WindowRule {
    pub(super) fn of(campaign: &Campaign) -> Self {
        let text = |span: &crate::engine::time::Span| Duration(span.as_str().to_owned());
        match &campaign.rule.window {
            window::WindowRule::Campaign => {
                let period = campaign.life.period.interval();
                let (opens_at, closes_at) = (period.opens.into(), closes_at(period));
                Self::Campaign(CampaignWindow { opens_at, closes_at })
            }
            window::WindowRule::Calendar(Calendar { unit, every, week_starts_on }) => {
                let (unit, week_starts_on) = ((*unit).into(), (*week_starts_on).into());
                Self::Calendar(CalendarWindow { unit, every: *every, week_starts_on })
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

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "window::CalendarUnit")]
pub enum CalendarUnit {
    /// From local midnight to local midnight.
    Day,
    /// Seven days, from `weekStartsOn`.
    Week,
    /// From the 1st.
    Month,
    /// From January, April, July or October 1st.
    Quarter,
    /// From January 1st.
    Year,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "window::Weekday")]
pub enum Weekday {
    /// Monday.
    Monday,
    /// Tuesday.
    Tuesday,
    /// Wednesday.
    Wednesday,
    /// Thursday.
    Thursday,
    /// Friday.
    Friday,
    /// Saturday.
    Saturday,
    /// Sunday.
    Sunday,
}

/// What must be reached in a window.
#[derive(Clone, Debug, Union)]
pub enum Goal {
    /// Each purchase.
    EveryPurchase(EveryPurchaseGoal),
    /// So many purchases.
    Purchases(PurchasesGoal),
    /// So much money.
    Spend(SpendGoal),
    /// So many different things.
    Distinct(DistinctGoal),
    /// So many windows in a row.
    Streak(StreakGoal),
}

/// Reached by each purchase that counts.
#[derive(Clone, Debug, SimpleObject)]
pub struct EveryPurchaseGoal {
    /// Purchases that reach it: always 1.
    at_least: i32,
}

/// Reached by the n-th purchase of a window.
#[derive(Clone, Debug, SimpleObject)]
pub struct PurchasesGoal {
    /// How many.
    at_least: i32,
    /// Whether the 2n-th, 3n-th … reach it again.
    repeat: bool,
}

/// Reached when a window's purchases sum to an amount.
#[derive(Clone, Debug, SimpleObject)]
pub struct SpendGoal {
    /// How much.
    amount: Money,
    /// Whether each further multiple reaches it again.
    repeat: bool,
}

/// Reached when so many different things were bought in a window.
#[derive(Clone, Debug, SimpleObject)]
pub struct DistinctGoal {
    /// What must differ.
    of: DistinctOf,
    /// How many.
    at_least: i32,
}

/// Reached when so many calendar windows in a row had enough purchases.
#[derive(Clone, Debug, SimpleObject)]
pub struct StreakGoal {
    /// How many windows.
    length: i32,
    /// How many purchases each of them needs.
    purchases_per_window: i32,
    /// Whether counting starts again at the next window; otherwise the first run is the only one.
    repeat: bool,
}

/// What a distinct goal tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "goal::DistinctOf")]
pub enum DistinctOf {
    /// Articles.
    Sku,
    /// Categories; lines without one do not count.
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
            goal::Goal::Streak { length, purchases_per_window, repeat } => {
                Self::Streak(StreakGoal { length, purchases_per_window, repeat })
            }
        }
    }
}

/// What reaching the goal is worth.
#[derive(Clone, Debug, Union)]
pub enum AwardRule {
    /// The same each time.
    Points(FixedPoints),
    /// By the amount of the purchase.
    PointsPerUnit(PointsPerUnit),
}

/// The same points each time.
#[derive(Clone, Debug, SimpleObject)]
pub struct FixedPoints {
    /// How many.
    points: Points,
}

/// Points by what counts of the purchase that reached the goal, rounded down.
#[derive(Clone, Debug, SimpleObject)]
pub struct PointsPerUnit {
    /// Points for each major unit of the currency.
    rate: Decimal,
}

impl AwardRule {
    pub(super) fn of(rule: &Rule) -> Self {
        match &rule.award {
            award::AwardRule::Points(points) => Self::Points(FixedPoints { points: Points(*points) }),
            award::AwardRule::PointsPerUnit(rate) => {
                Self::PointsPerUnit(PointsPerUnit { rate: Decimal(rate.format()) })
            }
        }
    }
}
