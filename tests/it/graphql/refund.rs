//! Recording refunds, and the awards that they undo.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, on_both, storefront};

const RECORD: &str = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { \
    purchase { externalId net { amount } refunds { externalId amount { amount } refundedAt } awards { status } } \
    awards { status points purchases { nodes { externalId } } } balance { available lifetime } \
    replayed userErrors { code path } } }";

async fn refund(app: &GraphqlApp, over: Value) -> Value {
    let mut input = json!({ "externalId": "r1", "purchaseExternalId": "p3", "refundedAt": "2026-11-02T11:00:00Z" });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    let mut answer = app.data(&storefront(), RECORD, json!({ "input": input })).await;
    answer["recordRefund"].take()
}

async fn three_purchases(app: &GraphqlApp) {
    app.campaign(json!({})).await;
    for (id, minute) in [("p1", 10), ("p2", 20), ("p3", 30)] {
        app.purchase(id, "ada", &format!("2026-11-02T10:{minute}:00Z"), "5").await;
    }
}

on_both! {
    async fn a_whole_refund_takes_the_award_back(app: &GraphqlApp) {
        three_purchases(app).await;
        let answer = refund(app, json!({})).await;
        let evidence = json!([{ "externalId": "p1" }, { "externalId": "p2" }, { "externalId": "p3" }]);
        assert_eq!(answer, json!({
            "purchase": {
                "externalId": "p3", "net": { "amount": "0.00" }, "awards": [],
                "refunds": [{ "externalId": "r1", "amount": { "amount": "5.00" }, "refundedAt": "2026-11-02T11:00:00Z" }],
            },
            // A reversed award keeps the evidence that it had last.
            "awards": [{ "status": "REVERSED", "points": 10, "purchases": { "nodes": evidence } }],
            "balance": { "available": 0, "lifetime": 0 }, "replayed": false, "userErrors": [],
        }));
        let again = refund(app, json!({})).await;
        assert_eq!((&again["replayed"], &again["awards"]), (&json!(true), &json!([])));
        let reasons = "{ customer(by: {externalId: \"ada\"}) { \
            ledger { nodes { sequence kind points balanceAfter purchase { externalId } award { status } } } } }";
        let ledger = app.data(&admin(), reasons, json!({})).await;
        assert_eq!(ledger["customer"]["ledger"]["nodes"][0], json!({
            "sequence": 2, "kind": "REVERSAL", "points": -10, "balanceAfter": 0,
            "purchase": { "externalId": "p3" }, "award": { "status": "REVERSED" },
        }));
    }

    async fn a_replayed_refund_answers_what_its_purchase_reached(app: &GraphqlApp) {
        three_purchases(app).await;
        refund(app, json!({ "amount": "1" })).await;
        let again = refund(app, json!({ "amount": "1.0" })).await;
        assert_eq!((&again["replayed"], &again["awards"][0]["status"]), (&json!(true), &json!("STANDING")));
        assert_eq!(again["purchase"]["net"]["amount"], "4.00");
        let conflict = refund(app, json!({ "amount": "2" })).await;
        assert_eq!(conflict["userErrors"], json!([{ "code": "IDEMPOTENCY_CONFLICT", "path": ["input", "amount"] }]));
    }

    async fn lines_that_add_up_to_the_same_are_the_same(app: &GraphqlApp) {
        let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
        let lines = json!([{ "sku": "a", "amount": "5" }, { "sku": "b", "amount": "4" }]);
        let input = json!({
            "externalId": "p", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "9",
            "currency": "EUR", "lines": lines,
        });
        app.data(&storefront(), query, json!({ "input": input })).await;
        let with = |lines: &[(&str, &str)]| {
            let lines: Vec<Value> =
                lines.iter().map(|(sku, amount)| json!({ "sku": sku, "amount": amount })).collect();
            json!({ "purchaseExternalId": "p", "lines": lines })
        };
        let first = refund(app, with(&[("a", "1"), ("b", "2"), ("a", "2")])).await;
        assert_eq!((&first["replayed"], &first["userErrors"]), (&json!(false), &json!([])));
        for same in [with(&[("b", "2"), ("a", "3")]), with(&[("a", "2"), ("b", "1.5"), ("a", "1"), ("b", "0.50")])] {
            let again = refund(app, same.clone()).await;
            assert_eq!((&again["replayed"], &again["userErrors"]), (&json!(true), &json!([])), "{same}");
        }
        for other in [with(&[("a", "2"), ("b", "3")]), with(&[("a", "5")]), json!({ "purchaseExternalId": "p", "amount": "5" })] {
            let refused = refund(app, other.clone()).await;
            let errors = json!([{ "code": "IDEMPOTENCY_CONFLICT", "path": ["input", "lines"] }]);
            assert_eq!(refused["userErrors"], errors, "{other}");
        }
    }

    async fn each_fault_is_told_with_its_path(app: &GraphqlApp) {
        three_purchases(app).await;
        let lines = json!([{ "sku": "a", "amount": "3" }, { "sku": "a", "amount": "1" }]);
        let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
        let input = json!({
            "externalId": "p9", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "9",
            "currency": "EUR", "lines": lines,
        });
        app.data(&storefront(), query, json!({ "input": input })).await;
        for (over, code, path) in [
            (json!({ "externalId": "" }), "REQUIRED", vec!["externalId"]),
            (json!({ "purchaseExternalId": "none" }), "PURCHASE_NOT_FOUND", vec!["purchaseExternalId"]),
            (json!({ "amount": "0" }), "OUT_OF_RANGE", vec!["amount"]),
            (json!({ "amount": "5.01" }), "REFUND_TOO_LARGE", vec!["amount"]),
            (json!({ "amount": "1.001" }), "TOO_MANY_DECIMALS", vec!["amount"]),
            (json!({ "lines": [{ "sku": "b", "amount": "1" }], "purchaseExternalId": "p9" }), "SKU_NOT_IN_PURCHASE",
                vec!["lines", "0", "sku"]),
            (json!({ "lines": [{ "sku": "a", "amount": "4.01" }], "purchaseExternalId": "p9" }), "REFUND_TOO_LARGE",
                vec!["lines", "0", "amount"]),
            (json!({ "lines": [{ "sku": "a", "amount": "2" }], "amount": "3", "purchaseExternalId": "p9" }), "INVALID",
                vec!["amount"]),
        ] {
            let answer = refund(app, over.clone()).await;
            let path: Vec<&str> = std::iter::once("input").chain(path).collect();
            assert_eq!(answer["userErrors"], json!([{ "code": code, "path": path }]), "{over}");
        }
    }
}
