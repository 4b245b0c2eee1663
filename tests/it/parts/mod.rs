//! The parts around a server as production has them. Each test starts them itself and leaves nothing behind.
//!
//! - [`redis`]: Redis with TLS, as a cluster, and behind Sentinels that promote a replica.
//! - [`postgres`]: PostgreSQL with TLS, and a password that changes while nodes run.
//! - [`pooler`]: PgBouncer in transaction mode.
//! - [`secrets`]: secrets in files, and the rotation of the secret that signs tokens.

mod pooler;
mod postgres;
mod redis;
mod secrets;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, QueryResult, Statement};
use serde_json::Value;

use crate::support::server::{Server, command};
use crate::support::shop::Shop;
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

/// Starts a node with these variables, and waits until it logs a line with these words.
async fn logs(database_url: &str, variables: &[(&str, &str)], words: &str) -> Shop {
    let mut serve = command(database_url);
    serve.envs(variables.iter().copied()).stderr(Stdio::piped());
    let (server, stderr) = Server::start_with(&mut serve).await;
    let (found, is_found) = tokio::sync::oneshot::channel();
    let words = words.to_owned();
    // The thread reads on, so that the server can write.
    std::thread::spawn(move || {
        let mut found = Some(found);
        for line in BufReader::new(stderr.unwrap()).lines().map_while(Result::ok) {
            if line.contains(&words)
                && let Some(found) = found.take()
            {
                let _ = found.send(());
            }
        }
    });
    tokio::time::timeout(PATIENCE, is_found).await.expect("a line in time").expect("a line with these words");
    Shop::of(server)
}
