//! What readiness, metrics and logs report about Redis.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use crate::support::node::{metric, node};
use crate::support::redis::Redis;
use crate::support::server::{Server, command};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

async fn ready(shop: &Shop) -> (u16, String) {
    let answer = shop.client.get(format!("{}/readyz", shop.address())).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn until(shop: &Shop, wanted: &str) {
    while ready(shop).await != (200, wanted.to_owned()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_node_is_ready_without_it_and_says_so() {
    let (sqlite, mut redis) = (Sqlite::new(), Redis::start());
    redis.kill();
    let shop = node(&sqlite.url(), Some(&redis.url()), &[]).await;
    until(&shop, "degraded: Redis is not used").await;
    assert_eq!(metric(&shop, "windfall_redis_up").await, 0.0);
    redis.restart();
    until(&shop, "ok").await;
    assert_eq!(metric(&shop, "windfall_redis_up").await, 1.0);
    shop.buy("ada", 0).await;
    redis.kill();
    // The balance is returned without Redis. The outage shows only in readiness and metrics.
    shop.balance("ada").await;
    until(&shop, "degraded: Redis is not used").await;
    assert_eq!(metric(&shop, "windfall_redis_breaker_opened_total").await, 1.0);
    assert!(shop.server.terminate().success());
}

#[tokio::test]
async fn one_that_grows_without_end_is_warned_of() {
    for (arguments, warned) in [
        (["--maxmemory", "0", "--maxmemory-policy", "noeviction"], ["no memory limit", "evicts nothing"].as_slice()),
        (["--maxmemory", "64mb", "--maxmemory-policy", "noeviction"], &["evicts nothing"]),
        (["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lfu"], &[]),
    ] {
        let (sqlite, redis) = (Sqlite::new(), Redis::start_with(&arguments));
        let mut serve = command(&sqlite.url());
        let (server, stderr) =
            Server::start_with(serve.env("WINDFALL__REDIS__URL", redis.url()).stderr(Stdio::piped())).await;
        let shop = Shop::of(server);
        until(&shop, "ok").await;
        assert!(shop.server.terminate().success());
        let mut told = String::new();
        stderr.unwrap().read_to_string(&mut told).unwrap();
        for words in ["no memory limit", "evicts nothing"] {
            assert_eq!(told.contains(words), warned.contains(&words), "{arguments:?}: {told}");
        }
    }
}
