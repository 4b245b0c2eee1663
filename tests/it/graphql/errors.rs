//! Errors: each has a code, none reveals internals, and none nulls more of the response than it must.

use serde_json::{Value, json};

use crate::support::app::{Engine, TestApp};
use crate::support::graphql::{GraphqlApp, admin, campaign_input, codes, customer, on_both, storefront};

const RECORD: &str = "recordPurchase(input: {externalId: \"p\", customerExternalId: \"ada\", \
    purchasedAt: \"2026-11-02T10:00:00Z\", total: \"1\", currency: \"EUR\"})";

on_both! {
    async fn a_nullable_field_that_fails_nulls_itself_alone(app: &GraphqlApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let query = "{ me(atLeastVersion: 9) { id } campaigns { totalCount } again: me { externalId } }";
        let answer = app.run(&customer("ada"), query, json!({})).await;
        assert_eq!(answer["data"], json!({ "me": null, "campaigns": { "totalCount": 0 }, "again": { "externalId": "ada" } }));
        assert_eq!(answer["errors"], json!([{
            "message": "the customer has no such version: use one that a response returned",
            "locations": [{ "line": 1, "column": 3 }], "path": ["me"],
            "extensions": { "code": "BAD_USER_INPUT" },
        }]));
    }

    async fn errors_of_fields_tell_where_these_stand_in_what_was_sent(app: &GraphqlApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let query = "# Größe\n\"What I have\"\nquery Mine($first: Int) {\n  me { externalId }\n  ...Lists\n}\n\
            fragment Lists on Query {\n\tcampaigns { totalCount }\n  wide: me {\n    bought: purchases(first: $first) { nodes { id } }\n  }\n}";
        let answer = app.run(&customer("ada"), query, json!({ "first": 101 })).await;
        let error = &answer["errors"][0];
        assert_eq!(error["path"], json!(["wide", "bought"]));
        assert_eq!(error["locations"], json!([{ "line": 10, "column": 5 }]));
        let refused = app.run(&customer("ada"), "{ me { id } ... { customers { totals } } }", json!({})).await;
        assert_eq!(refused["errors"][0]["locations"], json!([{ "line": 1, "column": 31 }]));
    }

    async fn a_value_that_fits_no_scalar_is_bad_input(app: &GraphqlApp) {
        for (definition, value) in [
            ("$v: Count", json!(-1)), ("$v: Count", json!(1.5)), ("$v: Count", json!("1")), ("$v: Count", json!(1_u64 << 53)),
        ] {
            let query = format!("query({definition}) {{ me(atLeastVersion: $v) {{ id }} }}");
            assert_eq!(app.codes(&customer("ada"), &query, json!({ "v": value })).await, ["BAD_USER_INPUT"], "{value}");
        }
    }

    async fn a_wrong_scalar_refuses_the_request_before_anything_runs(app: &GraphqlApp) {
        let two = "mutation($x: RecordPurchaseInput!, $y: RecordPurchaseInput!) { a: recordPurchase(input: $x) { replayed } \
            b: recordPurchase(input: $y) { replayed } }";
        let wrong = app.run(&admin(), two, json!({ "x": purchase(&json!({})), "y": purchase(&json!({ "total": 12.5 })) })).await;
        assert_eq!(wrong, refused("BAD_USER_INPUT", &["variable `$y.total`: write a decimal as a string, such as \"19.99\""]));
        let literal = format!("mutation {{ a: {RECORD} {{ replayed }} b: recordRefund(input: {{externalId: \"r\", \
            purchaseExternalId: \"p\", refundedAt: \"now\"}}) {{ replayed }} }}");
        let default = format!("mutation($at: DateTime! = \"now\") {{ a: {RECORD} {{ replayed }} b: recordRefund(input: \
            {{externalId: \"r\", purchaseExternalId: \"p\", refundedAt: $at}}) {{ replayed }} }}");
        for query in [literal, default] {
            let answer = app.run(&admin(), &query, json!({})).await;
            assert_eq!((codes(&answer), answer.get("data")), (vec!["GRAPHQL_VALIDATION_FAILED".to_owned()], None));
            let message = answer["errors"][0]["message"].as_str().unwrap();
            assert!(message.contains("write an instant as RFC 3339"), "{message}");
        }
        let none = app.data(&admin(), "{ purchase(by: {externalId: \"p\"}) { id } }", json!({})).await;
        assert_eq!(none["purchase"], Value::Null);
    }

    async fn each_scalar_says_how_it_is_written(app: &GraphqlApp) {
        let record = "mutation($i: RecordPurchaseInput!) { recordPurchase(input: $i) { replayed } }";
        let draft = "mutation($i: CampaignInput!) { createCampaign(input: $i) { userErrors { code } } }";
        let instant = "write an instant as RFC 3339 with an offset, such as \"2026-11-02T18:00:00+01:00\"";
        let duration =
            "write a duration as ISO 8601 in weeks, days, hours, minutes and seconds, such as \"P7D\" or \"PT30M\"";
        let decimal = "write a decimal as a string, such as \"19.99\"";
        let points = "write points as a whole number from -9007199254740991 to 9007199254740991";
        let recurring = json!({ "recurring": { "weekdays": ["MONDAY"], "from": "6 pm", "to": "20:00" } });
        for (query, over, field, told) in [
            (record, json!({ "purchasedAt": "yesterday" }), "purchasedAt", instant),
            (record, json!({ "purchasedAt": "2026-11-02T10:00:00" }), "purchasedAt", instant),
            (record, json!({ "purchasedAt": 1_762_000_000 }), "purchasedAt", instant),
            (record, json!({ "total": "twenty" }), "total", decimal),
            (record, json!({ "total": "1e3" }), "total", decimal),
            (record, json!({ "currency": 978 }), "currency",
                "write a currency by its ISO 4217 code in upper case, such as \"EUR\""),
            (record, json!({ "lines": [{ "sku": "a", "amount": 1 }] }), "lines[0].amount", decimal),
            (draft, json!({ "startsAt": "soon" }), "startsAt", instant),
            (draft, json!({ "timeZone": "Vienna" }), "timeZone", "write a time zone by its IANA name, such as \"Europe/Vienna\""),
            (draft, json!({ "lateness": "P1M" }), "lateness", duration),
            (draft, json!({ "window": { "session": { "gap": "30 minutes" } } }), "window.session.gap", duration),
            (draft, json!({ "window": recurring }), "window.recurring.from",
                "write a local time as hours and minutes, such as \"18:00\""),
            (draft, json!({ "award": { "points": "10" } }), "award.points", points),
            (draft, json!({ "budget": 1_u64 << 53 }), "budget", points),
        ] {
            let input = if query == record { purchase(&over) } else { campaign_input(over) };
            let answer = app.run(&admin(), query, json!({ "i": input })).await;
            assert_eq!(answer, refused("BAD_USER_INPUT", &[&format!("variable `$i.{field}`: {told}")]));
        }
    }

    async fn a_wrong_scalar_of_several_inputs_refuses_all_and_ten_are_told(app: &GraphqlApp) {
        let query = "mutation($i: [RecordPurchaseInput!]!) { recordPurchases(inputs: $i) { replayed } }";
        let input = |n: usize, total: Value| purchase(&json!({ "externalId": format!("p{n}"), "total": total }));
        let inputs: Vec<Value> = (0..5).map(|n| input(n, if n % 3 == 1 { json!(n) } else { json!("1") })).collect();
        let told = |n: usize| format!("variable `$i[{n}].total`: write a decimal as a string, such as \"19.99\"");
        let answer = app.run(&storefront(), query, json!({ "i": inputs })).await;
        assert_eq!(answer, refused("BAD_USER_INPUT", &[&told(1), &told(4)]));
        let inputs: Vec<Value> = (0..500).map(|n| input(n, json!(n))).collect();
        let answer = app.run(&storefront(), query, json!({ "i": inputs })).await;
        assert_eq!(answer["errors"].as_array().unwrap().len(), 10);
        let none = app.data(&admin(), "{ purchase(by: {externalId: \"p0\"}) { id } }", json!({})).await;
        assert_eq!(none["purchase"], Value::Null);
    }

    async fn a_name_that_nothing_can_have_is_not_found(app: &GraphqlApp) {
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

    async fn a_mutation_selected_twice_runs_once(app: &GraphqlApp) {
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

    async fn mutations_after_a_refused_one_run(app: &GraphqlApp) {
        let query = format!(
            "mutation {{ a: deleteCampaign(id: \"x\") {{ userErrors {{ code }} }} b: {RECORD} {{ replayed }} }}"
        );
        let answer = app.data(&admin(), &query, json!({})).await;
        assert_eq!(answer, json!({ "a": { "userErrors": [{ "code": "NOT_FOUND" }] }, "b": { "replayed": false } }));
    }

    async fn without_a_database_everything_is_unavailable(app: &GraphqlApp) {
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

    async fn our_own_faults_are_masked(app: &GraphqlApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        app.execute("UPDATE customer SET head = 'secret'").await;
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
    let app = GraphqlApp::of(TestApp::start_with(Engine::Sqlite, |config| config.writer.queue_items = 2).await);
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

fn purchase(over: &Value) -> Value {
    let mut input = json!({
        "externalId": "p", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "1", "currency": "EUR",
    });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    input
}

/// The response to a request that was refused before it ran.
fn refused(code: &str, messages: &[&str]) -> Value {
    let error = |message: &&str| json!({ "message": message, "extensions": { "code": code } });
    json!({ "errors": messages.iter().map(error).collect::<Vec<_>>() })
}

/// Asserts that the errors contain no SQL, no path and no internal value.
fn told_nothing(answer: &Value) {
    let errors = answer["errors"].to_string().to_lowercase();
    for word in ["select", "insert", "sqlx", "database", "pool", "secret", "/tmp", "customer.head", "connection"] {
        assert!(!errors.contains(word), "{word}: {errors}");
    }
}
