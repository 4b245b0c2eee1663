//! The life of a point: pending, available, expired, and what returns and late changes do to points that are spent or gone.

use serde_json::{Value, json};

use windfall::app::recorder::fact::Fact;

use crate::support::graphql::{GraphqlApp, admin, on_both, storefront};

/// A campaign with one point for each euro of every purchase.
async fn per_euro(app: &GraphqlApp, over: Value) {
    let mut input = json!({ "startsAt": "2026-10-01T00:00:00Z", "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" } });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    app.campaign(input).await;
}

async fn balance(app: &GraphqlApp) -> Value {
    let query = "{ customer(by: { externalId: \"ada\" }) { balance { available pending reserved lifetime asOf version \
        expiringNext { points at } maturingNext { points at } day: expiring(within: \"P1D\") hour: expiring(within: \"PT1H\") } } }";
    app.data(&storefront(), query, json!({})).await["customer"]["balance"].take()
}

/// What is available and pending.
async fn points(app: &GraphqlApp) -> (i64, i64) {
    let balance = balance(app).await;
    (balance["available"].as_i64().unwrap(), balance["pending"].as_i64().unwrap())
}

/// The kinds and points of the entries, oldest first.
async fn ledger(app: &GraphqlApp) -> Vec<(String, i64)> {
    let query = "{ customer(by: { externalId: \"ada\" }) { ledger(first: 100) { nodes { kind points } } } }";
    let answer = app.data(&storefront(), query, json!({})).await;
    let entries = answer["customer"]["ledger"]["nodes"].as_array().cloned().unwrap_or_default().into_iter().rev();
    entries.map(|entry| (entry["kind"].as_str().unwrap().to_owned(), entry["points"].as_i64().unwrap())).collect()
}

fn entries(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|(kind, points)| ((*kind).to_owned(), *points)).collect()
}

async fn adjust(app: &GraphqlApp, points: i64, over: Value) -> Value {
    let query = "mutation($input: AdjustPointsInput!) { adjustPoints(input: $input) { entry { points expiresAt } \
        balance { available } replayed userErrors { code path message } } }";
    let key = format!("{points} {over} {}", ledger(app).await.len());
    let mut input = json!({ "customerExternalId": "ada", "points": points, "reason": "test", "idempotencyKey": key });
    input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    app.data(&admin(), query, json!({ "input": input })).await["adjustPoints"].take()
}

/// Spends points, as a redemption would.
async fn spend(app: &GraphqlApp, points: i64) {
    let answer = adjust(app, -points, json!({ "allowNegative": false })).await;
    assert_eq!(answer["userErrors"], json!([]));
}

async fn refund(app: &GraphqlApp, purchase: &str, amount: &str) {
    let query = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { userErrors { code } } }";
    let input = json!({ "externalId": format!("{purchase} {amount} {}", ledger(app).await.len()), "purchaseExternalId": purchase,
        "refundedAt": "2026-11-02T12:00:00Z", "amount": amount });
    let answer = app.data(&storefront(), query, json!({ "input": input })).await;
    assert_eq!(answer["recordRefund"]["userErrors"], json!([]));
}

async fn revise(app: &GraphqlApp, purchase: &str, revision: i64, at: &str, total: &str) {
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
    let input = json!({ "externalId": purchase, "customerExternalId": "ada", "purchasedAt": at, "total": total, "currency": "EUR",
        "revision": revision });
    let answer = app.data(&storefront(), query, json!({ "input": input })).await;
    assert_eq!(answer["recordPurchase"]["userErrors"], json!([]));
}

async fn post_due(app: &GraphqlApp) {
    app.record(vec![Fact::Expiry("ada".to_owned())]).await;
}

on_both! {
    async fn points_wait_can_be_spent_and_are_gone(app: &GraphqlApp) {
        per_euro(app, json!({ "holdFor": "PT1H", "expiresAfter": "PT2H" })).await;
        app.purchase("p", "ada", "2026-11-02T11:30:00Z", "100").await;
        let now = balance(app).await;
        let (matures, expires) = ("2026-11-02T12:30:00Z", "2026-11-02T14:30:00Z");
        assert_eq!(now, json!({
            "available": 0, "pending": 100, "reserved": 0, "lifetime": 100, "asOf": "2026-11-02T12:00:00Z", "version": 1,
            "expiringNext": null, "maturingNext": { "points": 100, "at": matures }, "day": 0, "hour": 0,
        }));
        app.set_clock("2026-11-02T12:29:59.999999Z");
        assert_eq!(points(app).await, (0, 100));
        app.set_clock(matures);
        let now = balance(app).await;
        assert_eq!(now, json!({
            "available": 100, "pending": 0, "reserved": 0, "lifetime": 100, "asOf": matures, "version": 1,
            "expiringNext": { "points": 100, "at": expires }, "maturingNext": null, "day": 100, "hour": 0,
        }));
        app.set_clock("2026-11-02T14:29:59.999999Z");
        assert_eq!(balance(app).await["hour"], 100);
        app.set_clock(expires);
        assert_eq!((points(app).await, balance(app).await["version"].take()), ((0, 0), json!(1)));
        assert_eq!(ledger(app).await, entries(&[("AWARD", 100)]));
        app.audit_is_clean().await;
        for _ in 0..2 {
            post_due(app).await;
            assert_eq!((points(app).await, balance(app).await["version"].take()), ((0, 0), json!(2)));
            assert_eq!(ledger(app).await, entries(&[("AWARD", 100), ("EXPIRY", -100)]));
        }
        let query = "{ customer(by: { externalId: \"ada\" }) { awards { nodes { status availableAt expiresAt } } \
            ledger { nodes { kind availableAt expiresAt award { points } balanceAfter } } } }";
        assert_eq!(app.data(&storefront(), query, json!({})).await["customer"], json!({
            "awards": { "nodes": [{ "status": "STANDING", "availableAt": matures, "expiresAt": expires }] },
            "ledger": { "nodes": [
                { "kind": "EXPIRY", "availableAt": null, "expiresAt": expires, "award": null, "balanceAfter": 0 },
                { "kind": "AWARD", "availableAt": matures, "expiresAt": expires, "award": { "points": 100 }, "balanceAfter": 100 },
            ] },
        }));
        app.audit_is_clean().await;
    }

    async fn days_end_with_the_local_day(app: &GraphqlApp) {
        per_euro(app, json!({ "timeZone": "Europe/Vienna", "holdFor": "P1D", "expiresAfter": "P7D" })).await;
        app.purchase("p", "ada", "2026-11-02T08:00:00Z", "30").await;
        app.purchase("q", "ada", "2026-11-02T11:00:00Z", "12").await;
        assert_eq!(balance(app).await["maturingNext"], json!({ "points": 42, "at": "2026-11-03T23:00:00Z" }));
        app.set_clock("2026-11-04T00:00:00Z");
        assert_eq!(balance(app).await["expiringNext"], json!({ "points": 42, "at": "2026-11-10T23:00:00Z" }));
        post_due(app).await;
        assert_eq!(app.lots("ada").await, [("2026-11-10T23:00:00Z".to_owned(), [42, 0, 0, 0])]);
        app.audit_is_clean().await;
    }

    async fn a_return_takes_what_had_expired_then_what_is_left_then_what_is_spent(app: &GraphqlApp) {
        per_euro(app, json!({ "expiresAfter": "PT2H" })).await;
        app.purchase("p", "ada", "2026-11-02T11:30:00Z", "100").await;
        spend(app, 60).await;
        app.set_clock("2026-11-02T13:30:00Z");
        assert_eq!(points(app).await, (0, 0));
        refund(app, "p", "30").await;
        let mut expected = vec![("AWARD", 100), ("ADJUSTMENT", -60), ("EXPIRY", -40), ("EXPIRY", 30), ("REVERSAL", -30)];
        assert_eq!((points(app).await, ledger(app).await), ((0, 0), entries(&expected)));
        refund(app, "p", "30").await;
        expected.extend([("EXPIRY", 10), ("REVERSAL", -30)]);
        assert_eq!((points(app).await, ledger(app).await), ((-20, 0), entries(&expected)));
        app.audit_is_clean().await;
    }

    async fn an_award_that_is_part_spent_moves_by_a_second(app: &GraphqlApp) {
        per_euro(app, json!({ "expiresAfter": "PT2H" })).await;
        app.purchase("p", "ada", "2026-11-02T11:30:00Z", "100").await;
        spend(app, 60).await;
        revise(app, "p", 1, "2026-11-02T11:30:01Z", "100").await;
        let mut expected = vec![("AWARD", 100), ("ADJUSTMENT", -60), ("REVERSAL", -100), ("AWARD", 100)];
        assert_eq!((points(app).await, ledger(app).await), ((40, 0), entries(&expected)));
        assert_eq!(balance(app).await["expiringNext"], json!({ "points": 40, "at": "2026-11-02T13:30:01Z" }));
        // It grows: nothing of what is spent is touched.
        revise(app, "p", 2, "2026-11-02T11:30:01Z", "120").await;
        expected.push(("AWARD", 20));
        assert_eq!((points(app).await, ledger(app).await), ((60, 0), entries(&expected)));
        // It shrinks and moves at once, and grows and moves at once.
        revise(app, "p", 3, "2026-11-02T11:30:02Z", "100").await;
        expected.extend([("REVERSAL", -20), ("REVERSAL", -100), ("AWARD", 100)]);
        assert_eq!((points(app).await, ledger(app).await), ((40, 0), entries(&expected)));
        revise(app, "p", 4, "2026-11-02T11:30:03Z", "110").await;
        expected.extend([("REVERSAL", -100), ("AWARD", 100), ("AWARD", 10)]);
        assert_eq!((points(app).await, ledger(app).await), ((50, 0), entries(&expected)));
        app.audit_is_clean().await;
        // What was spent went along, so a return of all of it leaves a deficit.
        refund(app, "p", "110").await;
        assert_eq!(points(app).await, (-60, 0));
        app.audit_is_clean().await;
    }

    async fn what_comes_in_past_its_expiry_covers_the_deficit_first(app: &GraphqlApp) {
        per_euro(app, json!({ "expiresAfter": "PT1H" })).await;
        adjust(app, -30, json!({})).await;
        app.purchase("p", "ada", "2026-11-01T12:00:00Z", "100").await;
        assert_eq!(ledger(app).await, entries(&[("ADJUSTMENT", -30), ("AWARD", 100), ("EXPIRY", -70)]));
        assert_eq!(points(app).await, (0, 0));
        app.audit_is_clean().await;
        // A return gets back what had expired, and the rest was spent.
        refund(app, "p", "100").await;
        assert_eq!(points(app).await, (-30, 0));
        app.audit_is_clean().await;
    }

    async fn points_that_mature_cover_the_deficit_at_that_instant(app: &GraphqlApp) {
        per_euro(app, json!({ "holdFor": "PT1H" })).await;
        app.purchase("p", "ada", "2026-11-02T11:30:00Z", "50").await;
        adjust(app, -30, json!({})).await;
        assert_eq!(points(app).await, (-30, 50));
        app.set_clock("2026-11-02T12:30:00Z");
        assert_eq!(points(app).await, (20, 0));
        app.audit_is_clean().await;
        post_due(app).await;
        assert_eq!((points(app).await, app.lots("ada").await.len()), ((20, 0), 0));
        app.audit_is_clean().await;
    }

    async fn of_two_awards_in_a_half_spent_lot_one_moves_to_an_earlier_day(app: &GraphqlApp) {
        two_awards_half_spent(app).await;
        revise(app, "p", 1, "2026-11-01T11:00:00Z", "50").await;
        // What is spent went along.
        assert_eq!(balance(app).await["expiringNext"], json!({ "points": 50, "at": "2026-11-13T00:00:00Z" }));
        refund(app, "p", "50").await;
        assert_eq!(points(app).await, (0, 0));
        assert_eq!(app.lots("ada").await, [("2026-11-13T00:00:00Z".to_owned(), [0, 0, 50, 0])]);
        app.audit_is_clean().await;
    }

    async fn of_two_awards_in_a_half_spent_lot_one_moves_to_a_later_day(app: &GraphqlApp) {
        two_awards_half_spent(app).await;
        app.set_clock("2026-11-03T12:00:00Z");
        revise(app, "p", 1, "2026-11-03T11:00:00Z", "50").await;
        assert_eq!(balance(app).await["expiringNext"], json!({ "points": 50, "at": "2026-11-14T00:00:00Z" }));
        refund(app, "q", "50").await;
        // What q gave is spent, so the return is paid by what p gave.
        assert_eq!(points(app).await, (0, 0));
        app.audit_is_clean().await;
    }

    async fn of_two_awards_in_a_half_spent_lot_one_is_returned(app: &GraphqlApp) {
        two_awards_half_spent(app).await;
        refund(app, "p", "50").await;
        assert_eq!(points(app).await, (0, 0));
        assert_eq!(app.lots("ada").await, [("2026-11-13T00:00:00Z".to_owned(), [0, 0, 50, 0])]);
        app.audit_is_clean().await;
    }

    async fn of_two_awards_in_a_half_spent_lot_one_is_cancelled_and_placed_again(app: &GraphqlApp) {
        two_awards_half_spent(app).await;
        revise(app, "p", 1, "2026-11-02T11:00:00Z", "0").await;
        assert_eq!(points(app).await, (0, 0));
        revise(app, "p", 2, "2026-11-02T11:00:00Z", "50").await;
        assert_eq!(points(app).await, (50, 0));
        assert_eq!(app.lots("ada").await, [("2026-11-13T00:00:00Z".to_owned(), [50, 0, 50, 0])]);
        app.audit_is_clean().await;
    }

    async fn adjustments_expire_and_may_be_bounded_by_what_is_there(app: &GraphqlApp) {
        adjust(app, 30, json!({})).await;
        let given = adjust(app, 50, json!({ "expiresAt": "2026-11-02T13:00:00Z", "idempotencyKey": "k" })).await;
        assert_eq!(given["entry"], json!({ "points": 50, "expiresAt": "2026-11-02T13:00:00Z" }));
        // The lot goes before the pool.
        spend(app, 40).await;
        assert_eq!(balance(app).await["expiringNext"], json!({ "points": 10, "at": "2026-11-02T13:00:00Z" }));
        for (points, over, code, field) in [
            (-41, json!({ "allowNegative": false }), "INSUFFICIENT_POINTS", "points"),
            (5, json!({ "expiresAt": "2026-11-02T12:00:00Z" }), "BOUNDARY_IN_PAST", "expiresAt"),
            (-5, json!({ "expiresAt": "2026-11-03T12:00:00Z" }), "INVALID", "expiresAt"),
            (50, json!({ "idempotencyKey": "k" }), "IDEMPOTENCY_CONFLICT", "expiresAt"),
        ] {
            let answer = adjust(app, points, over).await;
            assert_eq!((&answer["userErrors"][0]["code"], &answer["userErrors"][0]["path"][1]), (&json!(code), &json!(field)));
            assert_eq!(answer["entry"], Value::Null);
        }
        app.set_clock("2026-11-02T13:00:00Z");
        assert_eq!(points(app).await, (30, 0));
        // A refusal leaves no trace, so its key is free. What was recorded is answered as before.
        let bounded = json!({ "allowNegative": false, "idempotencyKey": "bounded" });
        assert_eq!(adjust(app, -31, bounded.clone()).await["userErrors"][0]["code"], "INSUFFICIENT_POINTS");
        assert_eq!(adjust(app, -30, bounded).await["balance"]["available"], 0);
        let again = adjust(app, 50, json!({ "expiresAt": "2026-11-02T13:00:00Z", "idempotencyKey": "k" })).await;
        assert_eq!((&again["replayed"], &again["userErrors"]), (&json!(true), &json!([])));
        app.audit_is_clean().await;
    }

    async fn a_clock_that_goes_back_takes_nothing_back(app: &GraphqlApp) {
        per_euro(app, json!({ "holdFor": "PT1H", "expiresAfter": "PT1H" })).await;
        app.purchase("p", "ada", "2026-11-02T11:30:00Z", "100").await;
        app.set_clock("2026-11-02T12:30:00Z");
        app.purchase("q", "ada", "2026-11-02T12:30:00Z", "1").await;
        app.set_clock("2026-11-02T12:29:55Z");
        let now = balance(app).await;
        assert_eq!((&now["available"], &now["pending"], &now["asOf"]), (&json!(100), &json!(1), &json!("2026-11-02T12:30:00Z")));
        spend(app, 100).await;
        assert_eq!(points(app).await, (0, 1));
        app.audit_is_clean().await;
    }

    async fn what_is_due_in_hundreds_is_posted_before_anything_else(app: &GraphqlApp) {
        per_euro(app, json!({ "expiresAfter": "PT1H" })).await;
        let bought = (0..1_100).map(|n| app.buy_fact("ada", &format!("p{n}"), crate::support::app::NOW - 60_000_000 + n, "1"));
        app.record(bought.collect()).await;
        assert_eq!(points(app).await, (1_100, 0));
        assert_eq!(balance(app).await["hour"], 1_100);
        app.set_clock("2026-11-02T13:00:00Z");
        assert_eq!(points(app).await, (0, 0));
        app.purchase("q", "ada", "2026-11-02T13:00:00Z", "5").await;
        assert_eq!(points(app).await, (5, 0));
        let posted = app.ledger("ada").await;
        let expired: Vec<i64> = posted.iter().filter(|entry| entry.points < 0).map(|entry| entry.version).collect();
        assert_eq!(expired.len(), 1_100);
        for version in &expired {
            assert!(expired.iter().filter(|other| *other == version).count() <= 500);
        }
        app.audit_is_clean().await;
    }
}

/// Two awards of 50 points that expire on the same day, of which 50 points are spent.
async fn two_awards_half_spent(app: &GraphqlApp) {
    per_euro(app, json!({ "expiresAfter": "P10D" })).await;
    app.purchase("p", "ada", "2026-11-02T11:00:00Z", "50").await;
    app.purchase("q", "ada", "2026-11-02T11:30:00Z", "50").await;
    spend(app, 50).await;
    assert_eq!(app.lots("ada").await, [("2026-11-13T00:00:00Z".to_owned(), [50, 0, 50, 0])]);
    app.audit_is_clean().await;
}
