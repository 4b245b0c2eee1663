//! Followers that have more to catch up with than one read returns.

use serde_json::{Value, json};

use super::{Follower, Told, Transport, entries};
use crate::support::app::{ENGINES, scratch};
use crate::support::graphql::text;
use crate::support::shop::Shop;

/// The most entries of one update, as documented in the schema.
const MAX_ENTRIES: usize = 500;
const PURCHASES: usize = 1_100;

fn size(update: &Value) -> usize {
    update["entries"].as_array().unwrap().len()
}

/// The backfill after an activation makes one commit for all purchases of a customer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_large_commit_comes_in_parts() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = Shop::open(&url).await;
        shop.buy_many("ada", 0..PURCHASES).await;
        let start = text(&shop.balance("ada").await["cursor"]);
        let mut live = Follower::of(Transport::WebSocket, &shop, "ada", Some(&start)).await;
        shop.campaign(json!({})).await;
        let mut told = Told::after(start.clone());
        while told.entries.len() < PURCHASES {
            let update = live.update().await;
            assert!((1..=MAX_ENTRIES).contains(&size(&update)), "{}", size(&update));
            told.hear(update);
        }
        told.is_all_of(&shop, "ada").await;
        // The same from the start, with a new connection for each part.
        let mut told = Told::after(start);
        let mut connections = 0;
        while told.entries.len() < PURCHASES {
            let transport = super::TRANSPORTS[connections % 2];
            let mut follower = Follower::of(transport, &shop, "ada", told.cursor.as_deref()).await;
            told.hear(follower.update().await);
            connections += 1;
        }
        told.is_all_of(&shop, "ada").await;
        assert!(connections >= PURCHASES.div_ceil(MAX_ENTRIES), "{engine:?}: {connections}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commits_come_each_as_an_update() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = Shop::open(&url).await;
        shop.campaign(json!({})).await;
        let start = text(&shop.balance("ada").await["cursor"]);
        let commits = MAX_ENTRIES + 30;
        for number in 0..commits {
            shop.buy("ada", number).await;
        }
        let ledger = entries(&shop, "ada").await;
        let mut told = Told::after(start.clone());
        let mut follower = Follower::of(Transport::Events, &shop, "ada", Some(&start)).await;
        for _ in 0..commits {
            let update = follower.update().await;
            assert_eq!(size(&update), 1);
            told.hear(update);
        }
        told.is(&ledger);
        told.is_all_of(&shop, "ada").await;
    }
}
