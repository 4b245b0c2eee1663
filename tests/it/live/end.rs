//! How subscriptions end. The last response is an error with the reason and the cursor to continue from. A server that stops
//! closes the connections instead, because clients reconnect after a lost connection only.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use windfall::http::auth::Role;

use super::{Follower, TRANSPORTS, Told, Transport, entries, stats};
use crate::support::events::Event;
use crate::support::graphql::text;
use crate::support::server::{Server, command, token_for};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

/// The lifetime of a token: long enough to connect, and short enough to wait for its end.
const SHORT: Duration = Duration::from_secs(3);
/// The pause between two purchases.
const PAUSE: Duration = Duration::from_millis(10);

/// Asserts that the connection ends without another message about an operation.
async fn connection_ends(follower: Follower, code: u16) {
    match follower {
        Follower::Socket(mut socket) => assert_eq!(socket.closed().await, code),
        Follower::Events(mut events) => assert_eq!(events.next().await, Event::Ended),
    }
}

/// Adds updates until the error that ends the stream, whose cursor must be that of the last update. Returns the error's code.
async fn hear_to_the_end(told: &mut Told, follower: &mut Follower) -> String {
    loop {
        let mut answer = follower.next().await.expect("the error before the end");
        if answer.get("errors").is_none() {
            told.hear(answer["data"]["pointsUpdated"].take());
            continue;
        }
        let (code, cursor) = super::ended_with(&answer);
        assert_eq!(cursor, told.cursor);
        assert_eq!(follower.next().await, None, "the error is the last response");
        return code;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_ends_them_and_a_new_one_goes_on() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(command(&sqlite.url()).env("WINDFALL__AUTH__LEEWAY_SECONDS", "0")).await;
    shop.campaign(json!({})).await;
    let start = text(&shop.balance("ada").await["cursor"]);
    let shop = Arc::new(shop);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (shop, stop) = (Arc::clone(&shop), Arc::clone(&stop));
        async move {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                shop.buy("ada", number).await;
                number += 1;
                // A fast machine would buy so much that the followers exceed their rate limit.
                tokio::time::sleep(PAUSE).await;
            }
        }
    });
    let mut all = Vec::new();
    for transport in TRANSPORTS {
        let mut told = Told::after(start.clone());
        for _ in 0..2 {
            let token = token_for(Role::Customer, "ada", SHORT);
            let mut follower = Follower::with(transport, &shop, &token, json!({ "after": told.cursor })).await;
            assert_eq!(hear_to_the_end(&mut told, &mut follower).await, "UNAUTHENTICATED");
            connection_ends(follower, 4403).await;
        }
        assert!(!told.entries.is_empty());
        all.push((transport, told));
    }
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    let ledger = entries(&shop, "ada").await;
    for (transport, mut told) in all {
        let mut follower = Follower::of(transport, &shop, "ada", told.cursor.as_deref()).await;
        told.hear_all(&mut follower, &ledger).await;
        told.is_all_of(&shop, "ada").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_cuts_them_off_and_the_next_one_goes_on() {
    let sqlite = Sqlite::new();
    let mut told: Vec<(Transport, Told)> = Vec::new();
    let (server, stderr) = Server::start_with(command(&sqlite.url()).stderr(Stdio::piped())).await;
    let shop = Shop::of(server);
    let campaign = shop.campaign(json!({})).await;
    let start = text(&shop.balance("ada").await["cursor"]);
    let mut totals = Vec::new();
    for transport in TRANSPORTS {
        let mut follower = stats::follow(transport, &shop, &shop.admin, &campaign).await;
        assert_eq!(follower.next().await.map(|answer| answer["errors"].is_null()), Some(true));
        totals.push(follower);
    }
    let mut followers = Vec::new();
    for transport in [TRANSPORTS, TRANSPORTS].concat() {
        followers.push(Follower::of(transport, &shop, "ada", Some(&start)).await);
        told.push((transport, Told::after(start.clone())));
    }
    shop.buy("ada", 0).await;
    for ((_, told), follower) in told.iter_mut().zip(&mut followers) {
        told.hear(follower.update().await);
    }
    for follower in &mut totals {
        assert_eq!(follower.next().await.expect("totals")["data"]["campaignStats"]["awards"], 1);
    }
    shop.server.ask_to_stop();
    for follower in followers.into_iter().chain(totals) {
        connection_ends(follower, 1001).await;
    }
    assert!(shop.server.end().success());
    // The server would log that it had to abort connections.
    assert_eq!(std::io::read_to_string(stderr.unwrap()).unwrap(), "");

    let shop = Shop::open(&sqlite.url()).await;
    shop.buy("ada", 1).await;
    let ledger = entries(&shop, "ada").await;
    for (transport, told) in &mut told {
        let mut follower = Follower::of(*transport, &shop, "ada", told.cursor.as_deref()).await;
        told.hear_all(&mut follower, &ledger).await;
        told.is_all_of(&shop, "ada").await;
    }
}
