//! Interprets database errors: whether a retry can help, whether the data caused the error, and whether writes are possible at
//! all. Only this module knows the error codes of the two databases.

use std::fmt;

use sea_orm::DbErr;

/// The primary result code of an SQLite error is its lowest byte.
const SQLITE_PRIMARY_CODE: u32 = 0xff;

/// Why the database refuses writes. The text of a value continues a sentence about the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The disk of the database has no space left.
    DiskFull,
    /// The database cannot read, write or open a file.
    DiskFails,
    /// The database is a replica, its file is not writable, or it was configured as read-only.
    ReadOnly,
    /// The database has no memory left.
    OutOfMemory,
    /// The database has used up another resource, such as connections.
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
    /// Returns the obstacle that caused the error. PostgreSQL: SQLSTATE classes 53 and 58, and 25006. SQLite: NOMEM, READONLY,
    /// IOERR, FULL and CANTOPEN.
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

/// Whether retrying the whole transaction can help: serialisation failure, deadlock, lock timeout, busy SQLite file.
pub fn is_conflict(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01" | "55P03" | "5" | "6" | "517" | "261"))
}

/// Whether the data caused the error, so that a smaller batch may succeed. PostgreSQL: SQLSTATE classes 22 and 23. SQLite:
/// TOOBIG (18), CONSTRAINT (19) and MISMATCH (20).
pub fn is_data_error(error: &DbErr) -> bool {
    code(error).is_some_and(|code| {
        let sqlite = code.parse::<u32>().is_ok_and(|code| code < 10_000 && matches!(code & 0xff, 18..=20));
        sqlite || (code.len() == 5 && (code.starts_with("22") || code.starts_with("23")))
    })
}

/// Whether a statement exceeded its timeout (PostgreSQL).
pub fn is_statement_timeout(error: &DbErr) -> bool {
    code(error).as_deref() == Some("57014")
}

/// Whether the statement failed for a temporary reason: the server is starting or stopping (class 57), it refuses writes (for
/// example, because its disk is full), it aborted the transaction because this node was idle (25P03), or the connection
/// broke (class 08).
pub fn is_transient(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code.starts_with("57") || code.starts_with("08") || code == "25P03")
        || Obstacle::of(error).is_some()
        || is_broken_connection(error)
}

/// Whether a statement waited for a lock longer than its `lock_timeout` (PostgreSQL).
pub(super) fn is_lock_timeout(error: &DbErr) -> bool {
    code(error).as_deref() == Some("55P03")
}

fn is_broken_connection(error: &DbErr) -> bool {
    use sea_orm::RuntimeErr::SqlxError;
    use sea_orm::sqlx::Error::{Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    let (DbErr::Exec(SqlxError(inner)) | DbErr::Query(SqlxError(inner)) | DbErr::Conn(SqlxError(inner))) = error else {
        return false;
    };
    matches!(**inner, Io(_) | PoolClosed | PoolTimedOut | Protocol(_) | Tls(_) | WorkerCrashed)
}

/// Returns the database's code of the error: an SQLSTATE (five characters), or SQLite's extended result code.
pub(super) fn code(error: &DbErr) -> Option<String> {
    use sea_orm::RuntimeErr::SqlxError;
    let (DbErr::Exec(SqlxError(inner)) | DbErr::Query(SqlxError(inner)) | DbErr::Conn(SqlxError(inner))) = error else {
        return None;
    };
    inner.as_database_error()?.code().map(Into::into)
}
