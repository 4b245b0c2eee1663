//! Converts the plain types of the oracle to those of the engine.

use windfall::engine::award::{AwardRule, CategoryRate, CategoryRates, Rate, Reached};
use windfall::engine::dates::Dates;
use windfall::engine::goal::{DistinctOf, Goal};
use windfall::engine::money::Currency;
use windfall::engine::progress::{Progress, Standing, Unit as CountedUnit};
use windfall::engine::purchase::{Key, Line, Purchase, Refund, RefundLine, RunningSum};
use windfall::engine::rule::{Filter, Pause, Period, Rule};
use windfall::engine::time::{Instant, IsoDuration, LocalTime};
use windfall::engine::window::{Calendar, CalendarUnit, Interval, Recurring, Weekday, WindowRule};
use windfall::engine::zone::Zone;

use crate::oracle;
use crate::oracle::generate::Fact;

pub(crate) fn rule(c: &oracle::Campaign) -> Rule {
    Rule {
        time_zone: Zone::parse(&c.zone).expect("a zone of the bundled data"),
        currency: currency(&c.currency),
        filter: Filter {
            min_amount: c.filter.min_amount,
            channels: c.filter.channels.clone(),
            categories: c.filter.categories.clone(),
            skus: c.filter.skus.clone(),
            excluded_categories: c.filter.excluded_categories.clone(),
            excluded_skus: c.filter.excluded_skus.clone(),
        },
        window: window(&c.window),
        goal: goal(&c.goal),
        award: match &c.award {
            oracle::AwardRule::Points(points) => AwardRule::Points(*points),
            oracle::AwardRule::PointsPerUnit { rate_micro } => AwardRule::PointsPerUnit(Rate(*rate_micro)),
            oracle::AwardRule::PointsByCategory { rate_micro, rates } => {
                let of = |(categories, rate): &(Vec<String>, i64)| CategoryRate {
                    categories: categories.clone(),
                    rate: Rate(*rate),
                };
                let rates = rates.iter().map(of).collect();
                AwardRule::PointsByCategory(CategoryRates { rate: Rate(*rate_micro), rates })
            }
        },
        max_per_customer: c.max_per_customer.map(int),
        max_per_window: c.max_per_window.map(int),
        max_points_per_customer: c.max_points_per_customer,
        max_points_per_window: c.max_points_per_window,
        lateness: span(30 * oracle::DAY),
        hold_for: c.hold_for.map(span),
        expires_after: c.expires_after.map(span),
    }
}

pub(crate) fn period(c: &oracle::Campaign) -> Period {
    let pause = |(from, to): &(i64, Option<i64>)| Pause { from: Instant(*from), to: to.map(Instant) };
    Period {
        starts_at: Instant(c.starts_at),
        ends_at: c.ends_at.map(Instant),
        pauses: c.pauses.iter().map(pause).collect(),
    }
}

fn window(window: &oracle::Window) -> WindowRule {
    match window {
        oracle::Window::Campaign => WindowRule::Campaign,
        oracle::Window::Calendar { unit, every, week_starts_on, day_starts_at } => WindowRule::Calendar(Calendar {
            unit: match unit {
                oracle::Unit::Day => CalendarUnit::Day,
                oracle::Unit::Week => CalendarUnit::Week,
                oracle::Unit::Month => CalendarUnit::Month,
                oracle::Unit::Quarter => CalendarUnit::Quarter,
                oracle::Unit::Year => CalendarUnit::Year,
            },
            every: int(i64::from(*every)),
            week_starts_on: weekday(*week_starts_on),
            day_starts_at: local_time(*day_starts_at),
        }),
        oracle::Window::Recurring { weekdays, from, to } => WindowRule::Recurring(Recurring {
            weekdays: weekdays.iter().map(|day| weekday(*day)).collect(),
            from: local_time(*from),
            to: local_time(*to),
        }),
        oracle::Window::Session { gap } => WindowRule::Session { gap: span(*gap) },
        oracle::Window::Timer { duration, reopens } => {
            WindowRule::Timer { duration: span(*duration), reopens: *reopens }
        }
        oracle::Window::Rolling { duration } => WindowRule::Rolling { duration: span(*duration) },
    }
}

fn goal(goal: &oracle::Goal) -> Goal {
    let number = |n: u32| int(i64::from(n));
    match *goal {
        oracle::Goal::EveryPurchase => Goal::EveryPurchase,
        oracle::Goal::Purchases { n, repeat } => Goal::Purchases { at_least: number(n), repeat },
        oracle::Goal::Spend { minor, repeat } => Goal::Spend { at_least: minor, repeat },
        oracle::Goal::Units { n, repeat } => Goal::Units { at_least: number(n), repeat },
        oracle::Goal::Distinct { of_category, n } => {
            Goal::Distinct { of: if of_category { DistinctOf::Category } else { DistinctOf::Sku }, at_least: number(n) }
        }
        oracle::Goal::Streak { length, per_window, repeat } => {
            Goal::Streak { length: number(length), purchases_per_window: number(per_window), repeat }
        }
    }
}

pub(crate) fn purchase(p: &oracle::Purchase) -> Purchase {
    let sum = |sum: &oracle::Sum| RunningSum {
        revision: 0,
        amount: sum.amount,
        currency: currency(&sum.currency),
        until: sum.until.map(Instant),
        set_revision: 0,
    };
    Purchase {
        key: key(p),
        total: p.total,
        currency: currency(&p.currency),
        channel: p.channel.clone(),
        lines: p.lines.iter().map(line).collect(),
        refunds: p.refunds.iter().map(refund).collect(),
        sums: p.sum.iter().map(sum).collect(),
        set_revision: 0,
        replaced_at: None,
    }
}

pub(crate) fn key(p: &oracle::Purchase) -> Key {
    Key { at: Instant(p.at), external_id: p.external_id.clone() }
}

/// A purchase as one content states it, without refunds.
pub(crate) fn content(external_id: &str, content: &oracle::contents::Content) -> Purchase {
    let sum = |amount: i64| RunningSum {
        revision: content.revision,
        amount,
        currency: currency(&content.currency),
        until: content.refunded_until.map(Instant),
        set_revision: 0,
    };
    Purchase {
        key: Key { at: Instant(content.at), external_id: external_id.to_owned() },
        total: content.total,
        currency: currency(&content.currency),
        channel: content.channel.clone(),
        lines: content.lines.iter().map(line).collect(),
        refunds: Vec::new(),
        sums: content.refunded.map(sum).into_iter().collect(),
        set_revision: 0,
        replaced_at: None,
    }
}

fn line(line: &oracle::Line) -> Line {
    Line {
        sku: line.sku.clone(),
        category: line.category.clone(),
        quantity: int(i64::from(line.quantity)),
        amount: line.amount,
    }
}

pub(crate) fn refund(refund: &oracle::Refund) -> Refund {
    Refund {
        amount: refund.amount,
        currency: currency(&refund.currency),
        refunded_at: Instant(refund.at),
        lines: refund.lines.iter().map(|(sku, amount)| RefundLine { sku: sku.clone(), amount: *amount }).collect(),
        set_revision: 0,
    }
}

/// The external id of the purchase that is recorded or refunded.
pub(crate) fn subject(fact: &Fact) -> &str {
    match fact {
        Fact::Purchase { external_id, .. } => external_id,
        Fact::Refund { of, .. } => of,
    }
}

/// `purchases` must contain the evidence of the award.
pub(crate) fn reached(c: &oracle::Campaign, award: &oracle::Award, purchases: &[oracle::Purchase]) -> Reached {
    let first = purchases.iter().find(|p| p.external_id == award.evidence[0]).expect("a recorded purchase");
    let opens = award.opens_at.expect("every window opens");
    Reached {
        by: Key { at: Instant(award.earned_at), external_id: award.purchase.clone() },
        nth: int(i64::from(award.nth)),
        ordinal: award.ordinal,
        points: award.points,
        points_before_cap: award.points_before_cap,
        window: interval((opens, award.closes_at)),
        dates: Dates { available_at: award.available_at(c).map(Instant), expires_at: award.expires_at(c).map(Instant) },
        evidence_from: key(first),
    }
}

pub(crate) fn progress(progress: &oracle::progress::Progress) -> Progress {
    let amount = |n: i128| i64::try_from(n).expect("within the limits");
    Progress {
        standing: match progress.state {
            oracle::progress::State::NotStarted => Standing::NotStarted,
            oracle::progress::State::InProgress => Standing::InProgress,
            oracle::progress::State::Reached => Standing::Reached,
            oracle::progress::State::Exhausted => Standing::Exhausted,
        },
        unit: match progress.unit {
            oracle::progress::CountedUnit::Purchases => CountedUnit::Purchases,
            oracle::progress::CountedUnit::Money => CountedUnit::Money,
            oracle::progress::CountedUnit::Distinct => CountedUnit::Distinct,
            oracle::progress::CountedUnit::Units => CountedUnit::Units,
            oracle::progress::CountedUnit::Windows => CountedUnit::Windows,
        },
        current: amount(progress.current),
        target: amount(progress.target),
        window: progress.window.map(interval),
        next_window: progress.next_window.map(interval),
        awards_earned: progress.awards_earned,
        awards_left: progress.awards_left,
    }
}

fn interval((opens, closes): (i64, Option<i64>)) -> Interval {
    Interval { opens: Instant(opens), closes: closes.map_or(Instant::FOREVER, Instant) }
}

pub(crate) fn span(micros: i64) -> IsoDuration {
    let text = format!("PT{}.{:06}S", micros / oracle::SECOND, micros % oracle::SECOND);
    let span = IsoDuration::parse(&text).expect("a span");
    assert_eq!(span.micros(), micros, "{text}");
    span
}

fn currency(code: &str) -> Currency {
    Currency::parse(code).expect("a listed currency")
}

fn local_time((hour, minute): (u8, u8)) -> LocalTime {
    LocalTime::parse(&format!("{hour:02}:{minute:02}")).expect("a time of day")
}

fn weekday(day: u8) -> Weekday {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};
    [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday][usize::from(day)]
}

fn int(n: i64) -> i32 {
    i32::try_from(n).expect("a small number")
}
