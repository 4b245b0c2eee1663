//! Followers on one node receive the commits of another, with and without Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use windfall::http::auth::Role;

use super::{Follower, TRANSPORTS, Told, Transport, entries};
use crate::support::app::cases;
use crate::support::graphql::text;
use crate::support::node::{metric, node, reaches};
use crate::support::postgres::Postgres;
use crate::support::proxy::{Mode, Proxy};
use crate::support::redis::Redis;
use crate::support::server::{command, run, token};
use crate::support::shop::Shop;

/// Records purchases and refunds on both writers' nodes until `stop` is set.
async fn buy_and_refund(writers: Arc<[Shop; 2]>, stop: Arc<AtomicBool>) {
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        writers[number % 2].buy("ada", number).await;
        if number % 3 == 2 {
            writers[(number + 1) % 2].refund("ada", number - 2).await;
        }
    }
}

/// The follower's node is killed again and again, and the follower continues on another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_loses_its_node_goes_on_at_another_and_misses_nothing() {
    let cycles = cases(30, 300);
    let url = Postgres::shared().create_database().await;
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let writers = Arc::new([node(&url, Some(&proxy.url()), &[]).await, node(&url, Some(&proxy.url()), &[]).await]);
    writers[0].campaign(json!({})).await;
    let mut told = Told::after(text(&writers[0].balance("ada").await["cursor"]));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(buy_and_refund(Arc::clone(&writers), Arc::clone(&stop)));
    let mut followed = node(&url, Some(&proxy.url()), &[]).await;
    for cycle in 0..cycles {
        let next = tokio::spawn({
            let (url, redis) = (url.clone(), proxy.url());
            async move { node(&url, Some(&redis), &[]).await }
        });
        let seed = u64::try_from(cycle).unwrap();
        proxy.set(match cycle % 3 {
            0 => Mode::Pass,
            1 => Mode::DropSubscriptions { seed, within: Duration::from_millis(50) },
            _ => Mode::Blackhole,
        });
        let mut follower = Follower::of(TRANSPORTS[cycle % 2], &followed, "ada", told.cursor.as_deref()).await;
        for _ in 0..rand::random_range(0..=8) {
            told.hear(follower.update().await);
        }
        std::mem::replace(&mut followed, next.await.unwrap()).server.kill9();
    }
    proxy.set(Mode::Pass);
    stop.store(true, Ordering::SeqCst);
    writing.await.unwrap();
    let ledger = entries(&writers[0], "ada").await;
    let mut follower = Follower::of(Transport::WebSocket, &followed, "ada", told.cursor.as_deref()).await;
    told.hear_all(&mut follower, &ledger).await;
    told.is_all_of(&followed, "ada").await;
    assert!(ledger.len() >= cycles, "only {} entries", ledger.len());
    println!("{} entries over {cycles} killed nodes", ledger.len());
}

/// Measures the time from just before the request on one node until the update on another. Returns p50 and p99.
async fn delays(from: &Shop, to: &Shop, purchases: usize, at_once: usize) -> (Duration, Duration) {
    let mut delays = Vec::new();
    for round in 0..purchases / at_once {
        let mut followers = Vec::new();
        for customer in 0..at_once {
            let name = format!("d{at_once}-{customer}");
            // Without a cursor, the follower would miss commits before its subscription starts.
            let after = text(&to.balance(&name).await["cursor"]);
            followers.push((name.clone(), Follower::of(Transport::WebSocket, to, &name, Some(&after)).await));
        }
        let mut waiting = JoinSet::new();
        for (name, mut follower) in followers {
            let began = Instant::now();
            from.buy(&name, round).await;
            waiting.spawn(async move {
                let update = follower.update().await;
                assert_eq!(update["change"], 10, "{update}");
                began.elapsed()
            });
        }
        delays.extend(waiting.join_all().await);
    }
    delays.sort_unstable();
    (delays[delays.len() / 2], delays[delays.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_commits_is_told_with_redis_and_without() {
    let redis = Redis::start();
    let mut medians = Vec::new();
    for shared in [Some(redis.url()), None] {
        let url = Postgres::shared().create_database().await;
        let (from, to) = (node(&url, shared.as_deref(), &[]).await, node(&url, shared.as_deref(), &[]).await);
        from.campaign(json!({})).await;
        let (purchases, at_once) = if shared.is_some() { (cases(200, 5_000), 1) } else { (cases(100, 1_000), 50) };
        let (p50, p99) = delays(&from, &to, purchases, at_once).await;
        let how = if shared.is_some() { "with Redis" } else { "by the sweep alone" };
        println!("from the request on one node to the update on another, {how}: p50 {p50:?}, p99 {p99:?}");
        medians.push(p50);
    }
    // With Redis, a hint announces the commit, so no sweep is needed.
    assert!(medians[0] * 4 < medians[1], "{medians:?}");
}

/// 64 writers record purchases of one customer through two nodes at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_customer_s_ledger_is_exact() {
    const WRITERS: usize = 64;
    let each = cases(10, 100);
    let url = Postgres::shared().create_database().await;
    let redis = Redis::start();
    let mut nodes = Vec::new();
    for _ in 0..2 {
        nodes.push(Arc::new(node(&url, Some(&redis.url()), &[]).await));
    }
    nodes[0].campaign(json!({})).await;
    let start = text(&nodes[0].balance("ada").await["cursor"]);
    let mut followers = Vec::new();
    for shop in &nodes {
        followers
            .push((Follower::of(Transport::WebSocket, shop, "ada", Some(&start)).await, Told::after(start.clone())));
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let shop = Arc::clone(&nodes[writer % 2]);
        writers.spawn(async move {
            for number in 0..each {
                shop.buy("ada", writer * each + number).await;
            }
        });
    }
    writers.join_all().await;
    let bought = WRITERS * each;
    for shop in &nodes {
        let ada = token(Role::Customer, "ada");
        let balance = shop.data(&ada, "{ me { balance { available lifetime } } }", json!({})).await;
        assert_eq!(balance["me"]["balance"], json!({ "available": 10 * bought, "lifetime": 10 * bought }));
    }
    let ledger = entries(&nodes[0], "ada").await;
    assert_eq!(ledger.len(), bought);
    for (index, entry) in ledger.iter().enumerate() {
        assert_eq!((&entry["sequence"], &entry["balanceAfter"]), (&json!(index + 1), &json!(10 * (index + 1))));
    }
    for ((follower, told), shop) in followers.iter_mut().zip(&nodes) {
        told.hear_all(follower, &ledger).await;
        told.is_all_of(shop, "ada").await;
    }
    let audited = run(command(&url).arg("audit"));
    assert_eq!(audited.code, Some(0), "{audited:?}");
}

/// Two nodes start on an empty database at the same time, and both try to migrate it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_may_start_at_once() {
    let redis = Redis::start();
    for _ in 0..cases(2, 20) {
        let url = Postgres::shared().create_database().await;
        let redis_url = redis.url();
        let (one, other) = tokio::join!(
            tokio::spawn({
                let (url, redis) = (url.clone(), redis_url.clone());
                async move { node(&url, Some(&redis), &[]).await }
            }),
            tokio::spawn({
                let (url, redis) = (url.clone(), redis_url.clone());
                async move { node(&url, Some(&redis), &[]).await }
            }),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        one.campaign(json!({})).await;
        other.buy("ada", 0).await;
        assert_eq!(one.balance("ada").await["available"], 10);
        assert!(one.server.terminate().success() && other.server.terminate().success());
    }
}

/// A copy of a database has the same installation id and the same history. Followers of the original must not receive the
/// commits of the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_on_the_same_redis_is_not_heard() {
    let (postgres, redis) = (Postgres::shared(), Redis::start());
    let url = postgres.create_database().await;
    let shop = node(&url, Some(&redis.url()), &[]).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    assert!(shop.server.terminate().success());
    let copy = node(&postgres.copy_database(&url).await, Some(&redis.url()), &[]).await;
    let (followed, other) = (node(&url, Some(&redis.url()), &[]).await, node(&url, Some(&redis.url()), &[]).await);
    reaches(&followed, "windfall_live_listening", 1.0).await;
    let start = text(&followed.balance("ada").await["cursor"]);
    let mut follower = Follower::of(Transport::WebSocket, &followed, "ada", Some(&start)).await;
    // Both commits follow the version that the follower has.
    copy.refund("ada", 0).await;
    other.buy("ada", 2).await;
    let update = follower.update().await;
    let mut told = Told::after(start);
    told.hear(update);
    assert_eq!(told.entries, entries(&other, "ada").await[1..]);
    reaches(&followed, "windfall_live_hints_total{direction=\"received\"}", 1.0).await;
    assert_eq!(metric(&followed, "windfall_live_hints_total{direction=\"received\"}").await, 1.0);
}
