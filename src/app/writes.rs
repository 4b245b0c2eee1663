//! Remembers whether the database accepted the last write. A database can respond to reads and refuse all writes, for example
//! because its disk is full or it is a replica. If there was no write lately, a small write finds out (`probe`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio::time::Instant as Monotonic;

use super::error::Error;
use super::failure::Obstacle;

/// How long after a successful write the next one is expected to succeed. This limits how often an idle node writes.
const TAKEN_FRESH: Duration = Duration::from_secs(5);
/// How long after a refused write the next one is expected to be refused.
const REFUSED_FRESH: Duration = Duration::from_secs(2);

/// The result of the last write. All clones share it.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    met: Arc<Mutex<Option<Met>>>,
    probing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    at: Monotonic,
    obstacle: Option<Obstacle>,
    /// When the obstacle was last [`Obstacle::ReadOnly`].
    read_only_at: Option<Monotonic>,
}

impl Met {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < if self.obstacle.is_some() { REFUSED_FRESH } else { TAKEN_FRESH }
    }
}

impl Writes {
    /// Notes the result of a write: whether it changed anything, or its error. A write that changed nothing is ignored, because
    /// it did not reach the disk. An error that is no obstacle is ignored too, because it does not predict the next write.
    pub fn note(&self, written: Result<bool, &Error>) {
        match written {
            Ok(true) => self.met(None),
            Err(Error::Database(error)) => {
                if let Some(obstacle) = Obstacle::of(error) {
                    self.met(Some(obstacle));
                }
            }
            Ok(false) | Err(_) => {}
        }
    }

    /// Returns the obstacle that the last write met.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.last().and_then(|met| met.obstacle)
    }

    /// Whether a write has met [`Obstacle::ReadOnly`] during the last `time`.
    pub(super) fn was_read_only_within(&self, time: Duration) -> bool {
        self.last().and_then(|met| met.read_only_at).is_some_and(|at| at.elapsed() < time)
    }

    /// Whether the last write is recent enough to predict the next one.
    pub(super) fn is_fresh(&self) -> bool {
        self.last().is_some_and(|met| met.is_fresh())
    }

    /// Waits until no other probe runs.
    pub(super) async fn take_turn(&self) -> MutexGuard<'_, ()> {
        self.probing.lock().await
    }

    fn last(&self) -> Option<Met> {
        *self.met.lock()
    }

    /// Notes that a write met this obstacle. `None`: the write succeeded.
    pub(super) fn met(&self, obstacle: Option<Obstacle>) {
        let at = Monotonic::now();
        let mut last = self.met.lock();
        let read_only = (obstacle == Some(Obstacle::ReadOnly)).then_some(at);
        let read_only_at = read_only.or_else(|| last.and_then(|last| last.read_only_at));
        let before = last.replace(Met { at, obstacle, read_only_at }).and_then(|before| before.obstacle);
        drop(last);
        match (before, obstacle) {
            (before, Some(obstacle)) if before != Some(obstacle) => {
                tracing::error!("the database refuses writes: {obstacle}");
            }
            (Some(_), None) => tracing::info!("the database accepts writes again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error as StdError;

    use sea_orm::sqlx::error::{DatabaseError, ErrorKind};
    use sea_orm::{DbErr, RuntimeErr};

    use super::*;

    /// An error of either database, as the driver reports it.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Reported(&'static str);

    impl DatabaseError for Reported {
        fn message(&self) -> &str {
            self.0
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }

        fn as_error(&self) -> &(dyn StdError + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn StdError + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn StdError + Send + Sync + 'static> {
            self
        }
    }

    fn error(code: &'static str) -> DbErr {
        let error = sea_orm::sqlx::Error::Database(Box::new(Reported(code)));
        DbErr::Exec(RuntimeErr::SqlxError(error.into()))
    }

    #[test]
    fn what_takes_no_writes_can_be_tried_again() {
        for (codes, obstacle) in [
            (&["13", "53100"][..], Obstacle::DiskFull),
            // IOERR and CANTOPEN, each with extended codes.
            (&["10", "778", "1034", "14", "526", "58030"], Obstacle::DiskFails),
            (&["8", "1032", "25006"], Obstacle::ReadOnly),
            (&["7", "53200"], Obstacle::OutOfMemory),
            (&["53000", "53300", "53400"], Obstacle::OutOfResources),
        ] {
            for code in codes {
                assert_eq!(Obstacle::of(&error(code)), Some(obstacle), "{code}");
                assert!(Error::from(error(code)).is_retryable(), "{code}");
            }
        }
    }

    #[test]
    fn other_errors_tell_nothing_of_the_next_write() {
        // Violated constraints, corrupt files and wrong statements are no obstacles.
        for code in ["1", "11", "19", "1555", "2067", "23505", "42P01", "XX001"] {
            assert_eq!(Obstacle::of(&error(code)), None, "{code}");
            assert!(!Error::from(error(code)).is_retryable(), "{code}");
        }
        // These errors can be retried for other reasons, for example a busy file or the timeout of an idle transaction.
        for code in ["5", "57P01", "25P03", "08006"] {
            assert_eq!(Obstacle::of(&error(code)), None, "{code}");
            assert!(Error::from(error(code)).is_retryable(), "{code}");
        }
        let writes = Writes::default();
        writes.note(Err(&error("13").into()));
        writes.note(Err(&error("23505").into()));
        writes.note(Ok(false));
        assert_eq!(writes.obstacle(), Some(Obstacle::DiskFull));
        writes.note(Ok(true));
        assert_eq!(writes.obstacle(), None);
    }
}
