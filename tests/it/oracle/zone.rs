//! Local clocks by their definition: a clock is a list of pieces, each with a constant offset. jiff supplies the
//! offsets and the transitions. It never resolves a local time here.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{DAY, HOUR, Instant, MINUTE, SECOND, Span};

/// What a local clock shows, in microseconds since that clock showed 1970-01-01T00:00.
pub(crate) type Reading = i64;

/// The pieces of the zone's time line that overlap `[from, to]`. Each has the instant at which it begins and the offset
/// of local time from UTC.
pub(crate) fn pieces(zone: &str, from: Instant, to: Instant) -> Vec<(Instant, Span)> {
    let tz = TimeZone::get(zone).expect("a zone of the bundled data");
    let start = Timestamp::from_microsecond(from).expect("an instant in range");
    let mut pieces = vec![(from, i64::from(tz.to_offset(start).seconds()) * SECOND)];
    for change in tz.following(start) {
        let at = change.timestamp().as_microsecond();
        if at > to {
            break;
        }
        pieces.push((at, i64::from(change.offset().seconds()) * SECOND));
    }
    pieces
}

/// What the clock shows at an instant.
pub(crate) fn reading(zone: &str, at: Instant) -> Reading {
    at + pieces(zone, at, at)[0].1
}

/// "A local time that a clock change skips stands for the instant of the change. A local time that occurs twice stands
/// for the earlier instant." Both are the first instant at which the clock shows `wanted` or more.
pub(crate) fn bound(zone: &str, wanted: Reading) -> Instant {
    let pieces = pieces(zone, wanted - 2 * DAY, wanted + 2 * DAY);
    for (i, (since, offset)) in pieces.iter().enumerate() {
        let first = (wanted - offset).max(*since);
        if pieces.get(i + 1).is_none_or(|(until, _)| first < *until) {
            return first;
        }
    }
    unreachable!("the last piece has no end")
}

/// The reading of the clock on a date at the given hour and minute.
pub(crate) fn clock(date: Date, (hour, minute): (u8, u8)) -> Reading {
    days(date) * DAY + i64::from(hour) * HOUR + i64::from(minute) * MINUTE
}

pub(crate) fn midnight(zone: &str, date: Date) -> Instant {
    bound(zone, clock(date, (0, 0)))
}

/// The date that the clock shows at an instant.
pub(crate) fn date_shown(zone: &str, at: Instant) -> Date {
    plus_days(jiff::civil::date(1970, 1, 1), reading(zone, at).div_euclid(DAY))
}

pub(crate) fn plus_days(date: Date, days: i64) -> Date {
    date.checked_add(jiff::Span::new().days(days)).expect("a date in range")
}

pub(crate) fn plus_months(date: Date, months: i64) -> Date {
    date.checked_add(jiff::Span::new().months(months)).expect("a date in range")
}

fn days(date: Date) -> i64 {
    let since = date.duration_since(jiff::civil::date(1970, 1, 1)).as_secs();
    since / (24 * 60 * 60)
}
