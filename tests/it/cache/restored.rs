//! After a database is restored to an earlier state, its history continues differently from what Redis still contains.

use serde_json::{Value, json};

use crate::support::node::{metric, node, number};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

/// After the restore, the same customers reach the same versions with different content.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_undone_is_shown_to_nobody() {
    let postgres = Postgres::shared();
    let redis = Redis::start();
    let first = postgres.create_database().await;
    let shop = node(&first, Some(&redis.url()), &[]).await;
    shop.campaign(json!({})).await;
    let customers: Vec<String> = (0..20).map(|number| format!("c{number}")).collect();
    for customer in &customers {
        shop.buy(customer, 0).await;
    }
    assert!(shop.server.terminate().success());
    let restored = postgres.copy_database(&first).await;

    // First history: two purchases of each customer. The reads store versions 2 and 3 in Redis.
    let shop = node(&first, Some(&redis.url()), &[]).await;
    for customer in &customers {
        for number in 1..3 {
            shop.buy(customer, number).await;
            assert_eq!(shop.balance(customer).await["available"], 10 * (number + 1));
        }
    }
    while redis.command(&["DBSIZE"]).parse::<usize>().unwrap() < 2 * customers.len() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(shop.server.terminate().success());

    // Second history: a refund of the first purchase, which is version 2 too, and then another purchase.
    let shop = node(&restored, Some(&redis.url()), &[]).await;
    for customer in &customers {
        assert_eq!(shop.balance(customer).await["available"], 10);
        shop.refund(customer, 0).await;
        let balance = shop.balance(customer).await;
        assert_eq!((number(&balance["version"]), number(&balance["available"])), (2, 0));
        shop.buy(customer, 7).await;
        let balance = shop.balance(customer).await;
        assert_eq!((number(&balance["version"]), number(&balance["available"])), (3, 10));
    }
    // At most one entry per customer came from Redis: that of version 1, which both histories have in common.
    let shared = metric(&shop, "windfall_cache_reads_total{tier=\"l2\"}").await;
    assert!(shared <= 20.0, "{shared}");
    assert!(shop.server.terminate().success());
}

/// The database goes back while nodes run. The nodes know campaigns and versions of customers that no longer exist, and what
/// comes next has the same revisions and versions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_nodes_forget_what_was_undone() {
    let postgres = Postgres::shared();
    let redis = Redis::start();
    let url = postgres.create_database().await;
    let shop = node(&url, Some(&redis.url()), &[]).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    assert!(shop.server.terminate().success());
    let copy = postgres.copy_database(&url).await;
    let (one, two) = (node(&url, Some(&redis.url()), &[]).await, node(&url, Some(&redis.url()), &[]).await);
    one.campaign(json!({ "name": "undone", "award": { "points": 100 } })).await;
    one.buy("ada", 1).await;
    let home = "{ me { balance { available version } progress { campaign { name } } } }";
    let ada = crate::support::server::token(windfall::http::auth::Role::Customer, "ada");
    let seen = async |shop: &Shop| shop.data(&ada, home, json!({})).await["me"].take();
    let comes_to = async |shop: &Shop, available: i64| {
        let comes = async {
            while seen(shop).await["balance"]["available"] != available {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, comes).await.expect("the balance reaches the expected points");
    };
    let progress = |newest: &str| json!([{ "campaign": { "name": newest } }, { "campaign": { "name": "each" } }]);
    let expected = |available: i64, version: i64, newest: &str| -> Value {
        json!({ "balance": { "available": available, "version": version }, "progress": progress(newest) })
    };
    for shop in [&one, &two] {
        // The second campaign counts both purchases once its backfill is complete.
        comes_to(shop, 220).await;
    }

    postgres.rewind_database(&url, &copy).await;
    one.is_back().await;
    one.campaign(json!({ "name": "instead", "award": { "points": 1 } })).await;
    // Not earlier, so that the first thing this node meets is a different campaign set at a revision that it knows.
    two.is_back().await;
    for (shop, number) in [(&two, 2), (&one, 3)] {
        shop.buy("ada", number).await;
    }
    for shop in [&one, &two] {
        comes_to(shop, 33).await;
        let seen = seen(shop).await;
        let version = number(&seen["balance"]["version"]);
        assert_eq!(seen, expected(33, version, "instead"));
    }
}
