//! Windows of a customer's time.

use async_graphql::SimpleObject;

use super::scalar::DateTime;
use crate::engine::time::Instant;
use crate::engine::window::Interval;

/// A stretch of a customer's time in which a goal is counted, within the campaign's period.
#[derive(Clone, Debug, SimpleObject)]
pub struct Window {
    /// Its first instant.
    opens_at: DateTime,
    /// The first instant after it; null: it stays open.
    closes_at: Option<DateTime>,
}

impl From<Interval> for Window {
    fn from(interval: Interval) -> Self {
        Self { opens_at: interval.opens.into(), closes_at: closes_at(interval) }
    }
}

/// Null where it never closes.
pub fn closes_at(interval: Interval) -> Option<DateTime> {
    (interval.closes != Instant::FOREVER).then(|| interval.closes.into())
}
