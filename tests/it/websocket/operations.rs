//! Operations over a socket: their responses, and when they end.

use std::sync::Arc;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{is_quiet, shop};
use crate::support::app::cases;
use crate::support::server::token;
use crate::support::shop::Shop;
use crate::support::websocket::{PROTOCOL, Socket};

const UPDATES: &str = "subscription { pointsUpdated(customerExternalId: \"ada\") { cursor } }";
/// The server's limit on the concurrent operations of a socket.
const MAX_OPERATIONS: usize = 50;

async fn open(shop: &Shop) -> Socket {
    Socket::open(shop.address(), &shop.storefront).await
}

/// Reads an `error` message and returns its codes.
async fn refused(socket: &mut Socket, id: &str) -> Vec<String> {
    let message = socket.message().await;
    assert_eq!((&message["type"], &message["id"]), (&json!("error"), &json!(id)), "{message}");
    let errors = message["payload"].as_array().expect("a list");
    assert!(!errors.is_empty());
    errors.iter().map(|error| error["extensions"]["code"].as_str().expect("a code").to_owned()).collect()
}

async fn answered(socket: &mut Socket, id: &str) -> Value {
    let mut message = socket.message().await;
    assert_eq!((&message["type"], &message["id"]), (&json!("next"), &json!(id)), "{message}");
    assert_eq!(socket.message().await, json!({ "type": "complete", "id": id }));
    message["payload"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_and_mutations_give_one_answer_each() {
    let (shop, _sqlite) = shop().await;
    let mut socket = open(&shop).await;
    let record = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
        awards { points } replayed userErrors { code } } }";
    let input = json!({
        "externalId": "p", "customerExternalId": "ada", "purchasedAt": "2026-01-01T00:00:00Z", "total": "1.00",
        "currency": "EUR",
    });
    for replayed in [false, true] {
        // The id is free again, because its operation is complete.
        socket.subscribe("1", record, json!({ "input": input })).await;
        let answer = answered(&mut socket, "1").await;
        let payload = json!({ "awards": [{ "points": 10 }], "replayed": replayed, "userErrors": [] });
        assert_eq!(answer, json!({ "data": { "recordPurchase": payload } }));
        let query = "query Q($by: CustomerBy!) { customer(by: $by) { balance { available } } }";
        socket.subscribe("1", query, json!({ "by": { "externalId": "ada" } })).await;
        let answer = answered(&mut socket, "1").await;
        assert_eq!(answer, json!({ "data": { "customer": { "balance": { "available": 10 } } } }));
    }
    // An operation that ran has its errors in its response.
    socket.subscribe("2", "{ campaigns(first: 101) { totalCount } }", Value::Null).await;
    let answer = answered(&mut socket, "2").await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{answer}");
    is_quiet(&mut socket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_one_error_message_and_no_more() {
    let (shop, _sqlite) = shop().await;
    let mut socket = open(&shop).await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ me }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { pointsUpdated { nothing } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { a: pointsUpdated { cursor } b: pointsUpdated { cursor } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query($a: Int!) { __typename @skip(if: $a) }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { __typename } query B { __typename }", "BAD_USER_INPUT"),
        ("{ __schema { queryType { name } } }", "FORBIDDEN"),
    ] {
        socket.subscribe("1", query, Value::Null).await;
        let codes = refused(&mut socket, "1").await;
        assert!(codes.iter().all(|each| each == code), "{query}: {codes:?}");
        is_quiet(&mut socket).await;
        // The id is free again.
        socket.subscribe("1", "{ __typename }", Value::Null).await;
        assert_eq!(answered(&mut socket, "1").await, json!({ "data": { "__typename": "Query" } }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_completes_an_operation_hears_no_more_of_it() {
    let (shop, _sqlite) = shop().await;
    let mut socket = open(&shop).await;
    for number in 0..5 {
        socket.subscribe("1", UPDATES, Value::Null).await;
        socket.send(json!({ "type": "complete", "id": "nobody's" })).await;
        socket.send(json!({ "type": "complete", "id": "1" })).await;
        socket.send(json!({ "type": "complete", "id": "1" })).await;
        is_quiet(&mut socket).await;
        shop.buy("ada", number).await;
        is_quiet(&mut socket).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_has_a_largest_number_of_operations() {
    let (shop, _sqlite) = shop().await;
    let mut socket = open(&shop).await;
    for id in 0..MAX_OPERATIONS {
        socket.subscribe(&id.to_string(), UPDATES, Value::Null).await;
    }
    is_quiet(&mut socket).await;
    for query in [UPDATES, "{ __typename }"] {
        socket.subscribe("more", query, Value::Null).await;
        assert_eq!(refused(&mut socket, "more").await, ["OVERLOADED"]);
    }
    // All other operations continue, and one that ends makes room.
    socket.send(json!({ "type": "complete", "id": "0" })).await;
    socket.subscribe("more", "{ __typename }", Value::Null).await;
    answered(&mut socket, "more").await;
    shop.buy("ada", 0).await;
    let mut told = Vec::new();
    for _ in 1..MAX_OPERATIONS {
        let message = socket.message().await;
        assert_eq!(message["type"], "next", "{message}");
        told.push(message["id"].as_str().unwrap().parse::<usize>().unwrap());
    }
    told.sort_unstable();
    assert_eq!(told, (1..MAX_OPERATIONS).collect::<Vec<_>>());
    is_quiet(&mut socket).await;
}

/// The operations of a socket have the request id and the address of its handshake, whichever token they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trail_says_from_which_socket_an_action_came() {
    let (shop, _sqlite) = shop().await;
    let mallory = format!("Bearer {}", token(Role::Admin, "mallory"));
    for (subject, id, header) in
        [("eve", "handshake-1", None), ("mallory", "handshake-2", Some(("authorization", &*mallory)))]
    {
        let headers: Vec<_> = [PROTOCOL, ("x-request-id", id)].into_iter().chain(header).collect();
        let mut socket = Socket::connect_with(shop.address(), &headers).await.unwrap();
        if header.is_some() {
            socket.send(json!({ "type": "connection_init" })).await;
            assert_eq!(socket.message().await, json!({ "type": "connection_ack" }));
        } else {
            socket = socket.initialized(&shop.admin).await;
        }
        socket.subscribe("1", "mutation { endCampaign(id: \"x\") { userErrors { code } } }", Value::Null).await;
        let answer = answered(&mut socket, "1").await;
        assert_eq!(answer["data"]["endCampaign"]["userErrors"], json!([{ "code": "NOT_FOUND" }]));
        socket
            .subscribe("1", "{ trail(first: 1) { nodes { subjectOfToken action requestId address } } }", Value::Null)
            .await;
        let entry =
            json!({ "subjectOfToken": subject, "action": "endCampaign", "requestId": id, "address": "127.0.0.1" });
        assert_eq!(answered(&mut socket, "1").await["data"]["trail"]["nodes"], json!([entry]));
    }
}

/// A client that receives `complete` may use the id again at once, however many other messages the socket carries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_free_as_soon_as_its_operation_is_complete() {
    let (shop, _sqlite) = shop().await;
    let shop = Arc::new(shop);
    let mut socket = open(&shop).await;
    for id in 1..MAX_OPERATIONS {
        socket.subscribe(&id.to_string(), UPDATES, Value::Null).await;
    }
    let writer = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move {
            for number in 0.. {
                shop.buy("ada", number).await;
            }
        }
    });
    let (mut answers, mut updates) = (0, 0);
    socket.subscribe("again", "{ __typename }", Value::Null).await;
    while answers < cases(300, 3_000) || updates < cases(3_000, 30_000) {
        let message = socket.message().await;
        match (message["id"].as_str(), message["type"].as_str()) {
            (Some("again"), Some("next")) => {}
            (Some("again"), Some("complete")) => {
                answers += 1;
                socket.subscribe("again", "{ __typename }", Value::Null).await;
            }
            (Some(_), Some("next")) => updates += 1,
            _ => panic!("{message}"),
        }
    }
    writer.abort();
}
