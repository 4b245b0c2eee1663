//! A follower that stops reading delays nobody. The server closes its connection, and the follower can continue where it stopped.

use std::time::Duration;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{Follower, Told, Transport, entries};
use crate::support::graphql::text;
use crate::support::process::open_sockets;
use crate::support::server::{command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{Heard, PATIENCE, Socket};

/// The updates of this many purchases, at about 1 kB each, exceed the 4 MiB that Linux buffers for a connection at most.
const ENOUGH: usize = 10_000;

/// A subscription with long updates, so that fewer commits fill the buffers.
fn wordy_updates() -> String {
    let ids: String = (0..20).map(|n| format!("id{n}: id ")).collect();
    format!(
        "subscription($after: String) {{ pointsUpdated(after: $after) {{ cursor change \
         entries {{ sequence kind points balanceAfter {ids} customer {{ externalId balance {{ version available }} }} }} \
         balance {{ available pending lifetime version cursor }} \
         customer {{ externalId balance {{ available pending lifetime version cursor }} }} }} }}"
    )
}

/// Returns the next update without its padding, or `None` if the connection was lost.
async fn read(socket: &mut Socket) -> Option<Value> {
    let mut message = match socket.next().await {
        Heard::Message(message) => message,
        Heard::Lost => return None,
        closed @ Heard::Closed { .. } => panic!("{closed:?}"),
    };
    assert_eq!(message["type"], "next", "{message}");
    let mut update = message["payload"]["data"]["pointsUpdated"].take();
    for entry in update["entries"].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().retain(|field, _| !field.starts_with("id"));
    }
    Some(update)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_cut_while_others_are_told_everything() {
    let sqlite = Sqlite::new();
    // Rate limits must not end the subscriptions of this test.
    let limits = [
        ("WINDFALL__HTTP__WRITE_TIMEOUT_MS", "1000"),
        ("WINDFALL__LIMITS__CUSTOMER_POINTS_PER_SECOND", "1000000000"),
        ("WINDFALL__LIMITS__CUSTOMER_BURST_POINTS", "1000000000"),
    ];
    let shop = Shop::open_with(command(&sqlite.url()).envs(limits)).await;
    shop.campaign(json!({})).await;
    let pid = shop.server.pid();
    let start = text(&shop.balance("ada").await["cursor"]);
    let ada = token(Role::Customer, "ada");
    let mut others = Vec::new();
    for transport in [Transport::WebSocket, Transport::Events] {
        let follower = Follower::of(transport, &shop, "ada", Some(&start)).await;
        others.push((follower, Told::after(start.clone())));
    }
    let before = open_sockets(pid);
    let mut silent = Socket::connect_small(shop.address()).await.initialized(&ada).await;
    silent.subscribe("1", &wordy_updates(), json!({ "after": start })).await;
    assert_eq!(open_sockets(pid), before + 1);
    shop.buy("ada", 0).await;
    let mut told = Told::after(start);
    told.hear(read(&mut silent).await.expect("the first update"));

    // Purchases are made until the buffers are full and the server closes the connection. The other followers receive each
    // purchase before the next ones are made.
    let mut bought = 1;
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    while open_sockets(pid) > before {
        assert!(!deadline.is_elapsed(), "the silent follower is still connected after {bought} purchases");
        if bought > ENOUGH {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        shop.buy_many("ada", bought..bought + 250).await;
        bought += 250;
        for (follower, told) in &mut others {
            while told.entries.len() < bought {
                told.hear(follower.update().await);
            }
        }
    }
    let ledger = entries(&shop, "ada").await;
    assert_eq!(ledger.len(), bought);
    for (_, told) in &others {
        told.is_all_of(&shop, "ada").await;
    }

    // The silent follower can still read what is in its buffers, and no more.
    while let Some(update) = read(&mut silent).await {
        told.hear(update);
    }
    assert!(told.entries.len() < bought);
    let mut follower = Follower::of(Transport::WebSocket, &shop, "ada", told.cursor.as_deref()).await;
    told.hear_all(&mut follower, &ledger).await;
    told.is_all_of(&shop, "ada").await;
}
