//! Rate limits. Each caller has points, which requests cost and which come back over time. They have nothing to do with the
//! points of customers.
//!
//! [`Allowance::charge`] takes points before the work and fails if the caller has too few. [`Allowance::debit`] takes points
//! after the work and may leave the caller in debt. A caller in debt must wait until the debt is paid back.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant as Monotonic;

use super::error::Error;
use super::viewer::Who;

/// The points of all callers. The points of each caller come back at the same rate.
#[derive(Clone, Debug)]
pub struct Allowances {
    points_per_second: NonZeroU32,
    /// How long it takes until a caller without points has all of them again.
    refill: Duration,
    /// When each caller will have all its points again. Callers that already have all of them may be missing.
    full_at: Arc<Mutex<HashMap<Who, Monotonic>>>,
}

/// A handle to the points of one caller.
#[derive(Clone, Debug)]
pub struct Allowance {
    who: Who,
    of: Allowances,
}

/// The caller has too few points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// After this time, the caller has enough points for the same request.
    pub retry_after_seconds: u64,
}

impl From<Limited> for Error {
    fn from(limited: Limited) -> Self {
        Self::RateLimited { retry_after_seconds: limited.retry_after_seconds }
    }
}

impl Allowances {
    /// Creates the limits. Every caller begins with `burst_points` and can never have more.
    pub fn new(points_per_second: NonZeroU32, burst_points: NonZeroU32) -> Self {
        let refill = time(burst_points.get(), points_per_second);
        Self { points_per_second, refill, full_at: Arc::default() }
    }

    /// Returns a handle to the points of this caller.
    pub fn of(&self, who: Who) -> Allowance {
        Allowance { who, of: self.clone() }
    }

    /// Frees the memory of callers that have all their points again.
    pub fn forget_idle(&self) {
        self.forget_idle_at(Monotonic::now());
    }

    fn forget_idle_at(&self, now: Monotonic) {
        let mut full_at = self.full_at.lock();
        full_at.retain(|_, full_at| *full_at > now);
        full_at.shrink_to_fit();
    }
}

impl Allowance {
    /// Takes points. Fails and takes none if the caller has too few.
    pub fn charge(&self, points: u32) -> Result<(), Limited> {
        self.take(Monotonic::now(), points, false)
    }

    /// Takes points for work that is already done, even if the caller has too few.
    pub fn debit(&self, points: u32) {
        // `into_debt` is true, so this cannot fail.
        let _ = self.take(Monotonic::now(), points, true);
    }

    /// Fails if the caller is in debt.
    pub fn check(&self) -> Result<(), Limited> {
        self.charge(0)
    }

    fn take(&self, now: Monotonic, points: u32, into_debt: bool) -> Result<(), Limited> {
        let Allowances { points_per_second, refill, full_at } = &self.of;
        let mut full_at = full_at.lock();
        let missing = full_at.get(&self.who).map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        let missing = missing.saturating_add(time(points, *points_per_second));
        if !into_debt && missing > *refill {
            let wait = missing.saturating_sub(*refill) + Duration::from_millis(999);
            return Err(Limited { retry_after_seconds: wait.as_secs().max(1) });
        }
        if points > 0 {
            full_at.insert(self.who.clone(), now + missing);
        }
        Ok(())
    }
}

/// How long it takes until this number of points has come back.
fn time(points: u32, points_per_second: NonZeroU32) -> Duration {
    Duration::from_secs(points.into()) / points_per_second.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::viewer::Viewer;

    fn allowances() -> Allowances {
        Allowances::new(NonZeroU32::new(10).unwrap(), NonZeroU32::new(100).unwrap())
    }

    fn of(allowances: &Allowances, subject: &str) -> Allowance {
        allowances.of(Viewer::Customer(subject.into()).who())
    }

    fn limited<T>(retry_after_seconds: u64) -> Result<T, Limited> {
        Err(Limited { retry_after_seconds })
    }

    #[test]
    fn points_come_back() {
        let (allowances, now) = (allowances(), Monotonic::now());
        let ada = of(&allowances, "ada");
        assert_eq!(ada.take(now, 100, false), Ok(()));
        assert_eq!(ada.take(now, 1, false), limited(1));
        assert_eq!(ada.take(now, 100, false), limited(10));
        assert_eq!(of(&allowances, "bob").take(now, 100, false), Ok(()), "each has points of its own");
        let now = now + Duration::from_secs(2);
        assert_eq!(ada.take(now, 21, false), limited(1));
        assert_eq!(ada.take(now, 20, false), Ok(()));
        let now = now + Duration::from_secs(60);
        assert_eq!(ada.take(now, 101, false), limited(1), "nobody has more than the burst");
        assert_eq!(ada.take(now, 100, false), Ok(()));
    }

    #[test]
    fn debts_are_paid_back() {
        let (allowances, now) = (allowances(), Monotonic::now());
        let ada = of(&allowances, "ada");
        assert_eq!(ada.take(now, 100, true), Ok(()));
        assert_eq!(ada.take(now, 0, false), Ok(()));
        assert_eq!(ada.take(now, 50, true), Ok(()));
        assert_eq!(ada.take(now, 0, false), limited(5));
        assert_eq!(ada.take(now, 1, false), limited(6));
        let now = now + Duration::from_secs(5);
        assert_eq!(ada.take(now, 0, false), Ok(()));
        assert_eq!(ada.take(now, 1, false), limited(1));
    }

    #[test]
    fn whoever_has_all_its_points_is_forgotten() {
        let (allowances, now) = (allowances(), Monotonic::now());
        of(&allowances, "ada").take(now, 1_000, true).unwrap();
        of(&allowances, "bob").take(now, 1, true).unwrap();
        of(&allowances, "cleo").take(now, 0, true).unwrap();
        let now = now + Duration::from_secs(1);
        allowances.forget_idle_at(now);
        assert_eq!(allowances.full_at.lock().len(), 1);
        assert!(of(&allowances, "ada").take(now, 1, false).is_err());
    }
}
