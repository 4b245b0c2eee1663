//! What costs rate-limit points: a document that must be parsed, by its tokens; a list, by the items that it returned; an
//! event, by its content. The customers of these servers have 60 000 points and get one back per second.

use std::process::Command;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use crate::live::{Follower, TRANSPORTS};
use crate::support::process::cpu;
use crate::support::server::{ask, command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

const POINTS: usize = 60_000;

/// A server whose customers regain points too slowly to matter during a test.
fn frugal(sqlite: &Sqlite) -> Command {
    let mut command = command(&sqlite.url());
    // With small batches, an event has a few entries instead of hundreds.
    command.env("WINDFALL__WRITER__BATCH_ITEMS", "10");
    command.env("WINDFALL__LIMITS__CUSTOMER_POINTS_PER_SECOND", "1");
    command.env("WINDFALL__LIMITS__CUSTOMER_BURST_POINTS", POINTS.to_string());
    command
}

fn code(answer: &Value) -> Option<&str> {
    answer["errors"][0]["extensions"]["code"].as_str()
}

/// Sends at most `max` requests. Returns how many were answered before one was refused with `RATE_LIMITED`.
async fn until_limited(shop: &Shop, token: &str, max: usize, query: impl Fn(usize) -> String) -> usize {
    for number in 0..max {
        let answer = ask(&shop.client, shop.address(), token, &query(number), json!({})).await.unwrap();
        if code(&answer) == Some("RATE_LIMITED") {
            assert_eq!(answer.get("data"), None);
            return number;
        }
    }
    max
}

/// A document of 1 404 tokens that is valid except for its last field. Each number gives a different text.
fn invalid(number: usize) -> String {
    format!("{{ me {{ {} nothing{number} }} }}", "id ".repeat(1_398))
}

/// Sends a document without a token. Returns the HTTP status and the code of the error, if there is one.
async fn anonymous(shop: &Shop, query: &str) -> (u16, String) {
    let request = shop.client.post(format!("{}/graphql", shop.address())).json(&json!({ "query": query }));
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, code(&body).unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_nobody_are_not_parsed() {
    const COUNT: usize = 20;
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    let pid = shop.server.pid();
    let spent = cpu(pid);
    for number in 0..COUNT {
        // The error is not about the invalid field, because the document is not parsed.
        assert_eq!(anonymous(&shop, &invalid(number)).await, (401, "UNAUTHENTICATED".to_owned()));
    }
    let nobody = cpu(pid) - spent;
    let spent = cpu(pid);
    for number in 0..COUNT {
        let answer = ask(&shop.client, shop.address(), &shop.storefront, &invalid(number), json!({})).await.unwrap();
        assert_eq!(code(&answer), Some("GRAPHQL_VALIDATION_FAILED"));
    }
    println!("{COUNT} invalid documents: {nobody:?} without a token, {:?} with one", cpu(pid) - spent);
    // The first body is too large to be read without a token. The others are small enough to be parsed.
    assert_eq!(anonymous(&shop, &"x".repeat(9_000)).await, (413, "BAD_USER_INPUT".to_owned()));
    assert_eq!(anonymous(&shop, "{ __typename }").await, (200, String::new()));
    assert_eq!(anonymous(&shop, "{ me { id } }").await, (200, "UNAUTHENTICATED".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_must_be_parsed_is_charged_by_its_tokens() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut frugal(&sqlite)).await;
    let refused = until_limited(&shop, &token(Role::Customer, "ada"), 100, invalid).await;
    assert_eq!(refused, POINTS / 1_405, "a request costs 1 point and its 1 404 tokens");
    // A document that the server already knows is not parsed again, and costs only what it selects.
    let (bob, valid) = (token(Role::Customer, "bob"), format!("{{ me {{ {} }} }}", "id ".repeat(1_399)));
    assert_eq!(until_limited(&shop, &bob, 100, |_| valid.clone()).await, 100);
}

/// Records twenty purchases of 500 lines for `ada`.
async fn with_long_purchases(shop: &Shop) {
    let lines: Vec<Value> =
        (0..500).map(|line| json!({ "sku": format!("s{line}"), "quantity": 1, "amount": "0.01" })).collect();
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
    for number in 0..20 {
        let input = json!({ "externalId": format!("p{number}"), "customerExternalId": "ada", "total": "5.00",
            "currency": "EUR", "purchasedAt": "2026-02-01T12:00:00Z", "lines": lines });
        let answer = shop.data(&shop.storefront, query, json!({ "input": input })).await;
        assert_eq!(answer["recordPurchase"]["userErrors"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_charged_by_what_they_held() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut frugal(&sqlite)).await;
    with_long_purchases(&shop).await;
    let ada = token(Role::Customer, "ada");
    let query = "{ me { purchases(first: 100) { nodes { lines { sku } } } } }";
    let answered = until_limited(&shop, &ada, 60, |_| query.to_owned()).await;
    // Each answer has 20 lists with 10 000 lines in total. The document itself costs something before it runs.
    assert!((5..=6).contains(&answered), "{answered}");
    // Bob has no purchases, so the same query costs him little.
    let bob = token(Role::Customer, "bob");
    assert_eq!(until_limited(&shop, &bob, 60, |_| query.to_owned()).await, 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_charged_by_what_they_tell() {
    const ENTRIES: usize = 600;
    // An entry costs 197 points.
    let entries: String = (0..28)
        .map(|alias| format!("e{alias}: entries {{ sequence kind points balanceAfter createdAt id reason }} "))
        .collect();
    let query = format!(
        "subscription($after: String) {{ pointsUpdated(after: $after) {{ cursor change entries {{ sequence }} {entries} }} }}"
    );
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut frugal(&sqlite)).await;
    shop.campaign(json!({})).await;
    for (transport, customer) in TRANSPORTS.into_iter().zip(["ada", "bob"]) {
        shop.buy_many(customer, 0..ENTRIES).await;
        let ledger = shop.ledger(customer).await;
        let caller = token(Role::Customer, customer);
        let variables = json!({ "after": ledger[0].0 });
        let mut follower = Follower::to(transport, &shop, &caller, &query, variables).await;
        let first = ledger[0].1["sequence"].as_u64().unwrap();
        let mut last = first;
        let refused = loop {
            let answer = follower.next().await.expect("an answer");
            if answer.get("errors").is_some() {
                break answer;
            }
            let update = &answer["data"]["pointsUpdated"];
            for entry in update["entries"].as_array().unwrap() {
                last += 1;
                assert_eq!(entry["sequence"], last);
            }
        };
        assert_eq!(code(&refused), Some("RATE_LIMITED"), "{refused}");
        assert!(refused["errors"][0]["extensions"]["retryAfterSeconds"].as_u64() > Some(0), "{refused}");
        // About 200 points per entry, and once about 1 000 before the stream begins.
        let entries = last - first;
        assert!((250..=310).contains(&entries), "{transport:?}: {entries} entries");
        assert_eq!(follower.next().await, None);
        // A caller with points left continues from the cursor without a gap.
        let cursor = &refused["errors"][0]["extensions"]["cursor"];
        let variables = json!({ "customer": customer, "after": cursor });
        let rest = "subscription($customer: String, $after: String) { \
            pointsUpdated(customerExternalId: $customer, after: $after) { entries { sequence } } }";
        let mut rest = Follower::to(transport, &shop, &shop.storefront, rest, variables).await;
        let answer = rest.next().await.expect("an answer");
        assert_eq!(answer["data"]["pointsUpdated"]["entries"][0]["sequence"], last + 1, "{transport:?}: {answer}");
    }
}
