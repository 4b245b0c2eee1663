//! Where a subscription may begin, and which customers a caller may follow.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{Follower, TRANSPORTS, Told, Transport, entries};
use crate::support::graphql::text;
use crate::support::server::token;
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

async fn shop() -> (Shop, Sqlite) {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    shop.campaign(json!({})).await;
    (shop, sqlite)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_is_followed_before_its_first_purchase() {
    let (shop, _sqlite) = shop().await;
    for (transport, customer) in [(Transport::WebSocket, "ada"), (Transport::Events, "bob")] {
        let balance = shop.balance(customer).await;
        assert_eq!(balance["version"], 0);
        let cursor = text(&balance["cursor"]);
        let mut follower = Follower::of(transport, &shop, customer, Some(&cursor)).await;
        shop.buy(customer, 0).await;
        let mut told = Told::after(cursor.clone());
        told.hear(follower.update().await);
        told.is_all_of(&shop, customer).await;
        // The same cursor is valid when there is a backlog.
        shop.buy_many(customer, 1..4).await;
        let ledger = entries(&shop, customer).await;
        let mut told = Told::after(cursor.clone());
        let mut late = Follower::of(transport, &shop, customer, Some(&cursor)).await;
        told.hear_all(&mut late, &ledger).await;
        told.is_all_of(&shop, customer).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_cursor_only_what_comes_from_now_on_is_told() {
    let (shop, _sqlite) = shop().await;
    for (transport, customer) in [(Transport::WebSocket, "ada"), (Transport::Events, "bob")] {
        shop.buy_many(customer, 0..5).await;
        let mut follower = Follower::of(transport, &shop, customer, None).await;
        // Only an update shows that the subscription has started. Purchases are made until then.
        let mut heard = std::pin::pin!(follower.update());
        let mut bought = 5;
        let first = loop {
            tokio::select! {
                update = &mut heard => break update,
                () = shop.buy(customer, bought) => bought += 1,
            }
        };
        let first = first["entries"][0]["sequence"].as_i64().unwrap();
        assert!(first > 5, "{first}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cursor_of_the_ledger_is_a_place_to_go_on_from() {
    let (shop, _sqlite) = shop().await;
    shop.buy_many("ada", 0..6).await;
    let ledger = shop.ledger("ada").await;
    for (place, (cursor, _)) in ledger.iter().enumerate() {
        let rest: Vec<&Value> = ledger[place + 1..].iter().map(|(_, entry)| entry).collect();
        for transport in TRANSPORTS {
            let mut follower = Follower::of(transport, &shop, "ada", Some(cursor)).await;
            let mut told = Told::default();
            while told.entries.len() < rest.len() {
                told.hear(follower.update().await);
            }
            assert_eq!(told.entries.iter().collect::<Vec<_>>(), rest);
        }
    }
}

/// Such cursors contain only the place of an entry, which is enough for pages. They do not show whether the ledger up to that
/// entry is still the one that the client has seen, so a subscription cannot continue from them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_an_earlier_release_turns_pages_and_is_no_place_to_go_on_from() {
    let (shop, _sqlite) = shop().await;
    shop.buy_many("ada", 0..4).await;
    let ada = token(Role::Customer, "ada");
    let page = "query($after: String, $before: String) { me { newer: ledger(before: $before) { nodes { sequence } } \
        older: ledger(after: $after) { nodes { sequence } } } }";
    for earlier in ["ledger:2", "points:2", "points:2:2"].map(|text| URL_SAFE_NO_PAD.encode(text)) {
        let pages = shop.data(&ada, page, json!({ "after": earlier, "before": earlier })).await;
        assert_eq!(pages["me"]["newer"]["nodes"], json!([{ "sequence": 4 }, { "sequence": 3 }]));
        assert_eq!(pages["me"]["older"]["nodes"], json!([{ "sequence": 1 }]));
        for transport in TRANSPORTS {
            let mut follower = Follower::of(transport, &shop, "ada", Some(&earlier)).await;
            assert_eq!(follower.ending().await.0, "CURSOR_UNKNOWN");
        }
    }
}

/// A refused subscription gets one response with the error, and ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_followed_is_told_with_its_code() {
    let (shop, _sqlite) = shop().await;
    shop.buy_many("ada", 0..2).await;
    shop.buy_many("bob", 0..5).await;
    let beyond = text(&shop.balance("bob").await["cursor"]);
    let (ada, storefront) = (token(Role::Customer, "ada"), &shop.storefront);
    let cases = [
        (&ada, json!({ "after": beyond }), "CURSOR_UNKNOWN"),
        (&ada, json!({ "after": "nonsense" }), "BAD_USER_INPUT"),
        (&ada, json!({ "after": "" }), "BAD_USER_INPUT"),
        (&ada, json!({ "customer": "bob" }), "NOT_FOUND"),
        (&ada, json!({ "customer": "nobody" }), "NOT_FOUND"),
        (storefront, json!({}), "BAD_USER_INPUT"),
        (storefront, json!({ "customer": "" }), "BAD_USER_INPUT"),
        (storefront, json!({ "customer": "x".repeat(201) }), "BAD_USER_INPUT"),
        (storefront, json!({ "customer": "nobody", "after": beyond }), "CURSOR_UNKNOWN"),
    ];
    for transport in TRANSPORTS {
        for (token, variables, code) in &cases {
            let mut follower = Follower::with(transport, &shop, token, variables.clone()).await;
            assert_eq!(follower.ending().await.0, *code, "{transport:?} {variables}");
        }
        // A caller that may follow a customer can also name the customer.
        for (token, customer) in [(&ada, "ada"), (storefront, "ada"), (storefront, "bob"), (&shop.admin, "ada")] {
            let first = &shop.ledger(customer).await[0].0;
            let variables = json!({ "customer": customer, "after": first });
            let update = Follower::with(transport, &shop, token, variables).await.update().await;
            assert_eq!(update["entries"][0]["sequence"], 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_follows_without_a_token() {
    use crate::support::websocket::Socket;
    let (shop, _sqlite) = shop().await;
    let mut socket = Socket::connect(shop.address()).await;
    socket.send(json!({ "type": "connection_init" })).await;
    assert_eq!(socket.closed().await, 4403);
    let body = json!({ "query": "subscription { pointsUpdated(customerExternalId: \"ada\") { change } }" });
    let request = shop.client.post(format!("{}/graphql", shop.address())).header("accept", "text/event-stream");
    let answer = request.json(&body).send().await.unwrap().text().await.unwrap();
    assert!(
        answer.contains("\"code\":\"UNAUTHENTICATED\"") && answer.ends_with("event: complete\ndata:\n\n"),
        "{answer}"
    );
}
