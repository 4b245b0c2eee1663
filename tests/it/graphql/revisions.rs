//! Orders that change after they were sent, and what that gives, in points.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, customer, on_both, storefront};

const RECORD: &str = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
    purchase { revision total { amount } refunded { amount } net { amount } customer { externalId } } \
    customer { externalId } balance { available version } awardsChanged replayed superseded \
    userErrors { code path message } } }";
const REFUND: &str = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { \
    purchase { refunded { amount } net { amount } } balance { available version } replayed userErrors { code path } } }";

/// Records a content of the order `o` of ada. The fields of `content` replace those of an order of 10.00.
async fn record(app: &GraphqlApp, content: Value) -> Value {
    let mut input = json!({
        "externalId": "o", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "10.00", "currency": "EUR",
    });
    for (field, value) in content.as_object().expect("an object") {
        input[field] = value.clone();
    }
    app.data(&storefront(), RECORD, json!({ "input": input })).await["recordPurchase"].take()
}

/// Like [`record`]. Returns the balance of the customer of the order.
async fn points(app: &GraphqlApp, content: Value) -> i64 {
    balance(&record(app, content).await)
}

/// Refunds a part of the order `o`. Without an amount, refunds all of it. Returns the balance of its customer.
async fn refund(app: &GraphqlApp, id: &str, at: &str, amount: Option<&str>) -> i64 {
    let input = json!({ "externalId": id, "purchaseExternalId": "o", "refundedAt": at, "amount": amount });
    balance(&app.data(&storefront(), REFUND, json!({ "input": input })).await["recordRefund"])
}

fn balance(payload: &Value) -> i64 {
    assert_eq!(payload["userErrors"], json!([]), "{payload}");
    payload["balance"]["available"].as_i64().expect("a balance")
}

async fn balance_of(app: &GraphqlApp, name: &str) -> i64 {
    let query = "query($name: String!) { customer(by: { externalId: $name }) { balance { available lifetime } } }";
    let answer = app.data(&admin(), query, json!({ "name": name })).await;
    answer["customer"]["balance"]["available"].as_i64().unwrap_or(0)
}

/// The entries of a customer's ledger, oldest first: kind and points.
async fn ledger(app: &GraphqlApp, name: &str) -> Vec<(String, i64)> {
    let query =
        "query($name: String!) { customer(by: { externalId: $name }) { ledger(last: 100) { nodes { kind points } } } }";
    let answer = app.data(&admin(), query, json!({ "name": name })).await;
    let nodes = answer["customer"]["ledger"]["nodes"].as_array().cloned().unwrap_or_default();
    let entry = |node: &Value| (node["kind"].as_str().unwrap().to_owned(), node["points"].as_i64().unwrap());
    nodes.iter().rev().map(entry).collect()
}

/// A point for each euro.
async fn point_a_euro(app: &GraphqlApp) {
    app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" } })).await;
}

fn entries(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(kind, points)| ((*kind).to_owned(), *points)).collect()
}

on_both! {
    async fn an_order_is_edited_up_and_down_cancelled_and_restored(app: &GraphqlApp) {
        point_a_euro(app).await;
        assert_eq!(points(app, json!({})).await, 10);
        assert_eq!(points(app, json!({ "revision": 1, "total": "25.00" })).await, 25);
        assert_eq!(points(app, json!({ "revision": 2, "total": "7.50" })).await, 7);
        assert_eq!(points(app, json!({ "revision": 3, "total": "0" })).await, 0);
        assert_eq!(points(app, json!({ "revision": 4, "total": "12.00" })).await, 12);
        // Growth and shrinkage post the difference. A voided order loses its award, and a restored one gets another.
        let expected = [("AWARD", 10), ("AWARD", 15), ("REVERSAL", -18), ("REVERSAL", -7), ("AWARD", 12)];
        assert_eq!(ledger(app, "ada").await, entries(&expected));
        app.audit_is_clean().await;
    }

    async fn an_edit_moves_an_order_to_another_instant_channel_and_currency(app: &GraphqlApp) {
        app.campaign(json!({
            "startsAt": "2026-10-01T00:00:00Z", "filter": { "channels": ["web"] }, "window": { "calendar": { "unit": "WEEK" } },
            "goal": { "purchases": { "atLeast": 2 } }, "award": { "points": 50 },
        })).await;
        let other = json!({ "externalId": "other", "purchasedAt": "2026-10-27T10:00:00Z", "channel": "web" });
        assert_eq!(points(app, other).await, 0);
        // Monday of the next week: not in the week of the other order.
        assert_eq!(points(app, json!({ "channel": "web" })).await, 0);
        let earlier = "2026-10-28T10:00:00Z";
        assert_eq!(points(app, json!({ "revision": 1, "channel": "web", "purchasedAt": earlier })).await, 50);
        assert_eq!(points(app, json!({ "revision": 2, "channel": "app", "purchasedAt": earlier })).await, 0);
        assert_eq!(points(app, json!({ "revision": 3, "channel": "web", "purchasedAt": earlier })).await, 50);
        let in_francs = json!({ "revision": 4, "channel": "web", "purchasedAt": earlier, "currency": "CHF" });
        assert_eq!(points(app, in_francs).await, 0);
        app.audit_is_clean().await;
    }

    async fn an_award_keeps_its_id_when_its_order_moves(app: &GraphqlApp) {
        point_a_euro(app).await;
        points(app, json!({})).await;
        let award = "{ customer(by: { externalId: \"ada\" }) { awards(first: 1) { nodes { id earnedAt points status } } } }";
        let before = app.data(&admin(), award, json!({})).await["customer"]["awards"]["nodes"][0].take();
        points(app, json!({ "revision": 1, "purchasedAt": "2026-11-01T08:00:00Z" })).await;
        let after = app.data(&admin(), award, json!({})).await["customer"]["awards"]["nodes"][0].take();
        assert_eq!((&before["id"], &after["earnedAt"]), (&after["id"], &json!("2026-11-01T08:00:00Z")));
        assert_eq!(ledger(app, "ada").await, entries(&[("AWARD", 10)]));
    }

    async fn an_exchange_changes_the_lines(app: &GraphqlApp) {
        app.campaign(json!({
            "filter": { "categories": ["books"] }, "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" },
        })).await;
        let lines = |category: &str| json!([{ "sku": "a", "category": category, "amount": "10.00" }]);
        assert_eq!(points(app, json!({ "lines": lines("mugs") })).await, 0);
        assert_eq!(points(app, json!({ "revision": 1, "lines": lines("books") })).await, 10);
        assert_eq!(points(app, json!({ "revision": 2, "lines": lines("mugs") })).await, 0);
        app.audit_is_clean().await;
    }

    async fn an_order_is_handed_over(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "purchases": { "atLeast": 2 } }, "award": { "points": 30 } })).await;
        for (id, name) in [("g1", "guest"), ("o", "guest"), ("a1", "ada")] {
            points(app, json!({ "externalId": id, "customerExternalId": name })).await;
        }
        assert_eq!((balance_of(app, "guest").await, balance_of(app, "ada").await), (30, 0));
        // The guest has spent some of the points.
        let adjust = "mutation { adjustPoints(input: { customerExternalId: \"guest\", points: -20, reason: \"spent\", \
            idempotencyKey: \"k\" }) { userErrors { code } } }";
        app.data(&admin(), adjust, json!({})).await;
        let answer = record(app, json!({ "revision": 1 })).await;
        // Both awards are in the payload: the one that the guest lost, and the one that ada got.
        assert_eq!((&answer["awardsChanged"], &answer["customer"]["externalId"]), (&json!(2), &json!("ada")));
        // What the first customer spent stays its deficit.
        assert_eq!((balance_of(app, "guest").await, balance_of(app, "ada").await), (-20, 30));
        let expected = entries(&[("AWARD", 30), ("ADJUSTMENT", -20), ("REVERSAL", -30)]);
        assert_eq!(ledger(app, "guest").await, expected);
        assert_eq!(ledger(app, "ada").await, entries(&[("AWARD", 30)]));
        // And back.
        record(app, json!({ "revision": 2, "customerExternalId": "guest" })).await;
        assert_eq!((balance_of(app, "guest").await, balance_of(app, "ada").await), (10, 0));
        // A refund goes to the customer that has the order now.
        assert_eq!(refund(app, "r", "2026-11-02T11:00:00Z", None).await, -20);
        app.audit_is_clean().await;
    }

    async fn what_was_handed_over_is_hidden_from_the_customer_who_had_it(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "purchases": { "atLeast": 2 } }, "award": { "points": 30 } })).await;
        for (id, name) in [("g1", "guest"), ("o", "guest")] {
            points(app, json!({ "externalId": id, "customerExternalId": name, "channel": "web" })).await;
        }
        points(app, json!({ "revision": 1, "total": "99.00", "channel": "till" })).await;
        let query = "{ customer(by: { externalId: \"guest\" }) { purchases { nodes { externalId } } \
            ledger(last: 9) { nodes { kind purchase { externalId } } } \
            awards { nodes { status purchases { edges { node { externalId total { amount } } \
                counted { revision total { amount } channel customerExternalId } } } } } } }";
        let seen = app.data(&customer("guest"), query, json!({})).await["customer"].take();
        assert_eq!(seen["purchases"]["nodes"], json!([{ "externalId": "g1" }]));
        let none = json!([{ "kind": "REVERSAL", "purchase": null }, { "kind": "AWARD", "purchase": null }]);
        assert_eq!(seen["ledger"]["nodes"], none);
        let evidence = |seen: &Value| seen["awards"]["nodes"][0]["purchases"]["edges"].clone();
        let first = json!({
            "node": { "externalId": "g1", "total": { "amount": "10.00" } },
            "counted": { "revision": 0, "total": { "amount": "10.00" }, "channel": "web", "customerExternalId": "guest" },
        });
        assert_eq!(evidence(&seen), json!([first]));
        // The shop sees the order as it is now, and beside it what counted.
        let shown = app.data(&storefront(), query, json!({})).await["customer"].take();
        let second = json!({
            "node": { "externalId": "o", "total": { "amount": "99.00" } },
            "counted": { "revision": 0, "total": { "amount": "10.00" }, "channel": "web", "customerExternalId": "guest" },
        });
        assert_eq!(evidence(&shown), json!([first, second]));
        assert_eq!(shown["ledger"]["nodes"][0], json!({ "kind": "REVERSAL", "purchase": { "externalId": "o" } }));
        let purchase = "{ purchase(by: { externalId: \"o\" }) { externalId } }";
        assert_eq!(app.data(&customer("guest"), purchase, json!({})).await["purchase"], json!(null));
        let own = app.data(&customer("ada"), purchase, json!({})).await;
        assert_eq!(own["purchase"], json!({ "externalId": "o" }));
        // A customer sees no contents, which may name others.
        let contents = "{ purchase(by: { externalId: \"o\" }) { revisions { nodes { customerExternalId } } } }";
        assert_eq!(app.data(&customer("ada"), contents, json!({})).await["purchase"]["revisions"]["nodes"], json!([]));
    }

    async fn a_reversed_award_shows_the_contents_that_it_had_last(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "purchases": { "atLeast": 2 } }, "award": { "points": 30 } })).await;
        points(app, json!({ "externalId": "first", "purchasedAt": "2026-11-02T09:00:00Z" })).await;
        points(app, json!({})).await;
        points(app, json!({ "revision": 1, "total": "20.00" })).await;
        assert_eq!(refund(app, "part", "2026-11-02T11:00:00Z", Some("5.00")).await, 30);
        // The award is reversed, and the order changes once more.
        assert_eq!(points(app, json!({ "externalId": "first", "revision": 1, "total": "0" })).await, 0);
        points(app, json!({ "revision": 2, "total": "40.00" })).await;
        let query = "{ customer(by: { externalId: \"ada\" }) { awards { nodes { status purchases { edges { \
            node { externalId total { amount } } counted { revision total { amount } } } } } } } }";
        let awards = app.data(&admin(), query, json!({})).await["customer"]["awards"]["nodes"].take();
        let edge = |id: &str, now: &str, revision: i64, total: &str| {
            json!({
                "node": { "externalId": id, "total": { "amount": now } },
                "counted": { "revision": revision, "total": { "amount": total } },
            })
        };
        let edges = json!([edge("first", "0.00", 0, "10.00"), edge("o", "40.00", 1, "20.00")]);
        assert_eq!(awards, json!([{ "status": "REVERSED", "purchases": { "edges": edges } }]));
    }

    async fn refunds_in_parts_count_before_and_after_edits(app: &GraphqlApp) {
        point_a_euro(app).await;
        points(app, json!({})).await;
        assert_eq!(refund(app, "r1", "2026-11-02T11:00:00Z", Some("4.00")).await, 6);
        assert_eq!(points(app, json!({ "revision": 1, "total": "20.00" })).await, 16);
        assert_eq!(refund(app, "r2", "2026-11-02T11:30:00Z", Some("15.00")).await, 1);
        // All refunds together exceed the total now: nothing is left, and nothing is taken twice.
        assert_eq!(points(app, json!({ "revision": 2, "total": "12.00" })).await, 0);
        assert_eq!(points(app, json!({ "revision": 3, "total": "30.00" })).await, 11);
        // A refund that an earlier content allows is accepted.
        assert_eq!(points(app, json!({ "revision": 4, "total": "5.00" })).await, 0);
        assert_eq!(refund(app, "r3", "2026-11-02T11:40:00Z", Some("6.00")).await, 0);
        app.audit_is_clean().await;
    }

    async fn a_refund_of_the_whole_stays_a_refund_of_the_whole(app: &GraphqlApp) {
        point_a_euro(app).await;
        points(app, json!({})).await;
        assert_eq!(refund(app, "r", "2026-11-02T11:00:00Z", None).await, 0);
        assert_eq!(points(app, json!({ "revision": 1, "total": "25.00" })).await, 0);
        let shown = "{ purchase(by: { externalId: \"o\" }) { refunds { amount { amount } } refunded { amount } } }";
        let expected = json!({ "refunds": [{ "amount": { "amount": "25.00" } }], "refunded": { "amount": "25.00" } });
        assert_eq!(app.data(&storefront(), shown, json!({})).await["purchase"], expected);
    }

    async fn each_line_of_a_refund_is_rounded_in_another_currency(app: &GraphqlApp) {
        // Does not depend on lines, so a late purchase reads the history without the lines of purchases.
        app.campaign(json!({ "goal": { "spend": { "amount": "10.01" } } })).await;
        let in_dinars = [json!({ "sku": "a", "amount": "5" }), json!({ "sku": "b", "amount": "5" })];
        record(app, json!({ "currency": "KWD", "lines": in_dinars })).await;
        let lines = [json!({ "sku": "a", "amount": "0.005" }), json!({ "sku": "b", "amount": "0.005" })];
        let input = json!({
            "externalId": "r", "purchaseExternalId": "o", "refundedAt": "2026-11-02T11:00:00Z", "lines": lines,
        });
        let answer = app.data(&storefront(), REFUND, json!({ "input": input })).await["recordRefund"].take();
        assert_eq!(answer["purchase"]["refunded"]["amount"], "0.010", "{answer}");
        let in_euros = record(app, json!({ "revision": 1 })).await;
        assert_eq!((&in_euros["purchase"]["net"]["amount"], balance(&in_euros)), (&json!("10.00"), 0));
        let early = json!({ "externalId": "early", "purchasedAt": "2026-11-01T10:00:00Z", "total": "0.01" });
        assert_eq!(points(app, early).await, 10);
        app.audit_is_clean().await;
    }

    async fn a_running_sum_and_single_refunds_count_once(app: &GraphqlApp) {
        point_a_euro(app).await;
        let exported = json!({ "total": "100.00", "refunded": "30.00", "refundedUntil": "2026-11-02T11:00:00Z" });
        assert_eq!(points(app, exported).await, 70);
        // The sum contains this refund.
        assert_eq!(refund(app, "r1", "2026-11-02T10:30:00Z", Some("20.00")).await, 70);
        // This one was made after the export.
        assert_eq!(refund(app, "r2", "2026-11-02T11:30:00Z", Some("10.00")).await, 60);
        // A later export contains both.
        let later = json!({ "revision": 2, "total": "100.00", "refunded": "40.00", "refundedUntil": "2026-11-02T11:45:00Z" });
        assert_eq!(points(app, later).await, 60);
        // A revision that states no sum leaves the last one in force.
        assert_eq!(points(app, json!({ "revision": 3, "total": "110.00" })).await, 70);
        // 0 states a sum, and none is none: now the refunds alone count.
        let none = json!({ "revision": 4, "total": "110.00", "refunded": "0" });
        let answer = record(app, none).await;
        assert_eq!(balance(&answer), 80);
        assert_eq!(answer["purchase"]["refunded"]["amount"], "30.00");
        app.audit_is_clean().await;
    }

    async fn a_running_sum_that_goes_on_over_the_same_refunds_changes_nothing(app: &GraphqlApp) {
        point_a_euro(app).await;
        let export = |revision: i64, until: &str| json!({ "revision": revision, "refunded": "3.00", "refundedUntil": until });
        assert_eq!(points(app, export(1, "2026-11-01T00:00:00Z")).await, 7);
        let again = record(app, export(2, "2026-11-02T00:00:00Z")).await;
        assert_eq!((&again["replayed"], &again["purchase"]["revision"]), (&json!(true), &json!(2)));
        assert_eq!(again["balance"], json!({ "available": 7, "version": 1 }));
        let again = record(app, export(1, "2026-11-01T00:00:00Z")).await;
        assert_eq!((&again["replayed"], &again["userErrors"]), (&json!(true), &json!([])));
        refund(app, "r", "2026-11-02T11:00:00Z", Some("1.00")).await;
        assert_eq!(balance_of(app, "ada").await, 6);
        // A refund lies between the two, so the sum contains it now: more is left.
        let again = record(app, export(3, "2026-11-02T11:30:00Z")).await;
        assert_eq!((&again["replayed"], balance(&again)), (&json!(false), 7));
        app.audit_is_clean().await;
    }

    async fn an_order_sent_twice_changes_nothing(app: &GraphqlApp) {
        point_a_euro(app).await;
        let lines = |first: &str, second: &str| json!([{ "sku": first, "amount": "5.00" }, { "sku": second, "amount": "5" }]);
        let first = record(app, json!({ "revision": 7, "lines": lines("a", "b") })).await;
        let again = record(app, json!({ "revision": 7, "lines": lines("b", "a"), "total": "10.0" })).await;
        assert_eq!((&first["replayed"], &again["replayed"]), (&json!(false), &json!(true)));
        assert_eq!(again["balance"], first["balance"]);
        // The same content under a higher number: only the number changes.
        let raised = record(app, json!({ "revision": 9, "lines": lines("a", "b") })).await;
        assert_eq!((&raised["replayed"], &raised["purchase"]["revision"]), (&json!(true), &json!(9)));
        assert_eq!(raised["balance"], first["balance"]);
        let contents = "{ purchase(by: { externalId: \"o\" }) { revisions { nodes { revision } } } }";
        let nodes = app.data(&storefront(), contents, json!({})).await["purchase"]["revisions"]["nodes"].take();
        assert_eq!(nodes, json!([{ "revision": 9 }]));
        // The old number still stands for the content.
        let sent_again = async || {
            let again = record(app, json!({ "revision": 7, "lines": lines("a", "b") })).await;
            assert_eq!((&again["replayed"], &again["superseded"]), (&json!(true), &json!(true)));
            let conflict = record(app, json!({ "revision": 7, "lines": lines("a", "b"), "channel": "app" })).await;
            assert_eq!(conflict["userErrors"][0]["code"], "IDEMPOTENCY_CONFLICT", "{conflict}");
        };
        sent_again().await;
        record(app, json!({ "revision": 10, "lines": lines("a", "b") })).await;
        sent_again().await;
        record(app, json!({ "revision": 11, "lines": lines("a", "c") })).await;
        sent_again().await;
        app.audit_is_clean().await;
    }

    async fn an_older_content_is_kept_and_changes_nothing(app: &GraphqlApp) {
        point_a_euro(app).await;
        assert_eq!(points(app, json!({ "revision": 5, "total": "20.00" })).await, 20);
        let older = record(app, json!({ "revision": 2, "total": "90.00", "customerExternalId": "never" })).await;
        assert_eq!((&older["superseded"], &older["replayed"]), (&json!(true), &json!(false)));
        assert_eq!((&older["balance"], &older["customer"]["externalId"]), (&json!({ "available": 20, "version": 1 }), &json!("ada")));
        let again = record(app, json!({ "revision": 2, "total": "90.00", "customerExternalId": "never" })).await;
        assert_eq!((&again["superseded"], &again["replayed"]), (&json!(true), &json!(true)));
        let conflict = record(app, json!({ "revision": 2, "total": "91.00" })).await;
        let expected = json!([
            {
                "code": "IDEMPOTENCY_CONFLICT", "path": ["input", "customerExternalId"],
                "message": "was recorded as never under this id, but ada was sent",
            },
            {
                "code": "IDEMPOTENCY_CONFLICT", "path": ["input", "total"],
                "message": "was recorded as 90 under this id, but 91 was sent",
            },
        ]);
        assert_eq!(conflict["userErrors"], expected);
        // Only a running sum that no higher revision states counts.
        let sum = json!({ "revision": 3, "total": "90.00", "refunded": "5.00" });
        let stated = record(app, sum).await;
        assert_eq!((&stated["superseded"], &stated["balance"]), (&json!(true), &json!({ "available": 15, "version": 2 })));
        let lower = record(app, json!({ "revision": 1, "total": "90.00", "refunded": "9.00" })).await;
        assert_eq!(lower["balance"], json!({ "available": 15, "version": 2 }));
        assert_eq!(app.customer("never").await, None);
        let contents = "{ purchase(by: { externalId: \"o\" }) { revisions { nodes { revision total { amount } refunded { amount } \
            customerExternalId customer { externalId } } } } }";
        let nodes = app.data(&storefront(), contents, json!({})).await["purchase"]["revisions"]["nodes"].take();
        let content = |revision: i64, total: &str, refunded: Value, name: &str, known: Value| {
            json!({ "revision": revision, "total": { "amount": total }, "refunded": refunded, "customerExternalId": name, "customer": known })
        };
        let ada = || json!({ "externalId": "ada" });
        assert_eq!(nodes, json!([
            content(5, "20.00", json!(null), "ada", ada()),
            content(3, "90.00", json!({ "amount": "5.00" }), "ada", ada()),
            content(2, "90.00", json!(null), "never", json!(null)),
            content(1, "90.00", json!({ "amount": "9.00" }), "ada", ada()),
        ]));
        app.audit_is_clean().await;
    }

    async fn whatever_comes_first_the_highest_revision_counts(app: &GraphqlApp) {
        point_a_euro(app).await;
        let contents = [json!({ "total": "10.00" }), json!({ "revision": 1, "total": "20.00" }), json!({ "revision": 2, "total": "30.00" })];
        for (n, order) in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].iter().enumerate() {
            for at in order {
                let mut content = contents[*at].clone();
                content["externalId"] = json!(format!("o{n}"));
                record(app, content).await;
            }
            assert_eq!(balance_of(app, "ada").await, 30 * (i64::try_from(n).unwrap() + 1));
        }
        app.audit_is_clean().await;
    }

    async fn growth_passes_a_budget_and_an_order_that_is_handed_over_is_decided_anew(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" }, "budget": 15 })).await;
        assert_eq!(points(app, json!({})).await, 10);
        assert_eq!(points(app, json!({ "revision": 1, "total": "40.00" })).await, 40);
        // Ada's award gives back its points before that of bob is decided: 40 do not fit into 15.
        assert_eq!(points(app, json!({ "revision": 2, "total": "40.00", "customerExternalId": "bob" })).await, 0);
        assert_eq!(points(app, json!({ "revision": 3, "total": "14.00", "customerExternalId": "ada" })).await, 14);
        assert_eq!(balance_of(app, "bob").await, 0);
        app.audit_is_clean().await;
    }

    async fn a_budget_gets_back_what_one_customer_loses_before_another_gets_it(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" }, "budget": 15 })).await;
        // Whoever of the two comes first in a commit.
        for (revision, name) in ["bob", "ada", "bob", "ada"].into_iter().enumerate() {
            assert_eq!(points(app, json!({ "revision": revision, "customerExternalId": name })).await, 10, "{revision}");
        }
        assert_eq!(balance_of(app, "bob").await, 0);
        app.audit_is_clean().await;
    }

    async fn a_boundary_lies_after_every_content_that_was_recorded(app: &GraphqlApp) {
        let id = app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" } })).await;
        // Three minutes ahead of the clock, and then a day earlier.
        points(app, json!({ "purchasedAt": "2026-11-02T12:03:00Z" })).await;
        points(app, json!({ "revision": 1, "purchasedAt": "2026-11-01T12:00:00Z" })).await;
        let pause = "mutation($id: ID!) { pauseCampaign(id: $id) { campaign { status } userErrors { code } } }";
        app.data(&admin(), pause, json!({ "id": id })).await;
        // The campaign was paused after that instant.
        let other = async |id: &str, at: &str| points(app, json!({ "externalId": id, "purchasedAt": at })).await;
        assert_eq!(other("before the pause", "2026-11-02T12:03:00Z").await, 20);
        assert_eq!(other("in the pause", "2026-11-02T12:03:01Z").await, 20);
    }

    async fn a_settled_campaign_keeps_what_counted(app: &GraphqlApp) {
        app.campaign(json!({
            "startsAt": "2026-10-01T00:00:00Z", "endsAt": "2026-11-03T00:00:00Z", "lateness": "PT1H",
            "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" },
        })).await;
        points(app, json!({})).await;
        assert_eq!(points(app, json!({ "revision": 1, "total": "25.00", "refunded": "5.00" })).await, 20);
        app.set_clock("2026-11-03T02:00:00Z");
        assert_eq!(windfall::app::jobs::settlement::run(&app.app).await.unwrap(), 1);
        // To another customer, another instant, and less.
        let edited = json!({
            "revision": 2, "total": "3.00", "customerExternalId": "bob", "purchasedAt": "2026-11-02T01:00:00Z", "refunded": "1.00",
        });
        assert_eq!(points(app, edited).await, 0);
        assert_eq!(balance_of(app, "ada").await, 20);
        app.audit_is_clean().await;
        let counted = "{ customer(by: { externalId: \"ada\" }) { awards { nodes { points purchases { edges { \
            node { total { amount } } counted { revision total { amount } } } } } } } }";
        let awards = app.data(&admin(), counted, json!({})).await["customer"]["awards"]["nodes"].take();
        let edge = json!({
            "node": { "total": { "amount": "3.00" } }, "counted": { "revision": 1, "total": { "amount": "25.00" } },
        });
        assert_eq!(awards, json!([{ "points": 20, "purchases": { "edges": [edge] } }]));
        // A repair counts everything again from the contents.
        app.execute("UPDATE award SET points = 19").await;
        let admin = admin().require_admin().unwrap();
        windfall::app::audit::run(&app.app, Some(&admin), |_| {}).await.unwrap();
        assert_eq!(balance_of(app, "ada").await, 20);
        app.audit_is_clean().await;
    }

    async fn a_purchase_that_moved_since_keeps_its_awards_of_a_settled_campaign(app: &GraphqlApp) {
        app.campaign(json!({
            "startsAt": "2026-10-01T00:00:00Z", "endsAt": "2026-11-03T00:00:00Z", "lateness": "PT1H",
            "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" },
        })).await;
        points(app, json!({})).await;
        app.set_clock("2026-11-03T02:00:00Z");
        assert_eq!(windfall::app::jobs::settlement::run(&app.app).await.unwrap(), 1);
        assert_eq!(points(app, json!({ "revision": 1, "purchasedAt": "2026-11-02T01:00:00Z" })).await, 10);
        let awards = "{ purchase(by: { externalId: \"o\" }) { awards { points } } }";
        let awards = app.data(&storefront(), awards, json!({})).await["purchase"]["awards"].take();
        assert_eq!(awards, json!([{ "points": 10 }]));
    }

    async fn a_hidden_purchase_makes_no_other_one_evidence_of_a_streak(app: &GraphqlApp) {
        app.campaign(json!({
            "startsAt": "2026-10-01T00:00:00Z", "endsAt": "2026-11-03T00:00:00Z", "lateness": "PT1H",
            "window": { "calendar": { "unit": "DAY" } }, "goal": { "streak": { "length": 2 } },
        })).await;
        for (id, at) in [
            ("first", "2026-11-01T10:00:00Z"), ("second", "2026-11-01T11:00:00Z"), ("next day", "2026-11-02T10:00:00Z"),
        ] {
            record(app, json!({ "externalId": id, "purchasedAt": at })).await;
        }
        app.set_clock("2026-11-03T02:00:00Z");
        assert_eq!(windfall::app::jobs::settlement::run(&app.app).await.unwrap(), 1);
        let handed_over = json!({
            "externalId": "first", "purchasedAt": "2026-11-01T10:00:00Z", "revision": 1, "customerExternalId": "bob",
        });
        record(app, handed_over).await;
        let query = "{ customer(by: { externalId: \"ada\" }) { awards { nodes { purchases { nodes { externalId } } } } } }";
        let evidence = async |viewer| {
            let answer = app.data(&viewer, query, json!({})).await;
            answer.pointer("/customer/awards/nodes/0/purchases/nodes").unwrap().clone()
        };
        assert_eq!(evidence(admin()).await, json!([{ "externalId": "first" }, { "externalId": "next day" }]));
        assert_eq!(evidence(customer("ada")).await, json!([{ "externalId": "next day" }]));
    }

    async fn evidence_is_found_among_many_contents(app: &GraphqlApp) {
        point_a_euro(app).await;
        let most = 150;
        for revision in 0..=most {
            points(app, json!({ "revision": revision, "total": format!("{}.00", 10 + revision) })).await;
        }
        assert_eq!(points(app, json!({ "revision": most + 1, "total": "0" })).await, 0);
        let counted = "{ customer(by: { externalId: \"ada\" }) { awards { nodes { \
            points purchases { edges { counted { revision } } } } } } }";
        let awards = app.data(&admin(), counted, json!({})).await["customer"]["awards"]["nodes"].take();
        let edge = json!({ "counted": { "revision": most } });
        assert_eq!(awards, json!([{ "points": 10 + most, "purchases": { "edges": [edge] } }]));
    }

    async fn a_clock_that_went_back_refuses_no_duplicate(app: &GraphqlApp) {
        point_a_euro(app).await;
        points(app, json!({ "refunded": "1.00", "refundedUntil": "2026-11-02T11:00:00Z" })).await;
        refund(app, "r", "2026-11-02T11:30:00Z", Some("2.00")).await;
        app.set_clock("2026-11-01T12:00:00Z");
        let again = record(app, json!({ "refunded": "1.00", "refundedUntil": "2026-11-02T11:00:00Z" })).await;
        assert_eq!((&again["replayed"], balance(&again)), (&json!(true), 7));
        assert_eq!(refund(app, "r", "2026-11-02T11:30:00Z", Some("2.00")).await, 7);
        let refused = async |content: Value| {
            let answer = record(app, content).await;
            let errors = answer["userErrors"].as_array().unwrap().clone();
            errors.iter().map(|error| (error["code"].clone(), error["path"][1].clone())).collect::<Vec<_>>()
        };
        let future = vec![(json!("PURCHASED_IN_FUTURE"), json!("purchasedAt"))];
        assert_eq!(refused(json!({ "externalId": "new" })).await, future);
        assert_eq!(refused(json!({ "revision": 1, "total": "20.00" })).await, future);
        // A conflict is told as a conflict.
        let conflict = refused(json!({ "total": "20.00", "refunded": "1.00", "refundedUntil": "2026-11-02T11:00:00Z" })).await;
        assert_eq!(conflict, vec![(json!("IDEMPOTENCY_CONFLICT"), json!("total"))]);
        let input = json!({ "externalId": "s", "purchaseExternalId": "o", "refundedAt": "2026-11-02T11:30:00Z" });
        let answer = app.data(&storefront(), REFUND, json!({ "input": input })).await["recordRefund"].take();
        assert_eq!(answer["userErrors"], json!([{ "code": "REFUNDED_IN_FUTURE", "path": ["input", "refundedAt"] }]));
    }

    async fn faults_of_a_revision_are_named(app: &GraphqlApp) {
        let errors = async |content: Value| {
            let answer = record(app, content).await;
            let errors = answer["userErrors"].as_array().unwrap().clone();
            errors.iter().map(|error| (error["code"].clone(), error["path"].clone())).collect::<Vec<_>>()
        };
        let one = |code: &str, field: &str| vec![(json!(code), json!(["input", field]))];
        assert_eq!(errors(json!({ "refunded": "-1" })).await, one("OUT_OF_RANGE", "refunded"));
        assert_eq!(errors(json!({ "refunded": "1.001" })).await, one("TOO_MANY_DECIMALS", "refunded"));
        assert_eq!(errors(json!({ "refundedUntil": "2026-11-01T00:00:00Z" })).await, one("INVALID", "refundedUntil"));
        let ahead = json!({ "refunded": "1", "refundedUntil": "2026-11-02T12:05:01Z" });
        assert_eq!(errors(ahead).await, one("INVALID", "refundedUntil"));
        record(app, json!({})).await;
        let input = json!({ "externalId": "r", "purchaseExternalId": "o", "refundedAt": "2026-11-02T12:05:01Z" });
        let answer = app.data(&storefront(), REFUND, json!({ "input": input })).await["recordRefund"].take();
        assert_eq!(answer["userErrors"], json!([{ "code": "REFUNDED_IN_FUTURE", "path": ["input", "refundedAt"] }]));
    }
}
