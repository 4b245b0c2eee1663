//! The dates of points: when they become available, and when they expire.

use super::time::{Instant, IsoDuration, LocalTime};
use super::window::{Calendar, CalendarUnit, Weekday};
use super::zone::Zone;

/// A span that is a multiple of this is counted in local days, in µs.
const DAY: i64 = 24 * 3_600 * 1_000_000;

/// When points become available, and when they expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dates {
    /// The points are pending before this instant. `None`: they are available at once.
    pub available_at: Option<Instant>,
    /// The points are gone from this instant on. `None`: they never expire.
    pub expires_at: Option<Instant>,
}

/// Returns the end of a span that begins at `begin`, or `None` if it lies outside the calendar. A multiple of 24 hours is a number of
/// local days. They are counted from the first start of a day that is not before `begin`.
pub(super) fn end_of(span: &IsoDuration, begin: Instant, zone: &Zone, day_starts_at: LocalTime) -> Option<Instant> {
    let end = if span.micros() % DAY == 0 {
        let days = Calendar { unit: CalendarUnit::Day, every: 1, week_starts_on: Weekday::Monday, day_starts_at };
        days.units_after(zone, begin, span.micros() / DAY)
    } else {
        begin.plus(span.micros())
    };
    Some(end).filter(|end| *end != Instant::FOREVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rule::Rule;
    use crate::engine::time::parse_instant;
    use crate::engine::window::WindowRule;

    fn rule() -> Rule {
        let rule = r#"{"time_zone": "UTC", "currency": "EUR", "window": "campaign", "goal": "every_purchase", "award": {"points": 10},
            "lateness": "P30D"}"#;
        serde_json::from_str(rule).unwrap()
    }

    fn dates(zone: &str, hold: Option<&str>, expiry: Option<&str>, earned_at: &str) -> (String, String) {
        let span = |text: Option<&str>| text.map(|text| IsoDuration::parse(text).unwrap());
        let rule =
            Rule { time_zone: Zone::parse(zone).unwrap(), hold_for: span(hold), expires_after: span(expiry), ..rule() };
        let Dates { available_at, expires_at } = rule.dates(parse_instant(earned_at).unwrap());
        let show = |at: Option<Instant>| at.map_or("none".to_owned(), |at| at.to_string());
        (show(available_at), show(expires_at))
    }

    fn are(dates: &(String, String), available_at: &str, expires_at: &str) {
        assert_eq!((dates.0.as_str(), dates.1.as_str()), (available_at, expires_at));
    }

    #[test]
    fn days_are_local_and_counted_from_the_next_start_of_one() {
        let vienna = |hold, expiry, at| dates("Europe/Vienna", hold, expiry, at);
        are(&vienna(None, None, "2026-03-20T12:00:00Z"), "none", "none");
        // Two days after the midnight that follows, and three days after that, across the change to summer time.
        let both = vienna(Some("P2D"), Some("P7D"), "2026-03-25T12:00:00Z");
        are(&both, "2026-03-27T23:00:00Z", "2026-04-03T22:00:00Z");
        // A midnight is the start of a day itself.
        are(&vienna(None, Some("P1D"), "2026-03-24T23:00:00Z"), "none", "2026-03-25T23:00:00Z");
        are(&vienna(None, Some("P1D"), "2026-03-24T23:00:00.000001Z"), "none", "2026-03-26T23:00:00Z");
        // 48 hours are two days, and 36 hours are exact.
        are(&vienna(Some("PT48H"), None, "2026-03-25T12:00:00Z"), "2026-03-27T23:00:00Z", "none");
        are(&vienna(Some("PT36H"), None, "2026-03-28T12:00:00Z"), "2026-03-30T00:00:00Z", "none");
        // Days after exact hours begin with the next day.
        are(&vienna(Some("PT1H"), Some("P1D"), "2026-06-01T12:00:00Z"), "2026-06-01T13:00:00Z", "2026-06-02T22:00:00Z");
    }

    #[test]
    fn days_begin_when_those_of_the_window_do() {
        let day_starts_at = LocalTime::parse("04:00").unwrap();
        let calendar = Calendar { unit: CalendarUnit::Week, every: 1, week_starts_on: Weekday::Monday, day_starts_at };
        let span = IsoDuration::parse("P1D").unwrap();
        let rule = Rule { window: WindowRule::Calendar(calendar), hold_for: Some(span), ..rule() };
        let available_at = |at| rule.dates(parse_instant(at).unwrap()).available_at;
        assert_eq!(available_at("2026-06-01T03:59:59Z"), parse_instant("2026-06-02T04:00:00Z").ok());
        assert_eq!(available_at("2026-06-01T04:00:00Z"), parse_instant("2026-06-02T04:00:00Z").ok());
        assert_eq!(available_at("2026-06-01T04:00:01Z"), parse_instant("2026-06-03T04:00:00Z").ok());
    }
}
