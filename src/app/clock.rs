//! The clock. It is injected so that tests can set it. No other code of the server reads the system's time of day.
//!
//! On PostgreSQL, all nodes use the database's clock. Each node asks the database from time to time, and in between adds the time
//! that has passed on its own monotonic clock, which nobody can set. On SQLite, the node uses the system's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};
use tokio::time::Instant as Monotonic;

use super::database::Database;
use super::error::Error;
use crate::engine::time::Instant;

/// The longest single sleep. Somebody may set the clock during the sleep, so it is read again afterwards.
const MAX_SLEEP: Duration = Duration::from_mins(1);
/// The longest single sleep with a clock that tests set.
const FIXED_STEP: Duration = Duration::from_millis(10);
/// How far the clocks of a node and its database may differ, in µs. If they differ more, one of them is wrong.
pub const MAX_SKEW: i64 = 60 * 1_000_000;
/// How long a clock must run evenly before it is used for something irreversible. This is twice the period of the settlement job.
const STEADY_AFTER: Duration = Duration::from_mins(2);
/// How much a clock that runs evenly may deviate from the monotonic clock of the process, in µs.
const STEADY_WITHIN: i64 = 5 * 1_000_000;

/// A source of the current time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The clock of the operating system.
    #[default]
    System,
    /// A clock that changes only when it is set, in µs since 1970.
    Fixed(Arc<AtomicI64>),
    /// The database's clock as of the last time it was asked, plus the time that has passed since then.
    Database(Arc<Counted>),
}

/// The time of another clock plus the time that has passed in this process since that clock was read.
#[derive(Debug)]
pub struct Counted {
    since: Monotonic,
    /// The time of the other clock at `since`, in µs since 1970.
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
    /// Returns the clock that all programs on this database use.
    pub async fn of_database(database: &Database) -> Result<Self, Error> {
        match database.backend() {
            DatabaseBackend::Postgres => {
                let now = database_time(database.read()).await?;
                Ok(Self::Database(Arc::new(Counted::from(now))))
            }
            _ => Ok(Self::System),
        }
    }

    /// Returns the current time. Does not ask the database.
    pub fn now(&self) -> Instant {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
            Self::System => jiff::Timestamp::now().into(),
            Self::Fixed(now) => Instant(now.load(Ordering::SeqCst)),
            Self::Database(counted) => counted.now(),
        }
    }

    /// Returns the current time, which the database has just told. A clock that is not the database's ignores it.
    pub fn told(&self, now: Instant) -> Instant {
        match self {
            Self::Database(counted) => {
                counted.set(now);
                now
            }
            Self::System | Self::Fixed(_) => self.now(),
        }
    }

    /// Returns the current time. With [`Self::Database`], asks the database first.
    pub async fn ask(&self, db: &impl ConnectionTrait) -> Result<Instant, Error> {
        if let Self::Database(counted) = self {
            // The response took some time to arrive: the result may be slightly late, but is never ahead.
            counted.set(database_time(db).await?);
        }
        Ok(self.now())
    }

    /// Returns by how much the node's own clock is ahead of the database's, in µs. `None` if the node does not use the database's
    /// clock.
    pub fn skew(&self) -> Option<i64> {
        matches!(self, Self::Database(_)).then(|| Self::System.now().minus(self.now().0).0)
    }

    /// Whether the clocks of the node and the database differ by more than [`MAX_SKEW`].
    pub fn is_in_doubt(&self) -> bool {
        self.skew().is_some_and(|skew| skew.abs() > MAX_SKEW)
    }

    /// Waits until this clock has reached the instant.
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

/// The time of PostgreSQL in µs since 1970, as an expression.
pub const POSTGRES_TIME: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// Asks PostgreSQL for the time.
async fn database_time(db: &impl ConnectionTrait) -> Result<Instant, Error> {
    let sql = format!("SELECT {POSTGRES_TIME}");
    let row = db.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await?;
    let row = row.ok_or_else(|| Error::Internal("the database did not return the time".to_owned()))?;
    Ok(Instant(row.try_get_by_index(0)?))
}

/// Observes whether a clock runs evenly. A clock that was just set may be wrong and may be set again.
#[derive(Debug, Default)]
pub struct Steadiness {
    /// The clock's time and the monotonic time at the first observation, or when the clock was last found to have been set.
    began: Mutex<Option<(Instant, Monotonic)>>,
}

impl Steadiness {
    /// Notes that the clock shows `now` at the monotonic time `at`. Returns whether it has run evenly for long enough.
    pub(super) fn observe(&self, now: Instant, at: Monotonic) -> bool {
        let mut began = self.began.lock();
        let (shown, since) = *began.get_or_insert((now, at));
        let ran = at.duration_since(since);
        let moved_by = now.minus(shown.0).0 - micros(ran);
        if moved_by.abs() > STEADY_WITHIN {
            tracing::warn!(seconds = moved_by / 1_000_000, "the clock was set: no campaign is settled for two minutes");
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

    /// Observes a clock. Each observation is the number of seconds that have passed, and by how many µs the clock is ahead then.
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
        // The clock is slewed, but never set.
        assert_eq!(found(&[(0, 0), (60, 20_000), (120, 40_000)]), [false, false, true]);
        // There is no observation for a day.
        assert_eq!(found(&[(0, 0), (86_400, 1_000_000)]), [false, true]);
    }

    #[test]
    fn a_clock_that_is_ahead_for_a_minute_is_never_steady_meanwhile() {
        let ahead = 60 * DAY;
        let minute_ahead = [(0, 0), (120, 0), (180, ahead), (240, ahead), (300, 0), (360, 0), (420, 0)];
        assert_eq!(found(&minute_ahead), [false, true, false, false, false, false, true]);
        // The clock is wrong from the start, as after booting a machine whose clock has no battery.
        assert_eq!(found(&[(0, ahead), (60, ahead), (119, ahead), (120, 0), (240, 0)])[..4], [false; 4]);
        // The clock is set again and again.
        assert_eq!(found(&[(0, 0), (120, ahead), (240, 0), (360, ahead)]), [false; 4]);
    }

    #[test]
    fn a_clock_that_is_behind_is_no_better() {
        assert_eq!(found(&[(0, 0), (120, -3_600_000_000), (180, -3_600_000_000)]), [false; 3]);
    }
}
