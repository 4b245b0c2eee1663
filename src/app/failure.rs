//! What an error of the database means: whether repeating helps, whose fault it is, whether writes are possible at all. Both
//! databases' codes are known here and nowhere else.

use std::fmt;

use sea_orm::DbErr;

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

/// Whether repeating the whole transaction can help: serialisation failure, deadlock, a busy SQLite file.
pub fn is_conflict(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01" | "55P03" | "5" | "6" | "517" | "261"))
}

/// Whether the data itself is at fault, so that a smaller batch may pass: SQLSTATE classes 22 and 23, SQLite's
/// constraint (19), too big (18) and mismatch (20).
pub fn is_data_error(error: &DbErr) -> bool {
    code(error).is_some_and(|code| {
        let sqlite = code.parse::<u32>().is_ok_and(|code| code < 10_000 && matches!(code & 0xff, 18..=20));
        sqlite || (code.len() == 5 && (code.starts_with("22") || code.starts_with("23")))
    })
}

/// Whether a statement took longer than it may (PostgreSQL).
pub fn is_statement_timeout(error: &DbErr) -> bool {
    code(error).as_deref() == Some("57014")
}

/// Whether the server did not carry the statement out, for reasons that pass: it is starting or stopping (class 57), it
/// takes no writes (it has no room, say), it gave the transaction up because this node was silent (25P03), the connection
/// broke (08).
pub fn is_transient(error: &DbErr) -> bool {
    code(error).is_some_and(|code| code.starts_with("57") || code.starts_with("08") || code == "25P03")
        || Obstacle::of(error).is_some()
        || is_broken_connection(error)
}

/// Whether a lock was not to be had in the time that was given for it (PostgreSQL).
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

/// What the database calls the error: an SQLSTATE (five characters), or SQLite's extended result code.
pub(super) fn code(error: &DbErr) -> Option<String> {
    use sea_orm::RuntimeErr::SqlxError;
    let (DbErr::Exec(SqlxError(inner)) | DbErr::Query(SqlxError(inner)) | DbErr::Conn(SqlxError(inner))) = error else {
        return None;
    };
    inner.as_database_error()?.code().map(Into::into)
}
