//! What SQLite says about a file.

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, Statement};

/// Returns the journal mode of the file, which is `wal` once a program of Windfall has opened it to write.
pub async fn journal_mode(db: &impl ConnectionTrait) -> Result<String, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DatabaseBackend::Sqlite, "PRAGMA journal_mode")).await?;
    row.map_or_else(|| Ok(String::new()), |row| row.try_get_by_index(0))
}
