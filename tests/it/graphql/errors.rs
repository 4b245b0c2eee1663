//! Errors: a code for each, nothing of our own inside, and nothing nulled that need not be.

use serde_json::{Value, json};

use crate::support::app::{TestApp, admin, codes, customer, on_both, storefront};

const RECORD: &str = "recordPurchase(input: {externalId: \"p\", customerExternalId: \"ada\", \
    purchasedAt: \"2026-11-02T10:00:00Z\", total: \"1\", currency: \"EUR\"})";

on_both! {
    async fn a_nullable_field_that_fails_nulls_itself_alone(app: &TestApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let query = "{ me(atLeastVersion: 9) { id } campaigns { totalCount } again: me { externalId } }";
        let answer = app.run(&customer("ada"), query, json!({})).await;
        assert_eq!(answer["data"], json!({ "me": null, "campaigns": { "totalCount": 0 }, "again": { "externalId": "ada" } }));
        assert_eq!(answer["errors"], json!([{
            "message": "the customer has no such version", "path": ["me"], "extensions": { "code": "BAD_USER_INPUT" },
        }]));
    }

    async fn a_value_that_fits_no_scalar_is_bad_input(app: &TestApp) {
        for (definition, value) in [
            ("$v: Count", json!(-1)), ("$v: Count", json!(1.5)), ("$v: Count", json!("1")), ("$v: Count", json!(1_u64 << 53)),
        ] {
            let query = format!("query({definition}) {{ me(atLeastVersion: $v) {{ id }} }}");
            assert_eq!(app.codes(&customer("ada"), &query, json!({ "v": value })).await, ["BAD_USER_INPUT"], "{value}");
        }
        let query = "mutation($t: Decimal!) { recordPurchase(input: {externalId: \"p\", customerExternalId: \"a\", \
            purchasedAt: \"2026-11-02T10:00:00Z\", total: $t, currency: \"EUR\"}) { replayed userErrors { code } } }";
        let number = app.run(&admin(), query, json!({ "t": 5 })).await;
        assert_eq!(codes(&number), ["BAD_USER_INPUT"]);
        assert_eq!(app.data(&admin(), query, json!({ "t": "five" })).await["recordPurchase"]["userErrors"],
            json!([{ "code": "INVALID" }]));
    }

    async fn a_name_that_nothing_can_have_is_not_found(app: &TestApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let query = "query($n: String!) { customer(by: {externalId: $n}) { id } purchase(by: {externalId: $n}) { id } \
            customers(externalIdPrefix: $n) { nodes { id } } }";
        for name in ["", "a\u{0}", "nobody"] {
            let answer = app.data(&admin(), query, json!({ "n": name })).await;
            assert_eq!((&answer["customer"], &answer["purchase"]), (&Value::Null, &Value::Null));
        }
        let refund = "mutation($n: String!) { recordRefund(input: {externalId: \"r\", purchaseExternalId: $n, \
            refundedAt: \"2026-11-02T10:00:00Z\"}) { userErrors { code path } } }";
        let answer = app.data(&admin(), refund, json!({ "n": "a\u{0}" })).await;
        let told = json!([{ "code": "INVALID", "path": ["input", "purchaseExternalId"] }]);
        assert_eq!(answer["recordRefund"]["userErrors"], told);
    }

    async fn a_mutation_selected_twice_runs_once(app: &TestApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        let query = format!(
            "mutation {{ {RECORD} {{ replayed }} {RECORD} {{ balance {{ version }} }} ...F }} \
            fragment F on Mutation {{ {RECORD} {{ replayed awards {{ points }} }} }}"
        );
        let answer = app.data(&admin(), &query, json!({})).await;
        let once = json!({ "replayed": false, "balance": { "version": 1 }, "awards": [{ "points": 10 }] });
        assert_eq!(answer, json!({ "recordPurchase": once }));
        let twice = format!("mutation {{ a: {RECORD} {{ replayed }} b: {RECORD} {{ replayed }} }}");
        let answer = app.data(&admin(), &twice, json!({})).await;
        assert_eq!(answer, json!({ "a": { "replayed": true }, "b": { "replayed": true } }));
    }

    async fn mutations_after_a_refused_one_run(app: &TestApp) {
        let query = format!(
            "mutation {{ a: deleteCampaign(id: \"x\") {{ userErrors {{ code }} }} b: {RECORD} {{ replayed }} }}"
        );
        let answer = app.data(&admin(), &query, json!({})).await;
        assert_eq!(answer, json!({ "a": { "userErrors": [{ "code": "NOT_FOUND" }] }, "b": { "replayed": false } }));
    }

    async fn without_a_database_everything_is_unavailable(app: &TestApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        app.app.database.clone().close().await.unwrap();
        for query in ["{ me { id } }", "{ campaigns { totalCount } }", "{ node(id: \"Q3VzdG9tZXI6YWRh\") { id } }"] {
            let answer = app.run(&customer("ada"), query, json!({})).await;
            assert_eq!(codes(&answer), ["UNAVAILABLE"], "{query}");
            told_nothing(&answer);
        }
        let answer = app.run(&admin(), &format!("mutation {{ {RECORD} {{ replayed }} }}"), json!({})).await;
        assert_eq!(codes(&answer), ["UNAVAILABLE"]);
        told_nothing(&answer);
    }

    async fn our_own_faults_are_masked(app: &TestApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        app.execute("UPDATE customer SET running = 'secret'").await;
        app.campaign(json!({})).await;
        let answer = app.run(&customer("ada"), "{ me { externalId progress { current } } }", json!({})).await;
        assert_eq!(codes(&answer), ["INTERNAL"]);
        assert_eq!(answer["errors"][0]["message"], "internal error");
        assert_eq!(answer["errors"][0]["extensions"]["correlationId"].as_str().unwrap().len(), 16);
        told_nothing(&answer);
    }
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_refused_whole() {
    let app = TestApp::with_queue(2).await;
    let query = "mutation($inputs: [RecordPurchaseInput!]!) { recordPurchases(inputs: $inputs) { replayed } }";
    let input = |n: i32| {
        json!({
            "externalId": format!("p{n}"), "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z",
            "total": "1", "currency": "EUR",
        })
    };
    let answer = app.run(&storefront(), query, json!({ "inputs": [input(1), input(2), input(3)] })).await;
    assert_eq!(answer["errors"][0]["extensions"], json!({ "code": "OVERLOADED", "retryAfterSeconds": 1 }));
    let answer = app.data(&storefront(), query, json!({ "inputs": [input(1), input(2)] })).await;
    assert_eq!(answer["recordPurchases"], json!([{ "replayed": false }, { "replayed": false }]));
}

/// No SQL, no path, no value of ours.
fn told_nothing(answer: &Value) {
    let errors = answer["errors"].to_string().to_lowercase();
    for word in ["select", "insert", "sqlx", "database", "pool", "secret", "/tmp", "customer.running", "connection"] {
        assert!(!errors.contains(word), "{word}: {errors}");
    }
}
