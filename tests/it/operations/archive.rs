//! The SQL about sizes and archiving in the operators' README does what the README says.

use entity::trail_entry;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseBackend, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    Statement,
};
use serde_json::json;

use super::blocks;
use crate::support::app::{ENGINES, Engine, open, scratch};
use crate::support::server::{command, run};
use crate::support::shop::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_can_be_archived() {
    let archive = blocks("sql").into_iter().find(|block| block.starts_with("BEGIN;")).unwrap();
    let archive = archive.replace("BEGIN;", "").replace("COMMIT;", "");
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = Shop::open(&url).await;
        shop.campaign(json!({ "budget": 1_200 })).await;
        for customer in ["customer-17", "customer-18", "customer-19"] {
            shop.buy_many(customer, 0..40).await;
            shop.refund(customer, 3).await;
        }
        let adjust = "mutation($input: AdjustPointsInput!) { adjustPoints(input: $input) { userErrors { code } } }";
        for customer in ["customer-17", "customer-19"] {
            let input =
                json!({ "customerExternalId": customer, "points": 5, "reason": "r", "idempotencyKey": customer });
            shop.data(&shop.admin, adjust, json!({ "input": input })).await;
        }
        let export = "mutation { exportCustomer(externalId: \"customer-17\") { job { id } userErrors { code } } }";
        let job = shop.data(&shop.admin, export, json!({})).await["exportCustomer"]["job"]["id"].take();
        let query = "query($id: ID!) { job(id: $id) { resultUrl } }";
        while shop.data(&shop.admin, query, json!({ "id": job })).await["job"]["resultUrl"].is_null() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // Customers who had the same purchase are kept.
        shop.hand_over("customer-18", 39, "customer-19").await;
        let kept = [shop.ledger("customer-18").await, shop.ledger("customer-19").await];
        assert!(shop.server.terminate().success());
        let database = open(&url).await;
        let tx = database.begin().await.unwrap();
        tx.execute_unprepared(&archive).await.unwrap();
        tx.commit().await.unwrap();
        let trail = trail_entry::Entity::find().filter(trail_entry::Column::CustomerId.is_not_null());
        let trail = trail.order_by_asc(trail_entry::Column::Id).all(database.read()).await.unwrap();
        let has_state: Vec<bool> = trail.iter().map(|entry| entry.before.is_some() || entry.after.is_some()).collect();
        assert_eq!(has_state, [false, true, false], "{engine:?}");
        let results = entity::export_chunk::Entity::find().all(database.read()).await.unwrap();
        assert!(results.is_empty(), "{engine:?}");
        database.close().await.unwrap();
        // The statistics and the budget of the campaign still include the archived customer.
        let repaired = run(command(&url).args(["audit", "--repair"]));
        assert!(repaired.stdout.ends_with("0 customers repaired, 1 campaigns repaired\n"), "{engine:?}: {repaired:?}");
        let audit = run(command(&url).arg("audit"));
        assert_eq!(audit.stdout, "2 customers, 0 differences, 0 customers repaired\n", "{engine:?}: {audit:?}");
        let shop = Shop::open(&url).await;
        assert_eq!([shop.ledger("customer-18").await, shop.ledger("customer-19").await], kept, "{engine:?}");
        // The budget has room again, and an archived customer that comes back has no history.
        shop.buy_many("customer-17", 0..40).await;
        assert_eq!(shop.ledger("customer-17").await.len(), 40, "{engine:?}");
        assert!(shop.server.terminate().success());
        assert_eq!(run(command(&url).arg("audit")).code, Some(0), "{engine:?}");
    }
}

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
