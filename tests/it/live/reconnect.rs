//! A follower whose connection is cut again and again while points keep changing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::{Follower, TRANSPORTS, Told, Transport, entries};
use crate::support::app::{ENGINES, cases, scratch};
use crate::support::graphql::text;
use crate::support::shop::Shop;

/// Makes purchases until `stop` is set. Refunds the first of every three after the third, which changes the pairs of its session.
async fn buy_and_refund(shop: Arc<Shop>, stop: Arc<AtomicBool>) {
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        shop.buy("ada", number).await;
        if number % 3 == 2 {
            shop.refund("ada", number - 2).await;
        }
    }
}

/// Opens a connection, receives `updates` updates and ends the connection, in good order or not.
async fn one_connection(shop: &Shop, told: &mut Told, transport: Transport, updates: u32, in_good_order: bool) {
    let mut follower = Follower::of(transport, shop, "ada", told.cursor.as_deref()).await;
    for _ in 0..updates {
        told.hear(follower.update().await);
    }
    match follower {
        Follower::Socket(socket) if in_good_order => socket.close().await,
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_with_its_cursor_misses_nothing() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = Arc::new(Shop::open(&url).await);
        shop.campaign(json!({})).await;
        let pairs = json!({ "purchases": { "atLeast": 2, "repeat": true } });
        let session = json!({ "session": { "gap": "PT3H" } });
        shop.campaign(json!({ "name": "pairs", "window": session, "goal": pairs, "award": { "points": 7 } })).await;
        let mut told = Told::after(text(&shop.balance("ada").await["cursor"]));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(buy_and_refund(Arc::clone(&shop), Arc::clone(&stop)));
        for cycle in 0..cases(200, 1_000) {
            let transport = TRANSPORTS[usize::from(cycle % 3 == 2)];
            // With zero updates, the connection is cut before, during or after the read of its backlog.
            let updates = rand::random_range(0..=8);
            one_connection(&shop, &mut told, transport, updates, rand::random_bool(0.3)).await;
        }
        stop.store(true, Ordering::SeqCst);
        writer.await.unwrap();

        let ledger = entries(&shop, "ada").await;
        let mut follower = Follower::of(Transport::WebSocket, &shop, "ada", told.cursor.as_deref()).await;
        told.hear_all(&mut follower, &ledger).await;
        told.is_all_of(&shop, "ada").await;
        assert!(ledger.len() >= cases(200, 1_000), "{engine:?}: only {} entries", ledger.len());
        println!("{engine:?}: {} entries over {} connections", ledger.len(), cases(200, 1_000));
    }
}
