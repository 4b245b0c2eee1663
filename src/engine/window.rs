//! Windows: half-open intervals of one customer's time in which a goal is counted.
//!
//! This file knows the windows that time alone fixes (`campaign`, `calendar`, `recurring`). Those that purchases open
//! (`session`, `timer`, `rolling`) are regrouped by the fold in [`super::state`].

use jiff::civil::{Date, DateTime};
use jiff::{Span as CivilSpan, ToSpan};
use serde::{Deserialize, Serialize};

use super::time::{Instant, LocalTime, Span};
use super::zone::Zone;

/// How a customer's eligible purchases are grouped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// The whole period.
    Campaign,
    /// Blocks of calendar units.
    Calendar(Calendar),
    /// Local occurrences such as Fridays 18:00–20:00.
    Recurring(Recurring),
    /// Neighbours less than a gap apart.
    Session {
        /// A purchase this long after its neighbour opens the next session.
        gap: Span,
    },
    /// Opened by a purchase.
    Timer {
        /// From its first purchase.
        duration: Span,
        /// Whether the first purchase after the close opens the next.
        reopens: bool,
    },
    /// The span before each purchase.
    Rolling {
        /// How far back purchases count.
        duration: Span,
    },
}

impl WindowRule {
    /// Whether a customer has one window in all.
    pub const fn is_only_one(&self) -> bool {
        matches!(self, Self::Campaign | Self::Timer { reopens: false, .. })
    }
}

/// Blocks of `every` units, counted from the unit that contains the campaign's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// What is counted.
    pub unit: CalendarUnit,
    /// Units a block, ≥ 1.
    pub every: i32,
    /// For weeks.
    pub week_starts_on: Weekday,
}

/// One window a local occurrence; `to <= from` runs past midnight and belongs to the day it starts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurring {
    /// Days on which it opens; not empty.
    pub weekdays: Vec<Weekday>,
    /// Opens.
    pub from: LocalTime,
    /// Closes.
    pub to: LocalTime,
}

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CalendarUnit {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    fn of(date: Date) -> Self {
        match date.weekday() {
            jiff::civil::Weekday::Monday => Self::Monday,
            jiff::civil::Weekday::Tuesday => Self::Tuesday,
            jiff::civil::Weekday::Wednesday => Self::Wednesday,
            jiff::civil::Weekday::Thursday => Self::Thursday,
            jiff::civil::Weekday::Friday => Self::Friday,
            jiff::civil::Weekday::Saturday => Self::Saturday,
            jiff::civil::Weekday::Sunday => Self::Sunday,
        }
    }
}

/// A half-open interval `[opens, closes)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// First instant inside.
    #[serde(rename = "o")]
    pub opens: Instant,
    /// First instant after; [`Instant::FOREVER`] where there is none.
    #[serde(rename = "c")]
    pub closes: Instant,
}

impl Interval {
    /// Whether the instant lies inside.
    pub fn contains(self, at: Instant) -> bool {
        self.opens <= at && at < self.closes
    }

    /// Its part inside `period`. A closed interval of one instant (rolling) stays as it is.
    pub fn clip(self, period: Self) -> Self {
        Self { opens: self.opens.max(period.opens), closes: self.closes.min(period.closes) }
    }
}

impl Calendar {
    /// The block that contains the instant, which is not before `starts_at`.
    pub fn window_at(&self, zone: &Zone, starts_at: Instant, at: Instant) -> Interval {
        let base = self.unit_at(zone, starts_at);
        let every = i64::from(self.every);
        let block = (self.unit_at(zone, at) - base).div_euclid(every);
        let opens = base + block * every;
        Interval { opens: self.unit_bound(zone, opens), closes: self.unit_bound(zone, opens + every) }
    }

    /// The index of the unit that contains the instant, whatever date the local clock shows: after a change back over
    /// midnight it shows yesterday's, but the new day's bound has passed.
    fn unit_at(&self, zone: &Zone, at: Instant) -> i64 {
        let mut unit = self.index(zone.date(at));
        while self.unit_bound(zone, unit + 1) <= at {
            unit += 1;
        }
        unit
    }

    /// Where the unit begins: its local midnight.
    fn unit_bound(&self, zone: &Zone, unit: i64) -> Instant {
        self.first_day(unit).map_or(Instant::FOREVER, |date| zone.bound(date.at(0, 0, 0, 0)))
    }

    /// Units since the one that 1970-01-01 lies in (weeks: since the first that starts in 1970 or just before).
    fn index(&self, date: Date) -> i64 {
        let month = i64::from(date.month()) - 1;
        match self.unit {
            CalendarUnit::Day => days(date),
            CalendarUnit::Week => (days(date) - self.week_offset()).div_euclid(7),
            CalendarUnit::Month => i64::from(date.year()) * 12 + month,
            CalendarUnit::Quarter => i64::from(date.year()) * 4 + month / 3,
            CalendarUnit::Year => i64::from(date.year()),
        }
    }

    /// The inverse of [`Self::index`]; none beyond the calendar.
    fn first_day(&self, unit: i64) -> Option<Date> {
        let day = |days: i64| EPOCH_DAY.checked_add(CivilSpan::new().try_days(days).ok()?).ok();
        let month = |months: i64| {
            let year = i16::try_from(months.div_euclid(12)).ok()?;
            let month = i8::try_from(months.rem_euclid(12) + 1).ok()?;
            Date::new(year, month, 1).ok()
        };
        match self.unit {
            CalendarUnit::Day => day(unit),
            CalendarUnit::Week => day(unit.checked_mul(7)? + self.week_offset()),
            CalendarUnit::Month => month(unit),
            CalendarUnit::Quarter => month(unit.checked_mul(3)?),
            CalendarUnit::Year => month(unit.checked_mul(12)?),
        }
    }

    /// Days from 1970-01-01, a Thursday, to the first day that starts a week.
    fn week_offset(&self) -> i64 {
        (self.week_starts_on as i64 - Weekday::Thursday as i64).rem_euclid(7)
    }
}

const EPOCH_DAY: Date = jiff::civil::date(1970, 1, 1);

fn days(date: Date) -> i64 {
    EPOCH_DAY.until(date).map_or(0, |span| i64::from(span.get_days()))
}

impl Recurring {
    /// The occurrence that contains the instant.
    pub fn window_at(&self, zone: &Zone, at: Instant) -> Option<Interval> {
        self.occurrences(zone, at, 2).find(|window| window.contains(at))
    }

    /// The first occurrence that opens after the instant.
    pub fn next_window(&self, zone: &Zone, at: Instant) -> Option<Interval> {
        // An occurrence can be lost to a clock change, at worst one a change; five weeks hold at least four others.
        self.occurrences(zone, at, 35).find(|window| window.opens > at)
    }

    /// Occurrences of the days around the instant, in order; those without an instant do not exist.
    fn occurrences(&self, zone: &Zone, at: Instant, days_ahead: i64) -> impl Iterator<Item = Interval> {
        let today = zone.date(at);
        // Two days back: past midnight, and a local date that a clock change carried a day ahead.
        (-2..=days_ahead).filter_map(move |offset| {
            let date = today.checked_add(offset.days()).ok()?;
            if !self.weekdays.contains(&Weekday::of(date)) {
                return None;
            }
            let window = Interval { opens: zone.bound(self.from.on(date)), closes: zone.bound(self.close_on(date)?) };
            (window.opens < window.closes).then_some(window)
        })
    }

    fn close_on(&self, date: Date) -> Option<DateTime> {
        let date = if self.to <= self.from { date.tomorrow().ok()? } else { date };
        Some(self.to.on(date))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::parse_instant;

    fn calendar(unit: CalendarUnit, every: i32) -> Calendar {
        Calendar { unit, every, week_starts_on: Weekday::Monday }
    }

    fn show(window: Interval) -> String {
        format!("{} {}", window.opens, window.closes)
    }

    fn at(text: &str) -> Instant {
        parse_instant(text).unwrap()
    }

    #[test]
    fn blocks_count_from_the_unit_of_the_start() {
        let zone = Zone::parse("Europe/Vienna").unwrap();
        let window = |unit, every, t| show(calendar(unit, every).window_at(&zone, at("2026-03-18T12:00:00Z"), at(t)));
        use CalendarUnit::{Day, Month, Quarter, Week, Year};
        assert_eq!(window(Day, 1, "2026-03-29T12:00:00Z"), "2026-03-28T23:00:00Z 2026-03-29T22:00:00Z");
        assert_eq!(window(Week, 2, "2026-04-05T12:00:00Z"), "2026-03-29T22:00:00Z 2026-04-12T22:00:00Z");
        assert_eq!(window(Month, 2, "2026-04-30T12:00:00Z"), "2026-02-28T23:00:00Z 2026-04-30T22:00:00Z");
        assert_eq!(window(Quarter, 1, "2026-04-01T00:00:00Z"), "2026-03-31T22:00:00Z 2026-06-30T22:00:00Z");
        assert_eq!(window(Year, 1, "2026-12-31T23:00:00Z"), "2026-12-31T23:00:00Z 2027-12-31T23:00:00Z");
        assert!(window(Year, i32::MAX, "2026-12-31T23:00:00Z").ends_with("unbounded"));
    }

    #[test]
    fn a_day_contains_instants_not_dates() {
        // St John's went back from 00:01 to 23:01: the clock shows the day before once more.
        let zone = Zone::parse("America/St_Johns").unwrap();
        let day = |t| show(calendar(CalendarUnit::Day, 1).window_at(&zone, at("2006-10-01T12:00:00Z"), at(t)));
        let the_29th = "2006-10-29T02:30:00Z 2006-10-30T03:30:00Z";
        assert_eq!(day("2006-10-29T02:30:30Z"), the_29th);
        assert_eq!(day("2006-10-29T02:45:00Z"), the_29th);
        // Apia skipped a day: the 29th is followed by the 31st.
        let zone = Zone::parse("Pacific/Apia").unwrap();
        let day = |t| show(calendar(CalendarUnit::Day, 1).window_at(&zone, at("2011-12-01T12:00:00Z"), at(t)));
        assert_eq!(day("2011-12-30T09:59:59Z"), "2011-12-29T10:00:00Z 2011-12-30T10:00:00Z");
        assert_eq!(day("2011-12-30T10:00:00Z"), "2011-12-30T10:00:00Z 2011-12-31T10:00:00Z");
    }

    #[test]
    fn an_occurrence_past_midnight_belongs_to_the_day_it_starts_on() {
        let zone = Zone::parse("Europe/Vienna").unwrap();
        let time = |text| LocalTime::parse(text).unwrap();
        let fridays = Recurring { weekdays: vec![Weekday::Friday], from: time("22:00"), to: time("02:00") };
        let window = fridays.window_at(&zone, at("2026-11-06T23:30:00Z")).unwrap();
        assert_eq!(show(window), "2026-11-06T21:00:00Z 2026-11-07T01:00:00Z");
        assert_eq!(fridays.window_at(&zone, at("2026-11-06T01:30:00Z")), None);
        let next = fridays.next_window(&zone, at("2026-11-06T21:00:00Z")).unwrap();
        assert_eq!(show(next), "2026-11-13T21:00:00Z 2026-11-14T01:00:00Z");
        // from = to: 24 local hours, here 25 hours long.
        let sundays = Recurring { weekdays: vec![Weekday::Sunday], from: time("00:00"), to: time("00:00") };
        let window = sundays.window_at(&zone, at("2026-10-25T12:00:00Z")).unwrap();
        assert_eq!(show(window), "2026-10-24T22:00:00Z 2026-10-25T23:00:00Z");
    }
}
