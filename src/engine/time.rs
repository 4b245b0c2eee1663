//! Instants and spans, in UTC and whole microseconds. This is the finest resolution that both databases compare and round
//! in the same way.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An instant, as the number of microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub i64);

impl Instant {
    /// Later than every instant that can be recorded. Intervals without an end close here.
    pub const FOREVER: Self = Self(i64::MAX);
    /// Earlier than every instant that can be recorded.
    pub const NEVER: Self = Self(i64::MIN);
    /// The earliest `purchasedAt` and the earliest `startsAt`.
    pub const EPOCH: Self = Self(0);

    /// Returns `self + micros`, at most [`Self::FOREVER`].
    pub const fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Returns `self − micros`, at least [`Self::NEVER`].
    pub const fn minus(self, micros: i64) -> Self {
        Self(self.0.saturating_sub(micros))
    }

    /// Returns `None` if the instant is outside the calendar, which has the years −9999 to 9999.
    pub fn timestamp(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_microsecond(self.0).ok()
    }
}

impl From<jiff::Timestamp> for Instant {
    /// Truncates finer input towards the past.
    fn from(timestamp: jiff::Timestamp) -> Self {
        let micros = timestamp.as_nanosecond().div_euclid(1_000);
        Self(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Instant {
    /// Writes RFC 3339 in UTC, with a fraction of a second only if it is not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.timestamp() {
            Some(timestamp) => timestamp.fmt(f),
            None => f.write_str("unbounded"),
        }
    }
}

/// Why an instant, a span or a local time cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    #[error("must be an RFC 3339 instant with an offset, e.g. 2026-11-02T18:00:00Z")]
    Instant,
    #[error("must be an ISO 8601 span of weeks, days, hours, minutes and seconds, e.g. P7D or PT30M")]
    Duration,
    #[error("must be a local time such as 18:00")]
    LocalTime,
}

/// In which form an instant is written, for whoever wrote it in another one.
pub const INSTANT_FORM: &str = "write an instant as RFC 3339 with an offset, such as \"2026-11-02T18:00:00+01:00\"";

/// Parses RFC 3339. An offset is required, because the instant would be a guess without one.
pub fn parse_instant(text: &str) -> Result<Instant, TimeError> {
    let bytes = text.as_bytes();
    // jiff accepts more than RFC 3339 (bracketed zones, ISO basic format). The API accepts only RFC 3339.
    let date = bytes.len() >= 20
        && bytes.len() <= 40
        && bytes[..19].iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            10 => matches!(byte, b'T' | b't' | b' '),
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        })
        && !text.contains('[');
    if !date {
        return Err(TimeError::Instant);
    }
    text.parse::<jiff::Timestamp>().map(Instant::from).map_err(|_| TimeError::Instant)
}

/// An exact span of time, together with the text that was entered. "P7D" is always 168 hours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IsoDuration {
    text: String,
    micros: i64,
}

impl IsoDuration {
    /// The longest span that a campaign may have, in microseconds: `P3660D`.
    pub const MAX_MICROS: i64 = 3660 * 24 * 3600 * 1_000_000;

    /// Parses an ISO 8601 span of weeks, days, hours, minutes and seconds. [`super::rule::faults`] checks its limits.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        // Years and months have no exact length, but jiff accepts them.
        let date_part = text.split(['T', 't']).next().unwrap_or(text);
        let well_formed = text.len() <= 40
            && text.starts_with('P')
            && text.is_ascii()
            && !date_part.contains(['Y', 'M', 'y', 'm'])
            && !text.ends_with(['P', 'T']);
        if !well_formed {
            return Err(TimeError::Duration);
        }
        let span: jiff::Span = text.parse().map_err(|_| TimeError::Duration)?;
        let nanos =
            span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| TimeError::Duration)?.as_nanos();
        let micros = i64::try_from(nanos / 1_000).map_err(|_| TimeError::Duration)?;
        Ok(Self { text: text.to_owned(), micros })
    }

    pub const fn micros(&self) -> i64 {
        self.micros
    }

    /// Returns the text that was entered.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Spans of the same length are equal: "P7D" equals "PT168H".
impl PartialEq for IsoDuration {
    fn eq(&self, other: &Self) -> bool {
        self.micros == other.micros
    }
}

impl Eq for IsoDuration {}

impl TryFrom<String> for IsoDuration {
    type Error = TimeError;
    fn try_from(text: String) -> Result<Self, TimeError> {
        Self::parse(&text)
    }
}

impl From<IsoDuration> for String {
    fn from(span: IsoDuration) -> Self {
        span.text
    }
}

/// A time of day on a local clock, to the minute. The default is midnight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LocalTime {
    hour: i8,
    minute: i8,
}

impl LocalTime {
    /// Parses `HH:MM`, from 00:00 to 23:59.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let (hour, minute) = text.split_once(':').ok_or(TimeError::LocalTime)?;
        let digits = |part: &str, end: i8| {
            let value: i8 = if part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()) {
                part.parse().map_err(|_| TimeError::LocalTime)?
            } else {
                return Err(TimeError::LocalTime);
            };
            if value < end { Ok(value) } else { Err(TimeError::LocalTime) }
        };
        Ok(Self { hour: digits(hour, 24)?, minute: digits(minute, 60)? })
    }

    pub fn is_midnight(&self) -> bool {
        *self == Self::default()
    }

    /// Returns this time of day on the given date.
    pub fn on(self, date: jiff::civil::Date) -> jiff::civil::DateTime {
        date.at(self.hour, self.minute, 0, 0)
    }
}

impl fmt::Display for LocalTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

impl TryFrom<String> for LocalTime {
    type Error = TimeError;
    fn try_from(text: String) -> Result<Self, TimeError> {
        Self::parse(&text)
    }
}

impl From<LocalTime> for String {
    fn from(time: LocalTime) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_truncated_to_microseconds_and_need_an_offset() {
        assert_eq!(parse_instant("1970-01-01T00:00:01.0000019Z"), Ok(Instant(1_000_001)));
        assert_eq!(parse_instant("1970-01-01T01:00:00+01:00"), Ok(Instant(0)));
        for wrong in
            ["1970-01-01T00:00:00", "1970-01-01", "19700101T000000Z", "1970-01-01T00:00:00+01:00[Europe/Paris]", ""]
        {
            assert_eq!(parse_instant(wrong), Err(TimeError::Instant), "{wrong}");
        }
        assert_eq!(Instant(1_000_001).to_string(), "1970-01-01T00:00:01.000001Z");
    }

    #[test]
    fn spans_have_fixed_units_only_and_keep_their_text() {
        let micros = |text| IsoDuration::parse(text).map(|span| span.micros());
        assert_eq!(micros("P7D"), Ok(7 * 86_400_000_000));
        assert_eq!(micros("P1W"), Ok(7 * 86_400_000_000));
        assert_eq!(micros("PT30M"), Ok(1_800_000_000));
        assert_eq!(IsoDuration::parse("PT24H").map(String::from), Ok("PT24H".to_owned()));
        for wrong in ["P1M", "P1Y", "PT", "P", "7D", "-P1D", "P1D T1H", "", "1 day"] {
            assert_eq!(micros(wrong), Err(TimeError::Duration), "{wrong}");
        }
    }

    #[test]
    fn local_times_are_to_the_minute() {
        assert_eq!(LocalTime::parse("18:05").map(|time| time.to_string()), Ok("18:05".to_owned()));
        for wrong in ["24:00", "8:00", "18:60", "18", "18:00:00", "+1:00"] {
            assert_eq!(LocalTime::parse(wrong), Err(TimeError::LocalTime), "{wrong}");
        }
    }
}
