//! A database that is restored to an earlier state goes on with another future than the one that Redis still has.

use serde_json::json;

use super::{metric, node, number};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

/// Under the same customers and versions, other things happen after the restore than before it.
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

    // One future: two purchases each, read so that Redis has versions 2 and 3.
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

    // The other: the first purchase is taken back, which is version 2 too; then one more.
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
    // Nothing of it was found in Redis but what both have in common.
    let shared = metric(&shop, "windfall_cache_reads_total{tier=\"l2\"}").await;
    assert!(shared <= 20.0, "{shared}");
    assert!(shop.server.terminate().success());
}
