//! What each part of a rule gives, in points.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, on_both, storefront};

/// Records a purchase of ada with lines `(sku, category, quantity, amount)`. Its total is the sum of the lines unless it is given.
/// Returns her balance.
async fn buy(app: &GraphqlApp, id: &str, at: &str, lines: &[(&str, &str, i32, &str)], total: &str) -> i64 {
    let lines: Vec<Value> = lines
        .iter()
        .map(|(sku, category, quantity, amount)| {
            json!({ "sku": sku, "category": category, "quantity": quantity, "amount": amount })
        })
        .collect();
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
        balance { available } userErrors { code path } } }";
    let input = json!({
        "externalId": id, "customerExternalId": "ada", "purchasedAt": at, "total": total, "currency": "EUR", "lines": lines,
    });
    balance(&app.data(&storefront(), query, json!({ "input": input })).await["recordPurchase"])
}

/// Refunds a part of a purchase of ada. Returns her balance.
async fn refund(app: &GraphqlApp, id: &str, purchase: &str, sku: &str, amount: &str) -> i64 {
    let query = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { \
        balance { available } userErrors { code path } } }";
    let input = json!({
        "externalId": id, "purchaseExternalId": purchase, "refundedAt": "2026-11-02T12:00:00Z",
        "lines": [{ "sku": sku, "amount": amount }],
    });
    balance(&app.data(&storefront(), query, json!({ "input": input })).await["recordRefund"])
}

fn balance(payload: &Value) -> i64 {
    assert_eq!(payload["userErrors"], json!([]));
    payload["balance"]["available"].as_i64().expect("a balance")
}

/// The progress of ada in the only campaign: state, unit, current, and whether a window is open.
async fn progress(app: &GraphqlApp) -> (Value, Value, Value, bool) {
    let query = "{ customer(by: { externalId: \"ada\" }) { progress { state unit current window { opensAt } } } }";
    let mut answer = app.data(&admin(), query, json!({})).await["customer"]["progress"][0].take();
    (answer["state"].take(), answer["unit"].take(), answer["current"].take(), !answer["window"].is_null())
}

/// The standing awards of ada, the latest first: their points, and those before caps.
async fn capped(app: &GraphqlApp) -> Vec<(i64, i64)> {
    let query =
        "{ customer(by: { externalId: \"ada\" }) { awards(status: [STANDING]) { nodes { points pointsBeforeCap } } } }";
    let answer = app.data(&admin(), query, json!({})).await;
    let nodes = answer["customer"]["awards"]["nodes"].as_array().expect("a list").clone();
    nodes.iter().map(|node| (node["points"].as_i64().unwrap(), node["pointsBeforeCap"].as_i64().unwrap())).collect()
}

on_both! {
    async fn excluded_lines_give_no_points(app: &GraphqlApp) {
        app.campaign(json!({
            "filter": { "excludedCategories": ["gift-cards"], "excludedSkus": ["shipping"] },
            "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" },
        })).await;
        let at = "2026-11-02T10:00:00Z";
        let shoes = ("s-1", "shoes", 1, "90.00");
        let card = ("g-1", "gift-cards", 1, "30.00");
        assert_eq!(buy(app, "both", at, &[shoes, card], "120.00").await, 90);
        assert_eq!(buy(app, "card alone", at, &[card], "30.00").await, 90);
        assert_eq!(buy(app, "no lines", at, &[], "10.00").await, 100);
        assert_eq!(buy(app, "shipping", at, &[shoes, ("shipping", "delivery", 1, "5.00")], "95.00").await, 190);
        // A discount of 12.00 on the whole order is not spread over its lines: the excluded line keeps its amount.
        assert_eq!(buy(app, "discount", at, &[shoes, card], "108.00").await, 268);
        // The card goes back: what is left is the shoes.
        assert_eq!(refund(app, "r", "both", "g-1", "30.00").await, 268);
    }

    async fn caps_in_points_leave_what_is_left(app: &GraphqlApp) {
        app.campaign(json!({
            "window": { "calendar": { "unit": "DAY" } }, "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" },
            "maxPointsPerWindow": 50, "maxPointsPerCustomer": 80,
        })).await;
        let mug = |amount| ("m-1", "mugs", 1, amount);
        assert_eq!(buy(app, "p1", "2026-11-01T10:00:00Z", &[mug("40.00")], "40.00").await, 40);
        assert_eq!(buy(app, "p2", "2026-11-01T11:00:00Z", &[mug("40.00")], "40.00").await, 50);
        assert_eq!(buy(app, "p3", "2026-11-01T12:00:00Z", &[mug("5.00")], "5.00").await, 50);
        assert_eq!(buy(app, "p4", "2026-11-02T10:00:00Z", &[mug("45.00")], "45.00").await, 80);
        assert_eq!(capped(app).await, [(30, 45), (10, 40), (40, 40)]);
        // The customer can earn no further point.
        let (state, ..) = progress(app).await;
        assert_eq!(state, "EXHAUSTED");
        // What becomes free goes to the next awards: p2 gets 40, p3 gets 5, and p4 gets 35.
        assert_eq!(refund(app, "r1", "p1", "m-1", "40.00").await, 80);
        assert_eq!(capped(app).await, [(35, 45), (5, 5), (40, 40)]);
        // A late purchase takes from those that follow: p2 gets 30, and nothing is left of the day for p3.
        assert_eq!(buy(app, "p0", "2026-11-01T09:00:00Z", &[mug("20.00")], "20.00").await, 80);
        assert_eq!(capped(app).await, [(30, 45), (30, 40), (20, 20)]);
        app.audit_is_clean().await;
    }

    async fn a_window_without_points_left_is_reached(app: &GraphqlApp) {
        app.campaign(json!({
            "window": { "calendar": { "unit": "DAY" } }, "goal": { "purchases": { "atLeast": 1, "repeat": true } },
            "award": { "points": 20 }, "maxPointsPerWindow": 30,
        })).await;
        let at = "2026-11-02T10:00:00Z";
        assert_eq!(buy(app, "p1", at, &[], "1.00").await, 20);
        assert_eq!(progress(app).await.0, "IN_PROGRESS");
        assert_eq!(buy(app, "p2", at, &[], "1.00").await, 30);
        assert_eq!(progress(app).await.0, "REACHED");
        assert_eq!(buy(app, "p3", at, &[], "1.00").await, 30);
        app.audit_is_clean().await;
    }

    async fn each_category_has_its_rate(app: &GraphqlApp) {
        app.campaign(json!({
            "filter": { "excludedCategories": ["gift-cards"] }, "goal": { "everyPurchase": "EACH" },
            "award": { "pointsByCategory": { "rate": "1", "rates": [
                { "categories": ["books", "coffee"], "rate": "2.5" }, { "categories": ["coffee"], "rate": "9" },
                { "categories": ["sale"], "rate": "0" },
            ] } },
        })).await;
        let at = "2026-11-02T10:00:00Z";
        let (book, mug) = (("b-1", "books", 1, "10.50"), ("m-1", "mugs", 1, "4.50"));
        // 10.50 × 2.5 + 4.50 × 1 = 30.75.
        assert_eq!(buy(app, "p1", at, &[book, mug], "15.00").await, 30);
        // The first entry that names coffee counts, and a purchase may have a part without a line: 4 × 2.5 + 1 × 1 = 11.
        assert_eq!(buy(app, "p2", at, &[("c-1", "coffee", 1, "4.00")], "5.00").await, 41);
        assert_eq!(buy(app, "p3", at, &[("s-1", "sale", 1, "50.00"), ("g-1", "gift-cards", 1, "9.00")], "59.00").await, 41);
        // With a discount of a third, the lines exceed the total and count in proportion: 7.00 × 2.5 + 3.00 × 1 = 20.50.
        assert_eq!(buy(app, "p4", at, &[book, mug], "10.00").await, 61);
        // The book goes back: 4.50 are left.
        assert_eq!(refund(app, "r", "p1", "b-1", "10.50").await, 35);
    }

    async fn a_refund_can_add_points_beyond_the_budget(app: &GraphqlApp) {
        // The growth exceeds the first budget and fits into the second.
        let mut campaigns = Vec::new();
        for budget in [2, 10] {
            campaigns.push(app.campaign(json!({
                "goal": { "everyPurchase": "EACH" }, "budget": budget,
                "award": { "pointsByCategory": { "rate": "100", "rates": [{ "categories": ["sale"], "rate": "0" }] } },
            })).await);
        }
        let at = "2026-11-02T10:00:00Z";
        let lines = ["a", "b", "c", "d"].map(|sku| (sku, "sale", 1, "0.03"));
        // 0.01 has no line.
        assert_eq!(buy(app, "p1", at, &lines, "0.13").await, 2);
        // 0.12 are left. Each line keeps 0.02 of its 0.03, rounded down, so 0.04 have no line.
        let query = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { balance { available } \
            awards { points status } userErrors { code path } } }";
        let input = json!({ "externalId": "r", "purchaseExternalId": "p1", "refundedAt": at, "amount": "0.01" });
        let mut answer = app.data(&storefront(), query, json!({ "input": input })).await["recordRefund"].take();
        let grown = json!({ "points": 4, "status": "STANDING" });
        assert_eq!(answer["awards"].take(), json!([grown, grown]));
        assert_eq!(balance(&answer), 8);
        // The ledger has the old and the new entries.
        let query = "{ customer(by: { externalId: \"ada\" }) { ledger(first: 5) { nodes { kind points } } } }";
        let entries = [3, 3, 1, 1].map(|points| json!({ "kind": "AWARD", "points": points }));
        assert_eq!(app.data(&admin(), query, json!({})).await["customer"]["ledger"]["nodes"], json!(entries));
        for (campaign, exhausted, left) in [(&campaigns[0], true, 0), (&campaigns[1], false, 6)] {
            let query = "query($id: ID!) { campaign(id: $id) { budgetExhausted stats { pointsStanding budgetLeft } } }";
            let told = json!({ "budgetExhausted": exhausted, "stats": { "pointsStanding": 4, "budgetLeft": left } });
            assert_eq!(app.data(&admin(), query, json!({ "id": campaign })).await["campaign"], told);
        }
        app.audit_is_clean().await;
    }

    async fn units_are_counted_by_quantity_and_shrink_with_refunds(app: &GraphqlApp) {
        app.campaign(json!({
            "filter": { "categories": ["coffee"] }, "window": { "campaign": "WHOLE" },
            "goal": { "units": { "atLeast": 6, "repeat": true } }, "award": { "points": 10 },
        })).await;
        let at = "2026-11-02T10:00:00Z";
        assert_eq!(buy(app, "four", at, &[("c-1", "coffee", 4, "12.00"), ("mug", "mugs", 9, "9.00")], "21.00").await, 0);
        assert_eq!(progress(app).await, (json!("IN_PROGRESS"), json!("UNITS"), json!("4"), true));
        // 4 and 9 are 13: twice 6, and 1 is carried over.
        assert_eq!(buy(app, "nine", at, &[("c-1", "coffee", 9, "27.00")], "27.00").await, 20);
        assert_eq!(progress(app).await, (json!("IN_PROGRESS"), json!("UNITS"), json!("1"), true));
        // 4.50 of 27.00 are one and a half of 9 units. 7.5 are rounded to 8, and 4 and 8 are 12.
        assert_eq!(refund(app, "r1", "nine", "c-1", "4.50").await, 20);
        // 7.49 are rounded to 7, and 4 and 7 are 11.
        assert_eq!(refund(app, "r2", "nine", "c-1", "0.03").await, 10);
        assert_eq!(buy(app, "tea", at, &[("t-1", "tea", 6, "6.00")], "6.00").await, 10);
    }

    async fn a_day_can_begin_after_midnight(app: &GraphqlApp) {
        app.campaign(json!({
            "window": { "calendar": { "unit": "DAY", "dayStartsAt": "04:00" } },
            "goal": { "purchases": { "atLeast": 2 } }, "award": { "points": 10 },
        })).await;
        assert_eq!(buy(app, "evening", "2026-11-01T22:00:00Z", &[], "1.00").await, 0);
        assert_eq!(buy(app, "next day", "2026-11-02T04:00:00Z", &[], "1.00").await, 0);
        assert_eq!(buy(app, "after midnight", "2026-11-02T03:59:59Z", &[], "1.00").await, 10);
    }

    async fn a_streak_goes_on_over_the_weekend(app: &GraphqlApp) {
        let weekdays = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY"];
        app.campaign(json!({
            "window": { "recurring": { "weekdays": weekdays, "from": "08:00", "to": "18:00" } },
            "goal": { "streak": { "length": 3, "repeat": true } }, "award": { "points": 50 },
        })).await;
        app.set_clock("2026-11-07T12:00:00Z");
        assert_eq!(buy(app, "thursday", "2026-11-05T09:00:00Z", &[], "1.00").await, 0);
        assert_eq!(buy(app, "friday", "2026-11-06T09:00:00Z", &[], "1.00").await, 0);
        // A purchase outside every occurrence neither counts nor breaks the streak.
        assert_eq!(buy(app, "saturday", "2026-11-07T09:00:00Z", &[], "1.00").await, 0);
        assert_eq!(progress(app).await, (json!("IN_PROGRESS"), json!("WINDOWS"), json!("2"), false));
        // Monday has passed without a purchase.
        app.set_clock("2026-11-09T18:00:00Z");
        assert_eq!(progress(app).await, (json!("NOT_STARTED"), json!("WINDOWS"), json!("0"), false));
        assert_eq!(buy(app, "monday", "2026-11-09T09:00:00Z", &[], "1.00").await, 50);
        // The streak begins again with Tuesday.
        assert_eq!(progress(app).await, (json!("NOT_STARTED"), json!("WINDOWS"), json!("0"), false));
    }

    async fn a_currency_that_the_table_lacks_stops_no_other_purchase(app: &GraphqlApp) {
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" } })).await;
        assert_eq!(buy(app, "p1", "2026-11-02T10:00:00Z", &[], "10.00").await, 10);
        app.execute("UPDATE purchase SET currency = 'QQQ' WHERE external_id = 'p1'").await;
        // A late purchase evaluates the history again. The other one is not in the campaign's currency any more.
        assert_eq!(buy(app, "p2", "2026-11-02T09:00:00Z", &[], "5.00").await, 5);
        let query = "{ purchase(by: { externalId: \"p1\" }) { total { amount currency } } }";
        let total = json!({ "amount": "10.00", "currency": "QQQ" });
        assert_eq!(app.data(&admin(), query, json!({})).await["purchase"]["total"], total);
    }
}
