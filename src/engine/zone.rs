//! Time zones: which instant a local date and time stand for.
//!
//! The zone data is bundled in the binary; the machine's data is never used. The reached awards depend on the zone data,
//! and two servers must not disagree because their operating systems were updated on different days.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use super::time::Instant;

/// An IANA time zone. The name has its canonical spelling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// The bundled data has no time zone of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an IANA time zone such as Europe/Vienna")]
pub struct UnknownZone;

impl Zone {
    /// Looks up a name in the bundled data. Upper and lower case do not matter.
    pub fn parse(name: &str) -> Result<Self, UnknownZone> {
        let rules = TimeZoneDatabase::bundled().get(name).map_err(|_| UnknownZone)?;
        let name = rules.iana_name().ok_or(UnknownZone)?.to_owned();
        Ok(Self { name, rules })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the date that a local clock shows at the instant. For an instant outside the calendar, this is the first or
    /// the last date of the calendar.
    pub fn date(&self, at: Instant) -> Date {
        match at.timestamp() {
            Some(timestamp) => self.rules.to_datetime(timestamp).date(),
            None if at < Instant::EPOCH => Date::MIN,
            None => Date::MAX,
        }
    }

    /// Returns the first instant at which a local clock shows `local` or later. If a clock change skips `local`, this is
    /// the instant of the change. If `local` occurs twice, this is the earlier instant. So a later `local` never gives an
    /// earlier instant.
    pub fn bound(&self, local: DateTime) -> Instant {
        let at = |offset: jiff::tz::Offset| offset.to_timestamp(local).map_or(Instant::FOREVER, Instant::from);
        match self.rules.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset),
            AmbiguousOffset::Fold { before, .. } => at(before),
            AmbiguousOffset::Gap { after, .. } => self.change_to(local, at(after)),
        }
    }

    /// Returns the first transition after `earlier` that moves the local clock to `local` or beyond.
    fn change_to(&self, local: DateTime, earlier: Instant) -> Instant {
        let Some(start) = earlier.timestamp() else { return earlier };
        self.rules
            .following(start)
            .find(|change| change.offset().to_datetime(change.timestamp()) >= local)
            .map_or(earlier, |change| change.timestamp().into())
    }
}

impl TryFrom<String> for Zone {
    type Error = UnknownZone;
    fn try_from(name: String) -> Result<Self, UnknownZone> {
        Self::parse(&name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::parse_instant;
    use jiff::civil::date;

    fn bound(zone: &str, local: DateTime) -> Instant {
        Zone::parse(zone).unwrap().bound(local)
    }

    fn instant(text: &str) -> Instant {
        parse_instant(text).unwrap()
    }

    #[test]
    fn a_skipped_bound_is_the_instant_of_the_change() {
        // In Amman, the clocks went from 23:59:59 to 01:00:00.
        assert_eq!(bound("Asia/Amman", date(2021, 3, 26).at(0, 0, 0, 0)), instant("2021-03-25T22:00:00Z"));
        assert_eq!(bound("Asia/Amman", date(2021, 3, 26).at(0, 30, 0, 0)), instant("2021-03-25T22:00:00Z"));
        // Apia skipped 30 December 2011. The midnights before and after that day are the instant of the change.
        assert_eq!(bound("Pacific/Apia", date(2011, 12, 30).at(0, 0, 0, 0)), instant("2011-12-30T10:00:00Z"));
        assert_eq!(bound("Pacific/Apia", date(2011, 12, 31).at(0, 0, 0, 0)), instant("2011-12-30T10:00:00Z"));
        // Lord Howe skips half an hour each spring.
        assert_eq!(bound("Australia/Lord_Howe", date(2025, 10, 5).at(2, 15, 0, 0)), instant("2025-10-04T15:30:00Z"));
    }

    #[test]
    fn of_two_the_earlier_is_meant() {
        assert_eq!(bound("Asia/Amman", date(2021, 10, 29).at(0, 30, 0, 0)), instant("2021-10-28T21:30:00Z"));
    }

    #[test]
    fn names_are_canonical() {
        assert_eq!(Zone::parse("europe/vienna").unwrap().name(), "Europe/Vienna");
        assert!(Zone::parse("Mars/Olympus").is_err());
    }
}
