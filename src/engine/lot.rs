//! Where points lie: in the pool, or in the lot of all points with the same dates.

use serde::{Deserialize, Serialize};

use super::dates::Dates;
use super::time::Instant;

/// Where points lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// With all others that neither wait nor expire.
    Pool,
    Lot(LotKey),
}

/// What identifies a lot of one customer. Available lots come first, in spending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LotKey {
    /// When the points become available. `None`: they are available.
    pub matures_at: Option<Instant>,
    /// When the points expire. [`Instant::FOREVER`]: never, which only pending points have.
    pub expires_at: Instant,
}

/// The points of a lot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Neither reserved, nor spent, nor expired.
    pub left: i64,
    pub reserved: i64,
    pub spent: i64,
    pub expired: i64,
}

impl Lot {
    pub(super) fn add(&mut self, other: Self) {
        self.left += other.left;
        self.reserved += other.reserved;
        self.spent += other.spent;
        self.expired += other.expired;
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl LotKey {
    /// The available lot that expires at this instant.
    pub const fn available(expires_at: Instant) -> Self {
        Self { matures_at: None, expires_at }
    }
}

impl Place {
    /// Where points with these dates lie at an instant.
    pub fn of(dates: Dates, now: Instant) -> Self {
        let expires_at = dates.expires_at.unwrap_or(Instant::FOREVER);
        match dates.available_at.filter(|at| *at > now) {
            None => Self::available(dates.expires_at),
            matures_at => Self::Lot(LotKey { matures_at, expires_at }),
        }
    }

    /// The pool, or the available lot that expires at this instant.
    pub fn available(expires_at: Option<Instant>) -> Self {
        expires_at.map_or(Self::Pool, |at| Self::Lot(LotKey::available(at)))
    }

    pub(super) fn expires_at(self) -> Instant {
        match self {
            Self::Pool => Instant::FOREVER,
            Self::Lot(key) => key.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_that_matured_lie_with_those_that_never_waited() {
        let dates = Dates { available_at: Some(Instant(10)), expires_at: Some(Instant(20)) };
        let pending = LotKey { matures_at: Some(Instant(10)), expires_at: Instant(20) };
        assert_eq!(Place::of(dates, Instant(9)), Place::Lot(pending));
        assert_eq!(Place::of(dates, Instant(10)), Place::Lot(LotKey::available(Instant(20))));
        let held = Dates { expires_at: None, ..dates };
        assert_eq!(Place::of(held, Instant(10)), Place::Pool);
    }
}
