//! An order that two nodes revise and refund at once, while it goes from one customer to the other and back.

use serde_json::{Value, json};

use super::{Follower, TRANSPORTS, Told, entries};
use crate::support::app::cases;
use crate::support::graphql::text;
use crate::support::node::node;
use crate::support::postgres::Postgres;
use crate::support::server::{command, run};
use crate::support::shop::Shop;

const CUSTOMERS: [&str; 2] = ["ada", "bob"];

/// Sends a content of the order, which has this revision. Its customer and its total follow from the revision.
async fn revise(shop: &Shop, revision: usize) {
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { replayed userErrors { code path message } } }";
    let input = json!({
        "externalId": "o", "customerExternalId": owner(revision), "purchasedAt": "2026-01-01T00:00:00Z",
        "total": format!("{}.00", total(revision)), "currency": "EUR", "revision": revision,
    });
    let answer = shop.data(&shop.storefront, query, json!({ "input": input })).await;
    assert_eq!(answer["recordPurchase"], json!({ "replayed": false, "userErrors": [] }));
}

/// Neighbours have different customers most of the time, and the same one some times.
fn owner(revision: usize) -> &'static str {
    CUSTOMERS[usize::from(revision % 3 == 1)]
}

fn total(revision: usize) -> usize {
    100 + revision % 7
}

async fn refund(shop: &Shop, number: usize) {
    let query = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { replayed userErrors { code path message } } }";
    let input = json!({
        "externalId": format!("r{number}"), "purchaseExternalId": "o", "refundedAt": "2026-01-02T00:00:00Z", "amount": "1.00",
    });
    let answer = shop.data(&shop.storefront, query, json!({ "input": input })).await;
    assert_eq!(answer["recordRefund"], json!({ "replayed": false, "userErrors": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_in_two_hands_at_once_gives_exact_ledgers_and_misses_no_update() {
    // A purchase has at most 100 refunds.
    let rounds = cases(30, 95);
    let url = Postgres::shared().create_database().await;
    let nodes = [node(&url, None, &[]).await, node(&url, None, &[]).await];
    nodes[0].campaign(json!({ "award": { "pointsPerUnit": "1" } })).await;
    revise(&nodes[0], 0).await;
    let mut told = Vec::new();
    let mut followers = Vec::new();
    for (customer, transport) in CUSTOMERS.into_iter().zip(TRANSPORTS) {
        // The other customer does not exist yet.
        let first = if customer == owner(0) { entries(&nodes[0], customer).await } else { Vec::new() };
        let cursor = text(&nodes[0].balance(customer).await["cursor"]);
        followers.push(Follower::of(transport, &nodes[1], customer, Some(&cursor)).await);
        told.push(Told { entries: first, ..Told::after(cursor) });
    }
    for round in 0..rounds {
        let (first, second) = (4 * round + 1, 4 * round + 3);
        let [one, other] = &nodes;
        // The higher revisions are sent at the same time as the lower ones, so some of these come too late.
        tokio::join!(
            revise(one, first),
            revise(other, first + 1),
            revise(other, second),
            revise(one, second + 1),
            refund(&nodes[round % 2], round),
        );
    }
    let last = 4 * rounds;
    let points = i64::try_from(total(last) - rounds).unwrap();
    for (at, customer) in CUSTOMERS.into_iter().enumerate() {
        let ledger = entries(&nodes[0], customer).await;
        told[at].hear_all(&mut followers[at], &ledger).await;
        // The last update may have no entries: a version without a movement of points.
        while told[at].balance["version"] != nodes[0].balance(customer).await["version"] {
            told[at].hear(followers[at].update().await);
        }
        told[at].is_all_of(&nodes[0], customer).await;
        let sum: i64 = ledger.iter().filter_map(|entry| entry["points"].as_i64()).sum();
        assert_eq!(sum, if customer == owner(last) { points } else { 0 }, "{customer}");
    }
    let shown = "{ purchase(by: { externalId: \"o\" }) { revision customer { externalId } refunds { externalId } } }";
    let purchase: Value = nodes[1].data(&nodes[1].storefront, shown, json!({})).await["purchase"].take();
    assert_eq!((&purchase["revision"], &purchase["customer"]["externalId"]), (&json!(last), &json!(owner(last))));
    assert_eq!(purchase["refunds"].as_array().map(Vec::len), Some(rounds));
    let audited = run(command(&url).arg("audit"));
    assert_eq!(audited.code, Some(0), "{}", audited.stdout);
}
