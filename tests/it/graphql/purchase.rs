//! Recording and reading purchases.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, customer, on_both, storefront, text};

const RECORD: &str = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
    purchase { externalId total { amount currency } net { amount } channel purchasedAt recordedAt \
        lines { sku category quantity amount { amount } net { amount } } customer { externalId } awards { points } } \
    awards { points status } balance { available version } replayed userErrors { code path } } }";

fn input(over: Value) -> Value {
    let mut whole = json!({
        "externalId": "p1", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00+01:00", "total": "20",
        "currency": "EUR",
    });
    let (Value::Object(fields), Value::Object(over)) = (&mut whole, over) else { panic!("the input is not an object") };
    fields.extend(over);
    whole
}

async fn record(app: &GraphqlApp, over: Value) -> Value {
    let mut answer = app.data(&storefront(), RECORD, json!({ "input": input(over) })).await;
    answer["recordPurchase"].take()
}

on_both! {
    async fn a_purchase_awards_what_it_reaches(app: &GraphqlApp) {
        app.campaign(json!({})).await;
        app.purchase("p1", "ada", "2026-11-02T10:00:00Z", "5").await;
        app.purchase("p2", "ada", "2026-11-02T10:10:00Z", "5").await;
        let third = app.purchase("p3", "ada", "2026-11-02T10:20:00Z", "5.50").await;
        assert_eq!(third["awards"][0]["points"], 10);
        assert_eq!(third["balance"]["available"], 10);
        assert_eq!(third["balance"]["version"], 3);
        let me = "{ me { externalId balance { available pending lifetime version asOf } \
            progress { state unit current target awardsEarned awardsLeft window { opensAt closesAt } } \
            awards { nodes { points status window { opensAt closesAt } purchases { nodes { externalId } } } } \
            ledger { nodes { sequence kind points balanceAfter purchase { externalId } award { points } } } } }";
        let answer = app.data(&customer("ada"), me, json!({})).await;
        let window = json!({ "opensAt": "2026-11-01T00:00:00Z", "closesAt": null });
        assert_eq!(answer["me"], json!({
            "externalId": "ada",
            "balance": { "available": 10, "pending": 0, "lifetime": 10, "version": 3, "asOf": "2026-11-02T12:00:00Z" },
            "progress": [{
                "state": "IN_PROGRESS", "unit": "PURCHASES", "current": "0", "target": "3", "awardsEarned": 1,
                "awardsLeft": null, "window": window,
            }],
            "awards": { "nodes": [{
                "points": 10, "status": "STANDING", "window": window,
                "purchases": { "nodes": [{ "externalId": "p1" }, { "externalId": "p2" }, { "externalId": "p3" }] },
            }] },
            "ledger": { "nodes": [{
                "sequence": 1, "kind": "AWARD", "points": 10, "balanceAfter": 10,
                "purchase": { "externalId": "p3" }, "award": { "points": 10 },
            }] },
        }));
    }

    async fn a_payload_tells_the_newest_hundred_awards_and_how_many_changed(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "purchases": { "atLeast": 1, "repeat": true } } })).await;
        let inputs: Vec<Value> = (10..130)
            .map(|n| input(json!({ "externalId": format!("p{n:03}"), "purchasedAt": format!("2026-11-02T09:{:02}:{:02}Z", n / 10, n % 10) })))
            .collect();
        let many = "mutation($inputs: [RecordPurchaseInput!]!) { recordPurchases(inputs: $inputs) { \
            awardsChanged awards { earnedAt } userErrors { code } } }";
        let answer = app.data(&storefront(), many, json!({ "inputs": inputs })).await;
        let last = &answer["recordPurchases"][119];
        assert_eq!((&last["awardsChanged"], last["awards"].as_array().unwrap().len()), (&json!(120), 100));
        assert_eq!(last["awards"][0]["earnedAt"], "2026-11-02T09:12:09Z", "newest first");
        assert_eq!(last["awards"][99]["earnedAt"], "2026-11-02T09:03:00Z");
        let one = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
            replayed awardsChanged awards { earnedAt } userErrors { code } } }";
        let again = app.data(&storefront(), one, json!({ "input": inputs[7] })).await;
        assert_eq!(again["recordPurchase"], json!({
            "replayed": true, "awardsChanged": 1, "awards": [{ "earnedAt": "2026-11-02T09:01:07Z" }], "userErrors": [],
        }));
        let refused = app.data(&storefront(), one, json!({ "input": input(json!({ "externalId": "p010", "total": "1" })) })).await;
        assert_eq!(refused["recordPurchase"]["awardsChanged"], 0);
        // No award comes after that of the last purchase, so the refund changes one award only.
        let refund = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { awardsChanged awards { status } } }";
        let input = json!({ "externalId": "r", "purchaseExternalId": "p129", "refundedAt": "2026-11-02T11:00:00Z" });
        let answer = app.data(&storefront(), refund, json!({ "input": input })).await;
        assert_eq!(answer["recordRefund"], json!({ "awardsChanged": 1, "awards": [{ "status": "REVERSED" }] }));
    }

    async fn what_is_recorded_is_answered(app: &GraphqlApp) {
        let lines = json!([
            { "sku": "a", "category": "c", "quantity": 2, "amount": "1.5" },
            { "sku": "b", "amount": "0" },
        ]);
        let answer = record(app, json!({ "lines": lines, "channel": "store", "total": "19.90" })).await;
        assert_eq!(answer, json!({
            "purchase": {
                "externalId": "p1", "total": { "amount": "19.90", "currency": "EUR" }, "net": { "amount": "19.90" },
                "channel": "store", "purchasedAt": "2026-11-02T09:00:00Z", "recordedAt": "2026-11-02T12:00:00Z",
                "lines": [
                    { "sku": "a", "category": "c", "quantity": 2, "amount": { "amount": "1.50" }, "net": { "amount": "1.50" } },
                    { "sku": "b", "category": null, "quantity": 1, "amount": { "amount": "0.00" }, "net": { "amount": "0.00" } },
                ],
                "customer": { "externalId": "ada" }, "awards": [],
            },
            "awards": [], "balance": { "available": 0, "version": 1 }, "replayed": false, "userErrors": [],
        }));
        let yen = record(app, json!({ "externalId": "p2", "currency": "JPY", "total": "7" })).await;
        assert_eq!(yen["purchase"]["total"], json!({ "amount": "7", "currency": "JPY" }));
    }

    async fn a_replay_changes_nothing_and_a_conflict_is_refused(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        let first = record(app, json!({})).await;
        assert_eq!((&first["replayed"], &first["awards"]), (&json!(false), &json!([{ "points": 10, "status": "STANDING" }])));
        // The same instant and amount, in another notation.
        let same = json!({ "purchasedAt": "2026-11-02T09:00:00.000Z", "total": "20.00", "lines": [], "channel": null });
        let again = record(app, same).await;
        assert_eq!(again["replayed"], true);
        assert_eq!(again["balance"], first["balance"]);
        assert_eq!(again["awards"], first["awards"]);
        let others =
            [("total", json!({ "total": "20.01" })), ("customerExternalId", json!({ "customerExternalId": "bob" })), ("channel", json!({ "channel": "web" }))];
        for (field, other) in others {
            let refused = record(app, other).await;
            let errors = json!([{ "code": "IDEMPOTENCY_CONFLICT", "path": ["input", field] }]);
            assert_eq!(refused["userErrors"], errors);
            assert_eq!((&refused["purchase"], &refused["balance"]), (&Value::Null, &Value::Null));
        }
    }

    async fn lines_in_another_order_are_the_same(app: &GraphqlApp) {
        let (a, b) = (json!({ "sku": "a", "category": "c", "amount": "2" }), json!({ "sku": "a", "amount": "2" }));
        let first = record(app, json!({ "lines": [a, b, a] })).await;
        assert_eq!((&first["replayed"], &first["userErrors"]), (&json!(false), &json!([])));
        let again = record(app, json!({ "lines": [b, a, a] })).await;
        assert_eq!((&again["replayed"], &again["userErrors"]), (&json!(true), &json!([])));
        // The lines keep the order in which they were first sent.
        assert_eq!(again["purchase"]["lines"], first["purchase"]["lines"]);
        let twice = json!({ "sku": "a", "category": "c", "amount": "2", "quantity": 2 });
        for other in [json!([a, b, b]), json!([a, b]), json!([a, b, twice])] {
            let refused = record(app, json!({ "lines": other })).await;
            assert_eq!(refused["userErrors"][0]["code"], "IDEMPOTENCY_CONFLICT", "{other}");
        }
    }

    async fn an_award_that_rests_on_other_purchases_is_answered(app: &GraphqlApp) {
        app.campaign(json!({
            "window": { "session": { "gap": "PT1H" } }, "goal": { "spend": { "amount": "100" } },
        })).await;
        let of = |total: &str, at: &str| {
            json!({ "externalId": at, "total": total, "purchasedAt": format!("2026-11-02T{at}:00Z") })
        };
        record(app, of("10", "09:00")).await;
        let reached = record(app, of("95", "09:30")).await;
        assert_eq!(reached["awards"], json!([{ "points": 10, "status": "STANDING" }]));
        // The same purchase reaches the goal for the same points, but the window now opens earlier.
        let late = record(app, of("1", "08:30")).await;
        assert_eq!(late["awards"], json!([{ "points": 10, "status": "STANDING" }]));
        assert_eq!(late["balance"]["available"], reached["balance"]["available"]);
    }

    async fn each_fault_is_told_with_its_path(app: &GraphqlApp) {
        let line = |over: Value| {
            let mut whole = json!({ "sku": "a", "amount": "1" });
            whole.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
            json!({ "lines": [{ "sku": "x", "amount": "1" }, whole] })
        };
        let long = "x".repeat(201);
        for (over, code, path) in [
            (json!({ "externalId": "" }), "REQUIRED", vec!["externalId"]),
            (json!({ "externalId": long }), "TOO_LONG", vec!["externalId"]),
            (json!({ "customerExternalId": "a\u{0}b" }), "INVALID", vec!["customerExternalId"]),
            (json!({ "purchasedAt": "1969-12-31T23:59:59Z" }), "OUT_OF_RANGE", vec!["purchasedAt"]),
            (json!({ "purchasedAt": "2026-11-02T12:05:01Z" }), "PURCHASED_IN_FUTURE", vec!["purchasedAt"]),
            (json!({ "total": "1.005" }), "TOO_MANY_DECIMALS", vec!["total"]),
            (json!({ "total": "-1" }), "OUT_OF_RANGE", vec!["total"]),
            (json!({ "total": "100000000000.01" }), "OUT_OF_RANGE", vec!["total"]),
            (json!({ "currency": "XXX" }), "UNKNOWN_CURRENCY", vec!["currency"]),
            (json!({ "currency": "eur" }), "UNKNOWN_CURRENCY", vec!["currency"]),
            (json!({ "channel": "" }), "REQUIRED", vec!["channel"]),
            (line(json!({ "sku": "" })), "REQUIRED", vec!["lines", "1", "sku"]),
            (line(json!({ "quantity": 0 })), "OUT_OF_RANGE", vec!["lines", "1", "quantity"]),
            (line(json!({ "amount": "-0.01" })), "OUT_OF_RANGE", vec!["lines", "1", "amount"]),
        ] {
            let answer = record(app, over.clone()).await;
            let path: Vec<&str> = std::iter::once("input").chain(path).collect();
            assert_eq!(answer["userErrors"], json!([{ "code": code, "path": path }]), "{over}");
            assert_eq!(answer["purchase"], Value::Null);
        }
        let many = record(app, json!({ "externalId": "", "total": "-1", "currency": "nope" })).await;
        assert_eq!(many["userErrors"].as_array().unwrap().len(), 2, "{many}");
    }

    async fn several_are_each_answered_in_order(app: &GraphqlApp) {
        let query = "mutation($inputs: [RecordPurchaseInput!]!) { recordPurchases(inputs: $inputs) { \
            purchase { externalId } replayed userErrors { code path } } }";
        let inputs = json!([
            input(json!({ "externalId": "a" })),
            input(json!({ "externalId": "b", "total": "1.005" })),
            input(json!({ "externalId": "a" })),
        ]);
        let answer = app.data(&admin(), query, json!({ "inputs": inputs })).await;
        assert_eq!(answer["recordPurchases"], json!([
            { "purchase": { "externalId": "a" }, "replayed": false, "userErrors": [] },
            { "purchase": null, "replayed": false,
              "userErrors": [{ "code": "TOO_MANY_DECIMALS", "path": ["inputs", "1", "total"] }] },
            { "purchase": { "externalId": "a" }, "replayed": true, "userErrors": [] },
        ]));
        let many: Vec<Value> = (0..501).map(|n| input(json!({ "externalId": format!("m{n}") }))).collect();
        assert_eq!(app.codes(&admin(), query, json!({ "inputs": many })).await, ["BAD_USER_INPUT"]);
        let most: Vec<Value> = many.into_iter().take(500).collect();
        assert_eq!(app.data(&admin(), query, json!({ "inputs": most })).await["recordPurchases"][499]["replayed"], false);
    }

    async fn a_customer_without_purchases_is_there_for_itself(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "spend": { "amount": "20" } } })).await;
        let me = "{ me { id externalId balance { available pending lifetime version cursor } \
            progress { unit current target state awardsLeft } \
            awards { nodes { id } } ledger { nodes { id } } purchases { nodes { id } pageInfo { hasNextPage } } } }";
        let answer = app.data(&customer("nobody"), me, json!({})).await;
        assert_eq!(answer["me"]["balance"]["version"], 0);
        assert_eq!(answer["me"]["progress"], json!([{
            "unit": "MONEY", "current": "0.00", "target": "20.00", "state": "IN_PROGRESS", "awardsLeft": 1,
        }]));
        assert_eq!(answer["me"]["purchases"]["nodes"], json!([]));
        let id = text(&answer["me"]["id"]);
        let node = app.data(&customer("nobody"), "query($id: ID!) { node(id: $id) { id } }", json!({ "id": id })).await;
        assert_eq!(node["node"]["id"], json!(id));
        let ledger = "{ me { ledger { nodes { sequence } } } }";
        app.purchase("p", "nobody", "2026-11-02T10:00:00Z", "25").await;
        let answer = app.data(&customer("nobody"), ledger, json!({})).await;
        assert_eq!(answer["me"]["ledger"]["nodes"], json!([{ "sequence": 1 }]));
        // A customer without any facts does not exist for other callers.
        let other = app.data(&admin(), "{ customer(by: {externalId: \"who\"}) { id } me { id } }", json!({})).await;
        assert_eq!(other, json!({ "customer": null, "me": null }));
    }

    async fn a_version_that_was_seen_can_be_asked_for(app: &GraphqlApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "25").await;
        let query = "query($v: Count) { me(atLeastVersion: $v) { balance { version } } }";
        assert_eq!(app.data(&customer("ada"), query, json!({ "v": 1 })).await["me"]["balance"]["version"], 1);
        let answer = app.run(&customer("ada"), query, json!({ "v": 2 })).await;
        assert_eq!((&answer["data"]["me"], &answer["errors"][0]["extensions"]["code"]), (&Value::Null, &json!("BAD_USER_INPUT")));
        let query = "query($v: Count) { customer(by: {externalId: \"ada\"}, atLeastVersion: $v) { id } }";
        assert_eq!(app.codes(&storefront(), query, json!({ "v": 2 })).await, ["BAD_USER_INPUT"]);
    }
}
