//! The limits on concurrent subscriptions, of the server and of one caller.

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{Follower, Transport, UPDATES};
use crate::support::events::{Event, Events};
use crate::support::server::{command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{PATIENCE, Socket};

/// Follows a customer. Returns the code with which the subscription is refused, or `None` if it runs.
async fn refused(transport: Transport, shop: &Shop, customer: &str) -> Option<Value> {
    let token = token(Role::Customer, customer);
    // With this cursor there is a backlog, so a subscription that runs sends an update at once.
    let variables = json!({ "after": shop.ledger(customer).await[0].0 });
    let mut errors = match transport {
        Transport::WebSocket => {
            let mut socket = Socket::open(shop.address(), &token).await;
            socket.subscribe("1", UPDATES, variables).await;
            let mut message = socket.message().await;
            if message["type"] == "next" {
                return None;
            }
            assert_eq!(message["type"], "error", "{message}");
            message["payload"].take()
        }
        Transport::Events => {
            let mut events = Events::open(&shop.client, shop.address(), &token, UPDATES, &variables).await;
            let Event::Next(mut answer) = events.next().await else { panic!("a response is expected") };
            if answer.get("data").is_some() {
                return None;
            }
            assert_eq!(events.next().await, Event::Complete);
            answer["errors"].take()
        }
    };
    Some(errors[0]["extensions"]["code"].take())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_is_free_again_however_its_subscription_ended() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(command(&sqlite.url()).env("WINDFALL__LIMITS__STREAMS", "5")).await;
    shop.campaign(json!({})).await;
    shop.buy_many("ada", 0..2).await;
    shop.buy_many("bob", 0..2).await;
    let first = shop.ledger("ada").await.remove(0).0;
    for end in 0..4 {
        let mut followers = Vec::new();
        for transport in [Transport::WebSocket, Transport::WebSocket, Transport::Events] {
            let open = async {
                loop {
                    // Subscriptions of the previous round may not have ended yet.
                    let mut follower = Follower::of(transport, &shop, "ada", Some(&first)).await;
                    let is_open = match &mut follower {
                        Follower::Socket(socket) => socket.message().await["type"] == "next",
                        Follower::Events(events) => {
                            matches!(events.next().await, Event::Next(answer) if answer.get("data").is_some())
                        }
                    };
                    if is_open {
                        return follower;
                    }
                }
            };
            followers.push(tokio::time::timeout(PATIENCE, open).await.expect("a free place"));
        }
        for transport in super::TRANSPORTS {
            assert_eq!(refused(transport, &shop, "ada").await, Some(json!("OVERLOADED")), "{end}");
            // Ada has three places, and two are left for others.
            assert_eq!(refused(transport, &shop, "bob").await, None, "{end}");
        }
        let ended = followers.swap_remove(if end == 3 { 2 } else { 0 });
        match (end, ended) {
            (0, Follower::Socket(mut socket)) => {
                socket.send(json!({ "type": "complete", "id": "1" })).await;
                socket.subscribe("2", UPDATES, json!({ "after": first })).await;
                assert_eq!(socket.message().await["type"], "next");
            }
            (1, Follower::Socket(socket)) => socket.close().await,
            (_, ended) => drop(ended),
        }
        let free = async { while refused(Transport::WebSocket, &shop, "ada").await.is_some() {} };
        tokio::time::timeout(PATIENCE, free).await.expect("a free place");
    }
}
