//! A request sends as many statements for many parents as for one.

use serde_json::json;

use crate::support::graphql::{GraphqlApp, admin, on_both};

const MINUTES: [&str; 4] = ["10", "20", "30", "40"];

async fn shop_of(app: &GraphqlApp, customers: u32) {
    app.campaign(json!({ "budget": 1_000_000 })).await;
    app.campaign(json!({ "window": { "rolling": { "duration": "P1D" } }, "goal": { "purchases": { "atLeast": 3 } } }))
        .await;
    let record =
        "mutation($inputs: [RecordPurchaseInput!]!) { recordPurchases(inputs: $inputs) { userErrors { code } } }";
    let purchase = |customer: u32, minute: &str| {
        json!({
            "externalId": format!("p{customer}-{minute}"), "customerExternalId": format!("c{customer}"),
            "purchasedAt": format!("2026-11-02T10:{minute}:00Z"), "total": "5", "currency": "EUR",
            "lines": [{ "sku": "a", "amount": "5" }],
        })
    };
    let inputs: Vec<_> = (0..customers).flat_map(|n| MINUTES.map(|minute| purchase(n, minute))).collect();
    app.data(&admin(), record, json!({ "inputs": inputs })).await;
    let refund = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { userErrors { code } } }";
    for n in 0..customers {
        let input = json!({
            "externalId": format!("r{n}"), "purchaseExternalId": format!("p{n}-10"), "refundedAt": "2026-11-02T11:00:00Z",
            "amount": "1",
        });
        app.data(&admin(), refund, json!({ "input": input })).await;
    }
}

const DEEP: [&str; 7] = [
    "query($n: Int) { customers(first: $n) { nodes { awards(first: 3) { nodes { \
        campaign { name budgetExhausted stats { awards } } customer { externalId } window { opensAt } \
        purchases(first: 5) { nodes { externalId net { amount } refunds { externalId } } } } } } } }",
    "query($n: Int) { customers(first: $n) { nodes { awards(first: 3) { nodes { purchases(last: 2) { nodes { \
        externalId } } } } } } }",
    "query($n: Int) { customers(first: $n) { nodes { ledger(first: 5) { nodes { \
        award { points customer { externalId } } purchase { externalId } } } } } }",
    "query($n: Int) { customers(first: $n) { nodes { ledger(first: 5) { nodes { customer { \
        awards(first: 2) { nodes { id } } progress { current } } } } } } }",
    "query($n: Int) { customers(first: $n) { nodes { purchases(last: 5) { nodes { customer { externalId } \
        refunds { externalId } lines { net { amount } } net { amount } awards { points campaign { name } } } } } } }",
    "query($n: Int) { customers(first: $n) { nodes { balance { available } progress { current campaign { name } } } } }",
    "query($n: Int) { customers(first: $n) { nodes { \
        standing: awards(first: 2, status: [STANDING]) { nodes { id } } reversed: awards(status: [REVERSED]) { nodes { id } } \
        } } }",
];

on_both! {
    async fn a_list_of_fifty_costs_as_many_statements_as_a_list_of_one(app: &GraphqlApp) {
        shop_of(app, 50).await;
        for query in DEEP {
            let one = app.statements(&admin(), query, json!({ "n": 1 })).await;
            let fifty = app.statements(&admin(), query, json!({ "n": 50 })).await;
            assert_eq!(one, fifty, "{query}");
            assert!(one <= 14, "{one}: {query}");
        }
        let answer = app.data(&admin(), DEEP[0], json!({ "n": 50 })).await;
        let nodes = answer["customers"]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 50);
        for node in nodes {
            let awards = node["awards"]["nodes"].as_array().unwrap();
            assert_eq!(awards.len(), 2, "{node}");
            assert!(awards.iter().all(|award| award["purchases"]["nodes"].as_array().unwrap().len() == 3), "{node}");
        }
    }

    async fn jobs_and_what_they_are_about_cost_as_many_statements_as_one(app: &GraphqlApp) {
        shop_of(app, 25).await;
        for n in 0..50 {
            // The subjects are the customers, and the two campaigns.
            let (campaign, customer) = if n < 25 { ("NULL".to_owned(), (n + 1).to_string()) } else { ((n % 2 + 1).to_string(), "NULL".to_owned()) };
            let columns = "kind, unique_key, campaign_id, customer_id, state, requests, attempts, run_at, created_at";
            let values = format!("'evaluation', 'k{n}', {campaign}, {customer}, 'done', 1, 0, 0, {}", 50 - n % 2);
            app.execute(&format!("INSERT INTO job ({columns}) VALUES ({values})")).await;
        }
        let query = "query($n: Int) { jobs(first: $n, state: [DONE]) { nodes { id progress { done } subject { \
            ... on Campaign { name } ... on Customer { externalId } } } } }";
        // One page has a subject of each kind, the other has fifty.
        let two = app.statements(&admin(), query, json!({ "n": 2 })).await;
        let fifty = app.statements(&admin(), query, json!({ "n": 50 })).await;
        assert!(fifty <= two.max(3), "{two} {fifty}");
        let answer = app.data(&admin(), query, json!({ "n": 50 })).await;
        let nodes = answer["jobs"]["nodes"].as_array().unwrap();
        let subjects = |field: &str| nodes.iter().filter(|node| node["subject"][field].is_string()).count();
        assert_eq!((subjects("externalId"), subjects("name")), (25, 25), "{answer}");
        let ids: Vec<_> = nodes.iter().map(|node| &node["id"]).collect();
        let query = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Job { state } } }";
        let one = app.statements(&admin(), query, json!({ "ids": ids[..1] })).await;
        assert_eq!(app.statements(&admin(), query, json!({ "ids": ids })).await, one);
    }

    async fn several_nodes_cost_as_many_statements_as_one(app: &GraphqlApp) {
        shop_of(app, 20).await;
        let query = "query($n: Int) { customers(first: $n) { nodes { id awards(first: 1) { nodes { id } } } } }";
        let answer = app.data(&admin(), query, json!({ "n": 20 })).await;
        let nodes = answer["customers"]["nodes"].as_array().unwrap();
        let ids: Vec<_> = nodes.iter().flat_map(|node| [&node["id"], &node["awards"]["nodes"][0]["id"]]).collect();
        let query = "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Customer { externalId } ... on Award { points } } }";
        let two = app.statements(&admin(), query, json!({ "ids": ids[..2] })).await;
        let forty = app.statements(&admin(), query, json!({ "ids": ids })).await;
        assert_eq!(two, forty);
    }
}
