//! The clock. Injected, so that tests can set it; nothing else in the server asks the system for the time of day.
//!
//! On PostgreSQL all nodes go by the database's clock: each asks it now and then, and counts on from the answer with the time that
//! its own process has run, which nobody sets. On SQLite the process's clock is all there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use tokio::time::Instant as Monotonic;

use super::database::Database;
use super::error::Error;
use crate::engine::time::Instant;

/// The longest sleep: the system's clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_mins(1);
/// How often a clock that stands still is looked at.
const FIXED_STEP: Duration = Duration::from_millis(10);
/// So far apart the clocks of a node and its database may be, µs. Further, and one of them is wrong.
pub const MAX_SKEW: i64 = 60 * 1_000_000;
/// So long a clock must have gone evenly before anything is done by it that cannot be taken back: two looks of the settlement job.
const STEADY_AFTER: Duration = Duration::from_mins(2);
/// So much a clock that goes evenly may differ from the time that the process has run, µs.
const STEADY_WITHIN: i64 = 5 * 1_000_000;

/// What time it is.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// Stands still until it is set; µs since 1970.
    Fixed(Arc<AtomicI64>),
    /// The database's, as it was asked last, and counted on from there.
    Database(Arc<Counted>),
}

/// The time that a process has run, counted on from what another clock showed.
#[derive(Debug)]
pub struct Counted {
    since: Monotonic,
    /// What the other clock showed at `since`, µs since 1970.
    began: AtomicI64,
}

impl Counted {
    fn from(now: Instant) -> Self {
        Self { since: Monotonic::now(), began: AtomicI64::new(now.0) }
    }

    fn set(&self, now: Instant) {
        self.began.store(now.0 - micros(self.since.elapsed()), Ordering::SeqCst);
    }

    fn now(&self) -> Instant {
        Instant(self.began.load(Ordering::SeqCst)).plus(micros(self.since.elapsed()))
    }
}

impl Clock {
    /// The clock that all who use this database go by.
    pub async fn of(database: &Database) -> Result<Self, Error> {
        match database.backend() {
            DatabaseBackend::Postgres => {
                let now = database_time(database.read()).await?;
                Ok(Self::Database(Arc::new(Counted::from(now))))
            }
            _ => Ok(Self::System),
        }
    }

    /// Now, in whole microseconds.
    pub fn now(&self) -> Instant {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
            Self::System => jiff::Timestamp::now().into(),
            Self::Fixed(now) => Instant(now.load(Ordering::SeqCst)),
            Self::Database(counted) => counted.now(),
        }
    }

    /// Now, asked of the database where its clock counts.
    pub async fn ask(&self, db: &impl ConnectionTrait) -> Result<Instant, Error> {
        if let Self::Database(counted) = self {
            // The answer is older by its way back, and never ahead.
            counted.set(database_time(db).await?);
        }
        Ok(self.now())
    }

    /// By how much the node's own clock is ahead of the database's, µs; none: one clock counts for both.
    pub fn skew(&self) -> Option<i64> {
        matches!(self, Self::Database(_)).then(|| Self::System.now().minus(self.now().0).0)
    }

    /// Whether the clocks of the node and the database differ so much that one of them is wrong.
    pub fn is_in_doubt(&self) -> bool {
        self.skew().is_some_and(|skew| skew.abs() > MAX_SKEW)
    }

    /// Waits until the instant has come.
    pub async fn sleep_until(&self, at: Instant) {
        while let Some(left) = u64::try_from(at.minus(self.now().0).0).ok().filter(|left| *left > 0) {
            let step = match self {
                Self::System | Self::Database(_) => MAX_SLEEP,
                Self::Fixed(_) => FIXED_STEP,
            };
            tokio::time::sleep(step.min(Duration::from_micros(left))).await;
        }
    }
}

/// What the database's clock shows (PostgreSQL).
async fn database_time(db: &impl ConnectionTrait) -> Result<Instant, Error> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = db.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| Error::Internal("the database does not say what time it is".to_owned()))?;
    Ok(Instant(row.try_get_by_index(0)?))
}

/// Whether a clock has gone evenly. One that somebody has just set may be wrong, and be set again.
#[derive(Debug, Default)]
pub struct Steadiness {
    /// What it showed and how long the process had run, when it was last found to have been set.
    began: Mutex<Option<(Instant, Monotonic)>>,
}

impl Steadiness {
    /// Whether the clock, which shows `now`, has gone evenly for long enough.
    pub(super) fn observe(&self, now: Instant, at: Monotonic) -> bool {
        let mut began = self.began.lock();
        let (shown, since) = *began.get_or_insert((now, at));
        let ran = at.duration_since(since);
        let moved_by = now.minus(shown.0).0 - micros(ran);
        if moved_by.abs() > STEADY_WITHIN {
            tracing::warn!(seconds = moved_by / 1_000_000, "the clock was set: nothing is settled for two minutes");
            *began = Some((now, at));
            return false;
        }
        ran >= STEADY_AFTER
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400 * 1_000_000;
    const NOW: Instant = Instant(20_000 * DAY);

    /// What is found when a clock that shows so many µs more than it should is looked at after so many seconds.
    fn found(observations: &[(u64, i64)]) -> Vec<bool> {
        let (steadiness, began) = (Steadiness::default(), Monotonic::now());
        let observe = |(seconds, wrong_by): &(u64, i64)| {
            let ran = Duration::from_secs(*seconds);
            steadiness.observe(NOW.plus(micros(ran) + wrong_by), began + ran)
        };
        observations.iter().map(observe).collect()
    }

    #[test]
    fn a_clock_that_goes_evenly_is_steady_after_two_minutes() {
        assert_eq!(found(&[(0, 0), (60, 0), (120, 0), (180, 0)]), [false, false, true, true]);
        // Slewed, never set.
        assert_eq!(found(&[(0, 0), (60, 20_000), (120, 40_000)]), [false, false, true]);
        // Nobody looked for a day.
        assert_eq!(found(&[(0, 0), (86_400, 1_000_000)]), [false, true]);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_minute_is_never_steady_meanwhile() {
        let ahead = 60 * DAY;
        let minute_ahead = [(0, 0), (120, 0), (180, ahead), (240, ahead), (300, 0), (360, 0), (420, 0)];
        assert_eq!(found(&minute_ahead), [false, true, false, false, false, false, true]);
        // From the start on, as after a boot without a battery.
        assert_eq!(found(&[(0, ahead), (60, ahead), (119, ahead), (120, 0), (240, 0)])[..4], [false; 4]);
        // Set again and again.
        assert_eq!(found(&[(0, 0), (120, ahead), (240, 0), (360, ahead)]), [false; 4]);
    }

    #[test]
    fn a_clock_that_is_behind_is_no_better() {
        assert_eq!(found(&[(0, 0), (120, -3_600_000_000), (180, -3_600_000_000)]), [false; 3]);
    }
}
