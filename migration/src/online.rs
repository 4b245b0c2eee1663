//! Steps of migrations that change a large table while others write to it.
//!
//! A migration that uses these steps returns `Some(false)` from `use_transaction`. On PostgreSQL, such a migration runs alone and
//! outside any transaction. It can be interrupted anywhere, so each step must detect what an earlier run left and continue from
//! there. On SQLite, and in a new database, the migration runs in one transaction with the others. PostgreSQL allows that because
//! the tables of a new database are empty: on an empty table, each step uses an ordinary statement.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

/// Creates an index unless PostgreSQL has a usable one of this name. `columns` lists the indexed columns in order, such as
/// `customer_id, status`.
pub async fn create_index(manager: &SchemaManager<'_>, name: &str, table: &str, columns: &str) -> Result<(), DbErr> {
    create(manager, name, table, &format!("({columns})")).await
}

/// Like [`create_index`], but the index covers only the rows that meet a condition. A query can use it if it repeats the condition.
pub async fn create_partial_index(
    manager: &SchemaManager<'_>,
    name: &str,
    table: &str,
    columns: &str,
    condition: &str,
) -> Result<(), DbErr> {
    create(manager, name, table, &format!("({columns}) WHERE {condition}")).await
}

async fn create(manager: &SchemaManager<'_>, name: &str, table: &str, definition: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    match is_valid(db, name).await? {
        Some(true) => return Ok(()),
        // An interrupted run left an invalid index. It slows down writes, and no query can use it.
        Some(false) => drop_index(manager, name, table).await?,
        None => {}
    }
    let concurrently = concurrently(db, table).await?;
    db.execute_unprepared(&format!("CREATE INDEX {concurrently}{name} ON {table} {definition}")).await?;
    Ok(())
}

/// Drops an index of a table if it exists.
pub async fn drop_index(manager: &SchemaManager<'_>, name: &str, table: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let concurrently = concurrently(db, table).await?;
    db.execute_unprepared(&format!("DROP INDEX {concurrently}IF EXISTS {name}")).await?;
    Ok(())
}

/// Returns the SQL keyword that lets others write to the table during a step. It is empty on SQLite, which has no such keyword,
/// and for an empty table, which does not need it.
async fn concurrently(db: &SchemaManagerConnection<'_>, table: &str) -> Result<&'static str, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok("");
    }
    let ask = Statement::from_string(DbBackend::Postgres, format!("SELECT 1 FROM {table} LIMIT 1"));
    Ok(if db.query_one_raw(ask).await?.is_some() { "CONCURRENTLY " } else { "" })
}

/// Returns whether queries can use an index, or `None` if there is no index of this name.
async fn is_valid(db: &SchemaManagerConnection<'_>, name: &str) -> Result<Option<bool>, DbErr> {
    if db.get_database_backend() != DbBackend::Postgres {
        // On SQLite a step is part of a transaction, so none is left half done, and no applied migration is applied again.
        return Ok(None);
    }
    let sql = "SELECT indisvalid AND indisready AS valid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let ask = Statement::from_sql_and_values(DbBackend::Postgres, sql, [name.into()]);
    db.query_one_raw(ask).await?.map(|row| row.try_get("", "valid")).transpose()
}
