//! Steps that a big table lets be done while others write to it.
//!
//! A migration that uses them says `use_transaction() == Some(false)`. On PostgreSQL it then runs outside any transaction, one at a
//! time, and may be cut off anywhere: each step must find out what an earlier run left, and go on from there. On SQLite, and in a
//! new database, it runs in one transaction with the others. A table without rows needs no such care on PostgreSQL either.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

/// Makes an index of a table. `columns` is what is indexed, in order, such as `customer_id, status`.
pub async fn create_index(manager: &SchemaManager<'_>, name: &str, table: &str, columns: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    match is_valid(db, name).await? {
        Some(true) => return Ok(()),
        // What was cut off leaves an index that costs writes and serves nobody.
        Some(false) => drop_index(manager, name, table).await?,
        None => {}
    }
    let concurrently = concurrently(db, table).await?;
    db.execute_unprepared(&format!("CREATE INDEX {concurrently}{name} ON {table} ({columns})")).await?;
    Ok(())
}

/// Removes an index of a table, if it is there.
pub async fn drop_index(manager: &SchemaManager<'_>, name: &str, table: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let concurrently = concurrently(db, table).await?;
    db.execute_unprepared(&format!("DROP INDEX {concurrently}IF EXISTS {name}")).await?;
    Ok(())
}

/// The word for a step during which others write to the table. On SQLite there is none, and a table without rows needs none.
async fn concurrently(db: &SchemaManagerConnection<'_>, table: &str) -> Result<&'static str, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok("");
    }
    let ask = Statement::from_string(DbBackend::Postgres, format!("SELECT 1 FROM {table} LIMIT 1"));
    Ok(if db.query_one_raw(ask).await?.is_some() { "CONCURRENTLY " } else { "" })
}

/// Whether an index can be used; none: there is no such index.
async fn is_valid(db: &SchemaManagerConnection<'_>, name: &str) -> Result<Option<bool>, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        // None is ever cut off, and a migration that was applied is not applied again.
        return Ok(None);
    }
    let sql = "SELECT indisvalid AND indisready AS valid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let ask = Statement::from_sql_and_values(DbBackend::Postgres, sql, [name.into()]);
    db.query_one_raw(ask).await?.map(|row| row.try_get("", "valid")).transpose()
}
