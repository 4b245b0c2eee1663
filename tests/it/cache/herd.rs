//! Concurrent readers of a snapshot that is not cached share one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use windfall::cache::{Cache, Loaded, Lost};
use windfall::http::auth::Role;

use crate::support::node::{metric, node};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::server::token;
use crate::support::shop::{BALANCE, Shop};

const READERS: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_loaded_once() {
    let cache: Arc<Cache<String, Lost>> = Arc::new(Cache::new(1 << 20, None));
    let (loads, barrier) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(READERS)));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (cache, loads, barrier) = (Arc::clone(&cache), Arc::clone(&loads), Arc::clone(&barrier));
        readers.spawn(async move {
            barrier.wait().await;
            let load = move |keys: Vec<String>| async move {
                loads.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(50)).await;
                let loaded = |key: String| Loaded { wanted: key.clone(), key, value: "value".to_owned() };
                Ok(keys.into_iter().map(loaded).collect())
            };
            cache.get(vec!["key".to_owned()], |_: &String| true, load).await.unwrap()["key"].value.to_string()
        });
    }
    assert!(readers.join_all().await.iter().all(|value| value == "value"));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

/// The first reader goes away during the load. The other readers still get the result of that load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_cancels_nothing() {
    let cache: Arc<Cache<String, Lost>> = Arc::new(Cache::new(1 << 20, None));
    let (begun, go_on) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let first = tokio::spawn({
        let (cache, begun, go_on) = (Arc::clone(&cache), Arc::clone(&begun), Arc::clone(&go_on));
        async move {
            let load = |_: Vec<String>| async move {
                begun.wait().await;
                go_on.wait().await;
                Ok(vec![Loaded { wanted: "key".to_owned(), key: "key".to_owned(), value: "first".to_owned() }])
            };
            cache.get(vec!["key".to_owned()], |_: &String| true, load).await.map(|found| found.len())
        }
    });
    begun.wait().await;
    let second = tokio::spawn(async move {
        let load = |_: Vec<String>| async { panic!("the key is loaded a second time") };
        cache.get(vec!["key".to_owned()], |_: &String| true, load).await.unwrap()["key"].value.to_string()
    });
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go_on.wait().await;
    assert_eq!(second.await.unwrap(), "first");
}

/// If the task of a search panics, everyone who waits for it gets an error, and the next search is a new one.
#[tokio::test]
async fn a_lost_search_blocks_nobody() {
    let cache: Arc<Cache<String, Lost>> = Arc::new(Cache::new(1 << 20, None));
    let key = || vec!["key".to_owned()];
    let panics = |_: Vec<String>| async { panic!("expected: this search must fail") };
    assert!(cache.get(key(), |_: &String| true, panics).await.is_err());
    let fails = |_: Vec<String>| async { Err(Lost) };
    assert!(cache.get(key(), |_: &String| true, fails).await.is_err());
    let none = |_: Vec<String>| async { Ok(Vec::new()) };
    assert!(cache.get(key(), |_: &String| true, none).await.unwrap().is_empty());
    let load = |_: Vec<String>| async {
        Ok(vec![Loaded { wanted: "key".to_owned(), key: "later".to_owned(), value: "value".to_owned() }])
    };
    assert_eq!(*cache.get(key(), |_: &String| true, load).await.unwrap()["key"].value, "value");
    // The entry is stored under the key that the load returned, not under the key that was asked for.
    let fails = |_: Vec<String>| async { Err(Lost) };
    assert!(cache.get(key(), |_: &String| true, fails).await.is_err());
    assert_eq!(cache.get(vec!["later".to_owned()], |_: &String| true, fails).await.unwrap().len(), 1);
}

async fn all_at_once(shop: &Arc<Shop>) {
    let ada = token(Role::Customer, "ada");
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let (shop, ada) = (Arc::clone(shop), ada.clone());
        readers.spawn(async move { shop.data(&ada, BALANCE, json!({})).await["me"]["balance"]["version"].clone() });
    }
    assert!(readers.join_all().await.iter().all(|version| *version == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_customer_is_loaded_once_a_node() {
    let url = Postgres::shared().create_database().await;
    let redis = Redis::start();
    let limits = [
        ("WINDFALL__LIMITS__CONCURRENT_REQUESTS", "20000"),
        ("WINDFALL__LIMITS__CUSTOMER_BURST_POINTS", "1000000"),
        // No request may time out, however slow the machine is.
        ("WINDFALL__HTTP__REQUEST_TIMEOUT_MS", "600000"),
        ("WINDFALL__HTTP__WRITE_TIMEOUT_MS", "600000"),
    ];
    let mut nodes = Vec::new();
    for redis in [None, None, Some(redis.url())] {
        nodes.push(Arc::new(node(&url, redis.as_deref(), &limits).await));
    }
    nodes[0].campaign(json!({})).await;
    nodes[0].buy("ada", 0).await;
    let mut reads = 0.0;
    for shop in &nodes {
        all_at_once(shop).await;
        assert!(metric(shop, "windfall_cache_reads_total{tier=\"sql\"}").await <= 1.0);
        assert_eq!(metric(shop, "windfall_cache_load_seconds_count").await, 1.0);
        reads += metric(shop, "windfall_cache_lookup_names_count").await;
    }
    println!("{READERS} readers of one customer on each of 3 nodes: one load per node, {reads} look-ups in total");
}
