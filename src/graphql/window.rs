//! The API type for windows of a customer's time.

use async_graphql::SimpleObject;

use super::scalar::DateTime;
use crate::engine::time::Instant;
use crate::engine::window::Interval;

/// A stretch of one customer's time in which a goal is counted, clipped to the period of the campaign.
#[derive(Clone, Debug, SimpleObject)]
pub struct Window {
    /// The first instant of the window.
    opens_at: DateTime,
    /// The first instant after the window. Null if the window has no end.
    closes_at: Option<DateTime>,
}

impl From<Interval> for Window {
    fn from(interval: Interval) -> Self {
        Self { opens_at: interval.opens.into(), closes_at: closes_at(interval) }
    }
}

/// Returns the end of the interval, or `None` if the interval has no end.
pub fn closes_at(interval: Interval) -> Option<DateTime> {
    (interval.closes != Instant::FOREVER).then(|| interval.closes.into())
}
