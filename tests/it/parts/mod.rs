//! The parts around a server as production has them. Each test starts them itself and leaves nothing behind.
//!
//! - [`postgres`]: PostgreSQL with TLS, and a password that changes while nodes run.
//! - [`pooler`]: PgBouncer in transaction mode.
//! - [`secrets`]: secrets in files, and the rotation of the secret that signs tokens.

mod pooler;
mod postgres;
mod secrets;

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, QueryResult, Statement};
use serde_json::Value;

use crate::support::websocket::PATIENCE;

/// Runs a statement without parameters in this database.
async fn run_sql(url: &str, sql: &str) {
    let connection = Database::connect(url).await.unwrap();
    connection.execute_unprepared(sql).await.unwrap();
    connection.close().await.unwrap();
}

async fn rows(url: &str, sql: &str) -> Vec<QueryResult> {
    let connection = Database::connect(url).await.unwrap();
    let rows = connection.query_all_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await.unwrap();
    connection.close().await.unwrap();
    rows
}

/// Sends a request again until it is answered without an error.
async fn persist(mut send: impl AsyncFnMut() -> Option<Value>) -> Value {
    let persisting = async {
        loop {
            match send().await {
                Some(answer) if answer.get("errors").is_none() => return answer,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, persisting).await.expect("an answer without an error in time")
}
