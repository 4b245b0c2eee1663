//! When a database goes back while its nodes run, followers have seen entries that no longer exist. Their subscriptions end with
//! `CURSOR_UNKNOWN`, so that they load the customer again, and never continue with a different ledger.

use serde_json::json;

use super::{Follower, TRANSPORTS, Told, Transport, entries};
use crate::support::graphql::text;
use crate::support::node::number;
use crate::support::postgres::Postgres;
use crate::support::shop::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_undone_ends_who_was_told_of_it() {
    let postgres = Postgres::shared();
    let url = postgres.create_database().await;
    let shop = Shop::open(&url).await;
    shop.campaign(json!({})).await;
    for customer in ["ada", "bob"] {
        shop.buy(customer, 0).await;
    }
    assert!(shop.server.terminate().success());
    let copy = postgres.copy_database(&url).await;

    let shop = Shop::open(&url).await;
    let before = text(&shop.balance("ada").await["cursor"]);
    let mut followers = Vec::new();
    for customer in ["ada", "bob", "nobody"] {
        shop.buy(customer, 1).await;
        let cursor = text(&shop.balance(customer).await["cursor"]);
        for transport in TRANSPORTS {
            followers.push((customer, transport, Follower::of(transport, &shop, customer, Some(&cursor)).await));
        }
        // The update shows that the subscriptions have started.
        shop.buy(customer, 2).await;
        for (_, _, follower) in followers.iter_mut().rev().take(TRANSPORTS.len()) {
            follower.update().await;
        }
    }
    let (mut kept, mut undone) = (Vec::new(), Vec::new());
    for customer in ["ada", "bob"] {
        undone.push((customer, text(&shop.balance(customer).await["cursor"])));
        let mut edges = shop.ledger(customer).await.into_iter().map(|(cursor, _)| (customer, cursor));
        kept.extend(edges.next());
        undone.extend(edges);
    }
    postgres.rewind_database(&url, &copy).await;
    shop.is_back().await;
    // Ada and Bob reach the same version and sequence again, Bob with the same points. The customer `nobody` does not.
    shop.refund("ada", 0).await;
    for (customer, number) in [("ada", 3), ("bob", 3), ("bob", 4)] {
        shop.buy(customer, number).await;
    }
    for (customer, cursor) in &undone {
        let now = shop.ledger(customer).await.len();
        assert_eq!((now, number(&shop.balance(customer).await["version"])), (3, 3), "{cursor}");
    }
    for (customer, transport, follower) in &mut followers {
        assert_eq!(follower.ending().await, ("CURSOR_UNKNOWN".to_owned(), None), "{customer} {transport:?}");
    }
    // Followers that were away get the same error, however many commits there have been since.
    for further in [None, Some(5), Some(6)] {
        for customer in ["ada", "bob"] {
            if let Some(number) = further {
                shop.buy(customer, number).await;
            }
        }
        for (customer, cursor) in &undone {
            let mut late = Follower::of(Transport::WebSocket, &shop, customer, Some(cursor)).await;
            assert_eq!(late.ending().await.0, "CURSOR_UNKNOWN", "{customer} {further:?}");
        }
    }
    // Cursors from before the restored state remain valid.
    for (customer, edge) in &kept {
        let ledger = entries(&shop, customer).await;
        let mut told = Told::default();
        let mut follower = Follower::of(Transport::WebSocket, &shop, customer, Some(edge)).await;
        while told.entries.len() + 1 < ledger.len() {
            told.hear(follower.update().await);
        }
        assert_eq!(told.entries, ledger[1..]);
    }
    let ledger = entries(&shop, "ada").await;
    let mut told = Told::after(before.clone());
    let mut follower = Follower::of(Transport::WebSocket, &shop, "ada", Some(&before)).await;
    while told.entries.len() + 1 < ledger.len() {
        told.hear(follower.update().await);
    }
    assert_eq!(told.entries, ledger[1..]);
}
