//! Every payload of a mutation that changes points contains the customer, so that a client's cache that stores objects by id
//! stays up to date.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, customer, on_both, storefront};

/// The balance inside the customer and beside it. `asOf` is left out, because each of the two has its own.
const SHOWN: &str = "customer { id externalId balance { available lifetime version cursor } } \
    balance { available lifetime version cursor } userErrors { code }";

async fn purchase(app: &GraphqlApp, id: &str) -> Value {
    let query = format!("mutation($input: RecordPurchaseInput!) {{ recordPurchase(input: $input) {{ {SHOWN} }} }}");
    let input = json!({
        "externalId": id, "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "5", "currency": "EUR",
    });
    app.data(&storefront(), &query, json!({ "input": input })).await["recordPurchase"].take()
}

async fn refund(app: &GraphqlApp, purchase: &str) -> Value {
    let query = format!("mutation($input: RecordRefundInput!) {{ recordRefund(input: $input) {{ {SHOWN} }} }}");
    let input = json!({ "externalId": "r", "purchaseExternalId": purchase, "refundedAt": "2026-11-02T11:00:00Z" });
    app.data(&storefront(), &query, json!({ "input": input })).await["recordRefund"].take()
}

async fn adjust(app: &GraphqlApp, reason: &str) -> Value {
    let query = format!(
        "mutation($input: AdjustPointsInput!) {{ adjustPoints(input: $input) {{ {SHOWN} entry {{ customer {{ \
        id externalId balance {{ available lifetime version cursor }} }} }} }} }}"
    );
    let input = json!({ "customerExternalId": "ada", "points": 5, "reason": reason, "idempotencyKey": "a" });
    app.data(&admin(), &query, json!({ "input": input })).await["adjustPoints"].take()
}

on_both! {
    async fn what_changes_points_answers_whose_they_are(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        let answers = [purchase(app, "p1").await, purchase(app, "p1").await, refund(app, "p1").await, adjust(app, "x").await];
        let me = app.data(&customer("ada"), "{ me { id } }", json!({})).await["me"]["id"].take();
        let mut versions = Vec::new();
        for answer in &answers {
            assert_eq!((&answer["customer"]["id"], &answer["customer"]["externalId"]), (&me, &json!("ada")), "{answer}");
            assert_eq!(answer["customer"]["balance"], answer["balance"]);
            versions.push(&answer["balance"]["version"]);
        }
        assert_eq!(versions, [1, 1, 2, 3]);
        assert_eq!(answers[3]["entry"]["customer"], answers[3]["customer"]);
        for refused in [refund(app, "p2").await, adjust(app, "").await] {
            assert!(refused["customer"].is_null() && refused["balance"].is_null(), "{refused}");
            assert_ne!(refused["userErrors"], json!([]));
        }
    }

    async fn a_ledger_entry_shows_its_customer(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        purchase(app, "p1").await;
        purchase(app, "p2").await;
        let query = "{ me { id balance { available version asOf } \
            ledger { nodes { id customer { id balance { available version asOf } } } } } }";
        let me = app.data(&customer("ada"), query, json!({})).await["me"].take();
        let nodes = me["ledger"]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 2);
        for entry in nodes {
            assert_eq!(entry["customer"], json!({ "id": me["id"], "balance": me["balance"] }));
        }
        let query = "query($id: ID!) { node(id: $id) { ... on LedgerEntry { customer { externalId } } } }";
        let alone = app.data(&customer("ada"), query, json!({ "id": nodes[0]["id"] })).await;
        assert_eq!(alone["node"]["customer"]["externalId"], "ada");
        let foreign = app.data(&customer("bob"), query, json!({ "id": nodes[0]["id"] })).await;
        assert_eq!(foreign["node"], Value::Null);
    }

    async fn it_takes_no_statement_of_its_own(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        for number in 0..5 {
            purchase(app, &format!("p{number}")).await;
        }
        let ledger = |shown: &str| format!("{{ me {{ ledger {{ nodes {{ id {shown} }} }} progress {{ current }} }} }}");
        // The first request fills the cache.
        app.data(&customer("ada"), &ledger(""), json!({})).await;
        let without = app.statements(&customer("ada"), &ledger(""), json!({})).await;
        let with = "customer { externalId balance { available } progress { current } }";
        assert_eq!(app.statements(&customer("ada"), &ledger(with), json!({})).await, without);
        let record = |shown: &str| {
            format!(
                "mutation($inputs: [RecordPurchaseInput!]!) {{ recordPurchases(inputs: $inputs) {{ replayed {shown} }} }}"
            )
        };
        // All purchases are recorded already, so both requests do the same work.
        let input = |number: i32| json!({
            "externalId": format!("p{number}"), "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z",
            "total": "5", "currency": "EUR",
        });
        let inputs = json!({ "inputs": (0..5).map(input).collect::<Vec<_>>() });
        let without = app.statements(&storefront(), &record(""), inputs.clone()).await;
        let with = "customer { externalId balance { available } }";
        assert_eq!(app.statements(&storefront(), &record(with), inputs).await, without);
    }
}
