//! Windows: half-open intervals of one customer's time in which a goal is counted.
//!
//! This module computes the windows whose bounds depend on time alone: `calendar` and `recurring`. The fold in
//! [`super::state`] assigns purchases to windows, and computes the windows that purchases open (`session`, `timer`).

use jiff::civil::{Date, DateTime};
use jiff::{Span, ToSpan};
use serde::{Deserialize, Serialize};

use super::time::{Instant, IsoDuration, LocalTime};
use super::zone::Zone;

/// How a customer's eligible purchases are grouped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// The whole period is one window.
    Campaign,
    /// Each block of calendar units is one window.
    Calendar(Calendar),
    /// Each local occurrence is one window, for example Fridays from 18:00 to 20:00.
    Recurring(Recurring),
    /// Neighbouring purchases less than `gap` apart belong to one window.
    Session {
        /// A purchase that follows its neighbour after this span or later opens the next session.
        gap: IsoDuration,
    },
    /// The first eligible purchase opens a window of a fixed length.
    Timer {
        /// The length of the window from its first purchase on.
        duration: IsoDuration,
        /// Whether the first eligible purchase at or after the close opens the next window.
        reopens: bool,
    },
    /// Each purchase is counted together with those in the `duration` before it.
    Rolling {
        /// A purchase exactly this long before another one is too old to be counted with it.
        duration: IsoDuration,
    },
}

impl WindowRule {
    /// Whether a customer can have only one window in the campaign.
    pub const fn is_only_one(&self) -> bool {
        matches!(self, Self::Campaign | Self::Timer { reopens: false, .. })
    }
}

/// Blocks of `every` units, counted from the unit that contains the campaign's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    pub unit: CalendarUnit,
    /// The number of units in a block, at least 1.
    pub every: i32,
    /// Used for [`CalendarUnit::Week`] only.
    pub week_starts_on: Weekday,
    /// The local time at which each unit begins on its first day.
    #[serde(default, skip_serializing_if = "LocalTime::is_midnight")]
    pub day_starts_at: LocalTime,
}

/// One window per local occurrence. If `to` is not after `from`, the window closes on the next day. It belongs to the
/// weekday on which it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recurring {
    /// The days on which a window opens; not empty.
    pub weekdays: Vec<Weekday>,
    pub from: LocalTime,
    pub to: LocalTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CalendarUnit {
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

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

/// A half-open interval `[opens, closes)`. The window of a `rolling` award is an exception: it contains `closes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The first instant inside.
    #[serde(rename = "o")]
    pub opens: Instant,
    /// The first instant after the interval; [`Instant::FOREVER`] if the interval has no end.
    #[serde(rename = "c")]
    pub closes: Instant,
}

impl Interval {
    pub fn contains(self, at: Instant) -> bool {
        self.opens <= at && at < self.closes
    }

    /// Returns the part inside `period`. The window of a `rolling` award with a single purchase contains one instant
    /// (`opens` equals `closes`) and stays as it is.
    pub fn clip(self, period: Self) -> Self {
        Self { opens: self.opens.max(period.opens), closes: self.closes.min(period.closes) }
    }
}

impl Calendar {
    /// Returns the block that contains the instant `at`, which is not before `starts_at`.
    pub fn window_at(&self, zone: &Zone, starts_at: Instant, at: Instant) -> Interval {
        let base = self.unit_at(zone, starts_at);
        let every = i64::from(self.every);
        let block = (self.unit_at(zone, at) - base).div_euclid(every);
        let opens = base + block * every;
        Interval { opens: self.unit_bound(zone, opens), closes: self.unit_bound(zone, opens + every) }
    }

    /// Returns the instant at which `units` units have passed since the first unit that begins at `begin` or later.
    pub(super) fn units_after(&self, zone: &Zone, begin: Instant, units: i64) -> Instant {
        let current = self.unit_at(zone, begin);
        let is_start = self.unit_bound(zone, current) == begin;
        let start = if is_start { begin } else { self.unit_bound(zone, current + 1) };
        // A day that a clock change skips begins at the same instant as the next one.
        self.unit_bound(zone, self.unit_at(zone, start) + units)
    }

    /// Returns the index of the unit that contains the instant. The date on a local clock is not enough: if the clock is
    /// set back across midnight, it shows the previous date again, although the new day has begun.
    fn unit_at(&self, zone: &Zone, at: Instant) -> i64 {
        // A date is shown before its day begins, unless days begin at midnight.
        let mut unit = self.index(zone.date(at)) - i64::from(!self.day_starts_at.is_midnight());
        while self.unit_bound(zone, unit + 1) <= at {
            unit += 1;
        }
        unit
    }

    /// Returns the instant at which the unit begins, or [`Instant::FOREVER`] outside the calendar.
    fn unit_bound(&self, zone: &Zone, unit: i64) -> Instant {
        self.first_day(unit).map_or(Instant::FOREVER, |date| zone.bound(self.day_starts_at.on(date)))
    }

    /// Returns the index of the unit that contains the date. Days are counted from 1970-01-01, weeks from the first week
    /// that begins on or after that date, and all other units from the beginning of the year 0.
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

    /// The inverse of [`Self::index`]. Returns `None` for units outside the calendar.
    fn first_day(&self, unit: i64) -> Option<Date> {
        let day = |days: i64| EPOCH_DAY.checked_add(Span::new().try_days(days).ok()?).ok();
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

    /// Returns the number of days from 1970-01-01, a Thursday, to the first day on which a week begins.
    fn week_offset(&self) -> i64 {
        (self.week_starts_on as i64 - Weekday::Thursday as i64).rem_euclid(7)
    }
}

/// In so many days, there is another occurrence: a clock change can swallow one, at most one per change, and five weeks contain
/// at least four others.
const DAYS_OF_OTHERS: i64 = 35;

const EPOCH_DAY: Date = jiff::civil::date(1970, 1, 1);

fn days(date: Date) -> i64 {
    EPOCH_DAY.until(date).map_or(0, |span| i64::from(span.get_days()))
}

impl Recurring {
    /// Returns the occurrence that contains the instant.
    pub fn window_at(&self, zone: &Zone, at: Instant) -> Option<Interval> {
        self.occurrences(zone, at, -2, 2).find(|window| window.contains(at))
    }

    /// Returns the first occurrence that opens after the instant.
    pub fn next_window(&self, zone: &Zone, at: Instant) -> Option<Interval> {
        self.occurrences(zone, at, -2, DAYS_OF_OTHERS).find(|window| window.opens > at)
    }

    /// Returns the time between two occurrences that contains the instant, which is in no occurrence.
    pub fn gap_at(&self, zone: &Zone, at: Instant) -> Interval {
        let before = self.occurrences(zone, at, -DAYS_OF_OTHERS, 2).take_while(|window| window.closes <= at).last();
        let after = self.next_window(zone, at);
        Interval {
            opens: before.map_or(Instant::EPOCH, |window| window.closes),
            closes: after.map_or(Instant::FOREVER, |window| window.opens),
        }
    }

    /// Returns the occurrences from some days before the instant to some days after it, in order. Occurrences that contain no
    /// instant do not exist. Those from two days before it on may contain the instant: one day for an occurrence that runs past
    /// midnight, and one for a clock change that moved the local date a day ahead.
    fn occurrences(&self, zone: &Zone, at: Instant, first: i64, last: i64) -> impl Iterator<Item = Interval> {
        let today = zone.date(at);
        (first..=last).filter_map(move |offset| {
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
        Calendar { unit, every, week_starts_on: Weekday::Monday, day_starts_at: LocalTime::default() }
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
    fn a_day_begins_when_the_rule_says() {
        let zone = Zone::parse("Europe/Vienna").unwrap();
        let day_starts_at = LocalTime::parse("02:30").unwrap();
        let window = |unit, t| {
            let calendar = Calendar { day_starts_at, ..calendar(unit, 1) };
            show(calendar.window_at(&zone, at("2026-03-01T12:00:00Z"), at(t)))
        };
        use CalendarUnit::{Day, Month};
        assert_eq!(window(Day, "2026-03-28T01:29:59Z"), "2026-03-27T01:30:00Z 2026-03-28T01:30:00Z");
        // The clock skips 02:30 on the 29th. The day begins at the change.
        assert_eq!(window(Day, "2026-03-29T00:59:59Z"), "2026-03-28T01:30:00Z 2026-03-29T01:00:00Z");
        assert_eq!(window(Day, "2026-03-29T01:00:00Z"), "2026-03-29T01:00:00Z 2026-03-30T00:30:00Z");
        // It shows 02:30 twice on October 25th. The day begins at the earlier instant.
        assert_eq!(window(Day, "2026-10-25T01:10:00Z"), "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z");
        assert_eq!(window(Month, "2026-05-01T00:29:59Z"), "2026-04-01T00:30:00Z 2026-05-01T00:30:00Z");
    }

    #[test]
    fn a_day_contains_instants_not_dates() {
        // In St John's, the clocks went back from 00:01 to 23:01, so they showed the previous date again.
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
        for t in ["2026-11-07T01:00:00Z", "2026-11-13T20:59:59Z"] {
            assert_eq!(show(fridays.gap_at(&zone, at(t))), "2026-11-07T01:00:00Z 2026-11-13T21:00:00Z");
        }
        // If `from` equals `to`, the window lasts one local day, which has 25 hours here.
        let sundays = Recurring { weekdays: vec![Weekday::Sunday], from: time("00:00"), to: time("00:00") };
        let window = sundays.window_at(&zone, at("2026-10-25T12:00:00Z")).unwrap();
        assert_eq!(show(window), "2026-10-24T22:00:00Z 2026-10-25T23:00:00Z");
    }
}
