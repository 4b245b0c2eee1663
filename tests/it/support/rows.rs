//! The number of rows that a PostgreSQL server has read. The server counts them itself, so nothing in between can
//! falsify them.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, DatabaseConnection, QueryResult, Statement};

/// The rows read so far from each table of this database, by scans of the table and through its indexes. PostgreSQL
/// counts what a connection read once the connection is closed. So this waits until the database has no other
/// connection: stop the application first.
pub(crate) async fn rows_read(url: &str) -> BTreeMap<String, u64> {
    let db = Database::connect(url).await.expect("a database that answers");
    let others =
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while number(&query(&db, others).await[0], "n") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let read = "SELECT relname::text AS name, seq_tup_read + COALESCE(idx_tup_fetch, 0) AS n FROM pg_stat_user_tables";
    let tables = query(&db, read).await;
    db.close().await.expect("a closed connection");
    let rows = |row: &QueryResult| (row.try_get("", "name").expect("a name"), number(row, "n"));
    tables.iter().map(rows).collect()
}

async fn query(db: &DatabaseConnection, sql: &str) -> Vec<QueryResult> {
    db.query_all_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await.expect("a query that works")
}

fn number(row: &QueryResult, column: &str) -> u64 {
    let number: i64 = row.try_get("", column).expect("a number");
    number.try_into().expect("not negative")
}
