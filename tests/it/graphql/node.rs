//! Reading objects of every kind by their ids.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, customer, on_both, text};

/// Returns the ids of the customer `ada`, of her purchase, award and ledger entry, and of a campaign; and the id of a draft.
pub(crate) async fn ids(app: &GraphqlApp) -> (Vec<String>, String) {
    let campaign = app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
    let draft = app.draft(json!({ "name": "Secret" })).await;
    app.purchase("p1", "ada", "2026-11-02T10:00:00Z", "5").await;
    let query = "{ customer(by: {externalId: \"ada\"}) { \
        id awards { nodes { id } } ledger { nodes { id } } purchases { nodes { id } } } }";
    let ada = app.data(&admin(), query, json!({})).await;
    let ada = &ada["customer"];
    let first = |list: &str| text(&ada[list]["nodes"][0]["id"]);
    (vec![text(&ada["id"]), first("purchases"), first("awards"), first("ledger"), campaign], draft)
}

const NODES: &str = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Customer { externalId } \
    ... on Purchase { externalId } ... on Award { points } ... on LedgerEntry { sequence } ... on Campaign { name } } }";

on_both! {
    async fn nodes_come_in_the_order_asked_for(app: &GraphqlApp) {
        let (mut ids, draft) = ids(app).await;
        ids.push(draft);
        ids.extend(["nonsense".to_owned(), ids[0].clone()]);
        let answer = app.data(&admin(), NODES, json!({ "ids": ids })).await;
        let kinds: Vec<Value> = answer["nodes"].as_array().unwrap().iter().map(|node| node["__typename"].clone()).collect();
        let expected =
            ["Customer", "Purchase", "Award", "LedgerEntry", "Campaign", "Campaign"].map(Value::from);
        assert_eq!(kinds[..6], expected);
        assert_eq!((&kinds[6], &kinds[7]), (&Value::Null, &json!("Customer")));
        assert_eq!(answer["nodes"][1]["externalId"], "p1");
        assert_eq!(answer["nodes"][0]["id"], json!(ids[0]));
        for id in &ids {
            let one = app.data(&admin(), "query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })).await;
            assert_eq!(one["node"].is_null(), id == "nonsense");
        }
        let many = vec!["x"; 101];
        assert_eq!(app.codes(&admin(), NODES, json!({ "ids": many })).await, ["BAD_USER_INPUT"]);
    }

    async fn what_is_foreign_does_not_exist(app: &GraphqlApp) {
        let (mut ids, draft) = ids(app).await;
        ids.push(draft);
        app.purchase("b1", "bob", "2026-11-02T10:00:00Z", "5").await;
        for other in [customer("bob"), customer("nobody")] {
            let answer = app.data(&other, NODES, json!({ "ids": ids })).await;
            let seen: Vec<bool> = answer["nodes"].as_array().unwrap().iter().map(|node| !node.is_null()).collect();
            assert_eq!(seen, [false, false, false, false, true, false]);
            let query = "query($id: ID!, $purchase: ID!) { \
                a: customer(by: {externalId: \"ada\"}) { id } b: customer(by: {id: $id}) { id } \
                c: purchase(by: {externalId: \"p1\"}) { id } d: purchase(by: {id: $purchase}) { id } }";
            let answer = app.data(&other, query, json!({ "id": ids[0], "purchase": ids[1] })).await;
            assert_eq!(answer, json!({ "a": null, "b": null, "c": null, "d": null }));
        }
        let answer = app.data(&customer("ada"), NODES, json!({ "ids": ids })).await;
        let seen = answer["nodes"].as_array().unwrap().iter().filter(|node| !node.is_null()).count();
        assert_eq!(seen, 5);
    }
}
