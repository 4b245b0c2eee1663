//! The SQL about sizes in the operators' README does what the README says.

use sea_orm::{ConnectionTrait as _, DatabaseBackend, Statement};

use super::blocks;
use crate::support::app::{Engine, open, scratch};

#[tokio::test]
async fn the_size_of_each_table_is_told() {
    let sizes = blocks("sql").into_iter().find(|block| block.contains("pg_total_relation_size")).unwrap();
    let (url, _) = scratch(Engine::Postgres).await;
    let database = open(&url).await;
    database.migrate().await.unwrap();
    let rows = database.read().query_all_raw(Statement::from_string(DatabaseBackend::Postgres, sizes)).await.unwrap();
    let sizes = rows.iter().map(|row| {
        let (table, bytes): (String, i64) =
            (row.try_get("", "relname").unwrap(), row.try_get("", "bytes_a_purchase").unwrap());
        (table, bytes)
    });
    assert!(sizes.clone().any(|(table, bytes)| table == "purchase" && bytes > 0), "{:?}", sizes.collect::<Vec<_>>());
}
