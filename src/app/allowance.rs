//! Points that callers spend and that come back to them with time.
//!
//! A caller may be charged before the work, which fails where it has too few points, or afterwards, which may leave it in
//! debt. Whoever is in debt must wait until it is paid back.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::Error;
use super::viewer::Who;

/// The points of many callers, each with the same rate.
#[derive(Clone, Debug)]
pub struct Allowances {
    points_per_second: NonZeroU32,
    /// In which a caller without points gets all of them back.
    refill: Duration,
    /// When each caller will have all its points again. Callers that have all of them now may be missing.
    full_at: Arc<Mutex<HashMap<Who, Instant>>>,
}

/// The points of one caller.
#[derive(Clone, Debug)]
pub struct Allowance {
    who: Who,
    of: Allowances,
}

/// Too much was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// After which the same can be asked again.
    pub retry_after_seconds: u64,
}

impl From<Limited> for Error {
    fn from(limited: Limited) -> Self {
        Self::RateLimited { retry_after_seconds: limited.retry_after_seconds }
    }
}

impl Allowances {
    /// Every caller begins with `burst_points`, and can never have more.
    pub fn new(points_per_second: NonZeroU32, burst_points: NonZeroU32) -> Self {
        let refill = time(burst_points.get(), points_per_second);
        Self { points_per_second, refill, full_at: Arc::default() }
    }

    /// The points of this caller.
    pub fn of(&self, who: Who) -> Allowance {
        Allowance { who, of: self.clone() }
    }

    /// Forgets callers that have all their points again.
    pub fn forget_idle(&self) {
        self.forget_idle_at(Instant::now());
    }

    fn forget_idle_at(&self, now: Instant) {
        let mut full_at = self.full_at.lock();
        full_at.retain(|_, full_at| *full_at > now);
        full_at.shrink_to_fit();
    }
}

impl Allowance {
    /// Takes points; takes none where the caller has too few.
    pub fn charge(&self, points: u32) -> Result<(), Limited> {
        self.take(Instant::now(), points, false)
    }

    /// Takes points for what was done already, be there so many or not.
    pub fn debit(&self, points: u32) {
        // Without a condition it cannot fail.
        let _ = self.take(Instant::now(), points, true);
    }

    /// Fails while the caller is in debt.
    pub fn check(&self) -> Result<(), Limited> {
        self.charge(0)
    }

    fn take(&self, now: Instant, points: u32, into_debt: bool) -> Result<(), Limited> {
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

/// In which so many points come back.
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
        allowances.of(Viewer::Customer(subject.to_owned()).who())
    }

    fn limited<T>(retry_after_seconds: u64) -> Result<T, Limited> {
        Err(Limited { retry_after_seconds })
    }

    #[test]
    fn points_come_back() {
        let (allowances, now) = (allowances(), Instant::now());
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
        let (allowances, now) = (allowances(), Instant::now());
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
        let (allowances, now) = (allowances(), Instant::now());
        of(&allowances, "ada").take(now, 1_000, true).unwrap();
        of(&allowances, "bob").take(now, 1, true).unwrap();
        of(&allowances, "cleo").take(now, 0, true).unwrap();
        let now = now + Duration::from_secs(1);
        allowances.forget_idle_at(now);
        assert_eq!(allowances.full_at.lock().len(), 1);
        assert!(of(&allowances, "ada").take(now, 1, false).is_err());
    }
}
