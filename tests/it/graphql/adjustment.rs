//! Adjustments: points that an admin gives or takes.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, on_both};

async fn adjust(app: &GraphqlApp, over: Value) -> Value {
    let query = "mutation($input: AdjustPointsInput!) { adjustPoints(input: $input) { \
        entry { sequence kind points balanceAfter reason award { id } purchase { id } availableAt expiresAt } \
        balance { available lifetime version } replayed userErrors { code path } } }";
    let mut input = json!({ "customerExternalId": "ada", "points": 50, "reason": "welcome", "idempotencyKey": "k1" });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    let mut answer = app.data(&admin(), query, json!({ "input": input })).await;
    answer["adjustPoints"].take()
}

on_both! {
    async fn points_are_given_and_taken(app: &GraphqlApp) {
        let given = adjust(app, json!({})).await;
        assert_eq!(given, json!({
            "entry": {
                "sequence": 1, "kind": "ADJUSTMENT", "points": 50, "balanceAfter": 50, "reason": "welcome",
                "award": null, "purchase": null, "availableAt": null, "expiresAt": null,
            },
            "balance": { "available": 50, "lifetime": 0, "version": 1 }, "replayed": false, "userErrors": [],
        }));
        let again = adjust(app, json!({})).await;
        assert_eq!((&again["replayed"], &again["entry"]), (&json!(true), &given["entry"]));
        let taken = adjust(app, json!({ "idempotencyKey": "k2", "points": -70 })).await;
        assert_eq!(taken["balance"]["available"], -20);
    }

    async fn no_adjustment_takes_a_balance_past_its_limit(app: &GraphqlApp) {
        const LIMIT: i64 = 1_000_000_000_000_000;
        let mut number = 0;
        let mut by = async |points: i64| {
            number += 1;
            let answer = adjust(app, json!({ "idempotencyKey": format!("k{number}"), "points": points })).await;
            let refused = json!([{ "code": "OUT_OF_RANGE", "path": ["input", "points"] }]);
            assert!(answer["userErrors"] == json!([]) || answer["userErrors"] == refused, "{answer}");
            answer["balance"]["available"].as_i64()
        };
        assert_eq!(by(LIMIT + 1).await, None);
        assert_eq!(by(LIMIT).await, Some(LIMIT));
        assert_eq!(by(1).await, None);
        assert_eq!(by(-2 * LIMIT - 1).await, None);
        assert_eq!(by(-2 * LIMIT).await, Some(-LIMIT));
        assert_eq!(by(-1).await, None);
        assert_eq!(by(2 * LIMIT).await, Some(LIMIT));
        // Awards may take the balance past the limit. From there, only an adjustment back towards it is accepted.
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        let bought = app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        assert_eq!(bought["balance"]["available"], LIMIT + 10);
        assert_eq!(by(-4).await, Some(LIMIT + 6));
        assert_eq!(by(1).await, None);
    }

    async fn each_fault_is_told_with_its_path(app: &GraphqlApp) {
        adjust(app, json!({})).await;
        for (over, code, path) in [
            (json!({ "points": 51 }), "IDEMPOTENCY_CONFLICT", "points"),
            (json!({ "customerExternalId": "bob" }), "IDEMPOTENCY_CONFLICT", "customerExternalId"),
            (json!({ "points": 0 }), "OUT_OF_RANGE", "points"),
            (json!({ "points": 9_007_199_254_740_991_i64, "idempotencyKey": "k3" }), "OUT_OF_RANGE", "points"),
            (json!({ "reason": "" }), "REQUIRED", "reason"),
            (json!({ "idempotencyKey": "" }), "REQUIRED", "idempotencyKey"),
            (json!({ "customerExternalId": "" }), "REQUIRED", "customerExternalId"),
        ] {
            let answer = adjust(app, over.clone()).await;
            assert_eq!(answer["userErrors"], json!([{ "code": code, "path": ["input", path] }]), "{over}");
            assert_eq!(answer["entry"], Value::Null);
        }
    }
}
