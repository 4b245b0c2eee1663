//! Steps that a big table lets be done while others write to it.
//!
//! A migration that uses them says `use_transaction() == Some(false)`. On PostgreSQL it then runs outside any transaction, one at a
//! time, and may be cut off anywhere: each step must find out what an earlier run left, and go on from there. On SQLite it runs in
//! one transaction with the others.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbBackend, Statement};

/// Makes an index. `on` is the table with what is indexed, such as `award (customer_id, status)`, and may end in a WHERE.
pub async fn create_index(manager: &SchemaManager<'_>, name: &str, on: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    if db.get_database_backend() != DbBackend::Postgres {
        db.execute_unprepared(&format!("CREATE INDEX IF NOT EXISTS {name} ON {on}")).await?;
        return Ok(());
    }
    match is_valid(db, name).await? {
        Some(true) => return Ok(()),
        // What was cut off leaves an index that costs writes and serves nobody.
        Some(false) => drop_index(manager, name).await?,
        None => {}
    }
    db.execute_unprepared(&format!("CREATE INDEX CONCURRENTLY {name} ON {on}")).await?;
    Ok(())
}

/// Removes an index, if it is there.
pub async fn drop_index(manager: &SchemaManager<'_>, name: &str) -> Result<(), DbErr> {
    let db = manager.get_connection();
    let concurrently = if db.get_database_backend() == DbBackend::Postgres { "CONCURRENTLY " } else { "" };
    db.execute_unprepared(&format!("DROP INDEX {concurrently}IF EXISTS {name}")).await?;
    Ok(())
}

/// Whether an index can be used; none: there is no such index.
async fn is_valid(db: &SchemaManagerConnection<'_>, name: &str) -> Result<Option<bool>, DbErr> {
    let sql = "SELECT indisvalid AND indisready AS valid FROM pg_index WHERE indexrelid = to_regclass($1)";
    let ask = Statement::from_sql_and_values(DbBackend::Postgres, sql, [name.into()]);
    db.query_one_raw(ask).await?.map(|row| row.try_get("", "valid")).transpose()
}
