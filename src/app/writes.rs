//! Whether the database takes writes. A database can answer every read and refuse all writes, because its disk is full or
//! it is a replica. The outcome of the last write tells; if there was none lately, a small write finds out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr};
use tokio::time::{Instant, timeout};

use super::database::{Database, code};
use super::error::Error;

/// For this long after a write was taken, the next one is expected to be taken too. Bounds how often an idle node writes.
const TAKEN_FRESH: Duration = Duration::from_secs(5);
/// For this long after a write was refused, the next one is expected to be refused too.
const REFUSED_FRESH: Duration = Duration::from_secs(2);
/// How long a probe may take. One that waits for a batch finds out nothing, and the batch will tell.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// What a probe writes once there is an obstacle, at least what a batch does: a disk that is full often has room for a
/// single row.
const PROBE_BYTES: usize = 1 << 20;
/// The primary result code of an SQLite error is its lowest byte.
const SQLITE_PRIMARY_CODE: u32 = 0xff;

/// Why the database takes no writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// No room is left.
    DiskFull,
    /// Reading, writing or opening a file fails.
    DiskFails,
    /// A replica, a file without the right to write, or a database that was set so.
    ReadOnly,
    /// No memory is left.
    OutOfMemory,
    /// Another resource is used up, such as connections.
    OutOfResources,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiskFull => "its disk is full",
            Self::DiskFails => "its disk reports errors",
            Self::ReadOnly => "it is read-only",
            Self::OutOfMemory => "it is out of memory",
            Self::OutOfResources => "it is out of resources",
        })
    }
}

impl Obstacle {
    /// The obstacle behind an error: SQLSTATE classes 53 and 58 and 25006, SQLite's NOMEM, READONLY, IOERR, FULL
    /// and CANTOPEN.
    pub fn of(error: &DbErr) -> Option<Self> {
        let code = code(error)?;
        match code.as_str() {
            "53100" => Some(Self::DiskFull),
            "53200" => Some(Self::OutOfMemory),
            "25006" => Some(Self::ReadOnly),
            _ if code.len() == 5 && code.starts_with("53") => Some(Self::OutOfResources),
            _ if code.len() == 5 && code.starts_with("58") => Some(Self::DiskFails),
            _ if code.len() == 5 => None,
            _ => match code.parse::<u32>().ok()? & SQLITE_PRIMARY_CODE {
                7 => Some(Self::OutOfMemory),
                8 => Some(Self::ReadOnly),
                10 | 14 => Some(Self::DiskFails),
                13 => Some(Self::DiskFull),
                _ => None,
            },
        }
    }
}

/// What the last write met. Clones are of one.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    met: Arc<Mutex<Option<Met>>>,
    probing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Copy, Debug)]
struct Met {
    at: Instant,
    obstacle: Option<Obstacle>,
    /// When the obstacle was last [`Obstacle::ReadOnly`].
    read_only_at: Option<Instant>,
}

impl Met {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < if self.obstacle.is_some() { REFUSED_FRESH } else { TAKEN_FRESH }
    }
}

impl Writes {
    /// Notes what a write met: whether it changed anything, or why it failed. One that changed nothing did not reach the
    /// disk, and a failure of another kind does not tell of the next write.
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

    /// The obstacle that the last write met.
    pub fn obstacle(&self) -> Option<Obstacle> {
        self.last().and_then(|met| met.obstacle)
    }

    /// The obstacle that a write would meet now, by a probe where no write was made lately.
    pub async fn look(&self, database: &Database) -> Option<Obstacle> {
        let _one_at_a_time = self.probing.lock().await;
        if !self.last().is_some_and(|met| met.is_fresh()) {
            let known = self.obstacle();
            let bytes = if known.is_some() { PROBE_BYTES } else { 0 };
            let found = match timeout(PROBE_TIMEOUT, probe(database, bytes)).await {
                Ok(Ok(true)) => None,
                Ok(Err(error)) => Obstacle::of(&error).or(known),
                // It waited for a batch, which will tell, or for another node's probe.
                Ok(Ok(false)) | Err(_) => known,
            };
            self.met(found);
        }
        self.obstacle()
    }

    /// Whether a write has met [`Obstacle::ReadOnly`] in this last time.
    pub(super) fn was_read_only_within(&self, time: Duration) -> bool {
        self.last().and_then(|met| met.read_only_at).is_some_and(|at| at.elapsed() < time)
    }

    fn last(&self) -> Option<Met> {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self, obstacle: Option<Obstacle>) {
        let at = Instant::now();
        let mut last = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let read_only = (obstacle == Some(Obstacle::ReadOnly)).then_some(at);
        let read_only_at = read_only.or_else(|| last.and_then(|last| last.read_only_at));
        let before = last.replace(Met { at, obstacle, read_only_at }).and_then(|before| before.obstacle);
        drop(last);
        match (before, obstacle) {
            (before, Some(obstacle)) if before != Some(obstacle) => {
                tracing::error!("the database takes no writes: {obstacle}");
            }
            (Some(_), None) => tracing::info!("the database takes writes again"),
            _ => {}
        }
    }
}

/// Changes a row that nothing else uses, and commits: what is rolled back does not reach the disk. Answers whether it did;
/// another node's probe, which may be frozen, is not waited for.
async fn probe(database: &Database, bytes: usize) -> Result<bool, DbErr> {
    let tx = database.begin().await?;
    let (filler, row) = match tx.get_database_backend() {
        DatabaseBackend::Postgres => (
            format!("decode(repeat('00', {bytes}), 'hex')"),
            " WHERE id IN (SELECT id FROM write_probe FOR UPDATE SKIP LOCKED)",
        ),
        _ => (format!("zeroblob({bytes})"), ""),
    };
    let stamp: i64 = rand::random();
    let sql = format!("UPDATE write_probe SET stamp = {stamp}, filler = {filler}{row}");
    let changed = tx.execute_unprepared(&sql).await?.rows_affected() > 0;
    tx.commit().await?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::error::Error as StdError;

    use sea_orm::RuntimeErr;
    use sea_orm::sqlx::error::{DatabaseError, ErrorKind};

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
            // IOERR with its extended codes, CANTOPEN.
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
        // Constraints, corrupt files and wrong statements stay what they are.
        for code in ["1", "11", "19", "1555", "2067", "23505", "42P01", "XX001"] {
            assert_eq!(Obstacle::of(&error(code)), None, "{code}");
            assert!(!Error::from(error(code)).is_retryable(), "{code}");
        }
        // Others may be tried again for other reasons: a busy file, a time-out of a transaction that fell silent.
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
