//! The parts around a server as production has them. Each test starts them itself and leaves nothing behind.
//!
//! - [`pooler`]: PgBouncer in transaction mode.

mod pooler;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, QueryResult, Statement};

async fn rows(url: &str, sql: &str) -> Vec<QueryResult> {
    let connection = Database::connect(url).await.unwrap();
    let rows = connection.query_all_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await.unwrap();
    connection.close().await.unwrap();
    rows
}
