//! A follower that reads nothing holds up nobody, is cut, and goes on from where it stopped reading.

use std::time::Duration;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{Follower, Told, Transport, entries};
use crate::support::app::text;
use crate::support::process::open_sockets;
use crate::support::server::{command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{Heard, PATIENCE, Socket};

/// Purchases whose updates take more bytes than Linux ever buffers for a connection: a kilobyte each, against 4 MiB.
const ENOUGH: usize = 10_000;

/// As long as it may be, so that buffers fill with fewer commits.
fn wordy_updates() -> String {
    let ids: String = (0..20).map(|n| format!("id{n}: id ")).collect();
    format!(
        "subscription($after: String) {{ pointsUpdated(after: $after) {{ cursor change \
         entries {{ sequence kind points balanceAfter {ids} customer {{ externalId balance {{ version available }} }} }} \
         balance {{ available pending lifetime version cursor }} \
         customer {{ externalId balance {{ available pending lifetime version cursor }} }} }} }}"
    )
}

/// The next update, without its many words; none: the connection was cut.
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
    // Each update costs its customer points; here they are not what is at stake.
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

    // Until its buffers are full and it is cut: others hear of each purchase before the next ones are made.
    let mut bought = 1;
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    while open_sockets(pid) > before {
        assert!(!deadline.is_elapsed(), "after {bought} purchases the silent one is still connected");
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

    // What lay in its buffers is all it has.
    while let Some(update) = read(&mut silent).await {
        told.hear(update);
    }
    assert!(told.entries.len() < bought);
    let mut follower = Follower::of(Transport::WebSocket, &shop, "ada", told.cursor.as_deref()).await;
    told.hear_all(&mut follower, &ledger).await;
    told.is_all_of(&shop, "ada").await;
}
