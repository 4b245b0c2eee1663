//! Rewards: the catalogue, redemptions and reservations, stock, limits and codes.

use futures_util::future::join_all;
use serde_json::{Value, json};

use windfall::app::recorder::fact::Fact;
use windfall::app::viewer::Viewer;

use crate::support::graphql::{GraphqlApp, admin, customer, on_both, storefront, text};

fn over(mut input: Value, over: Value) -> Value {
    let (Value::Object(fields), Value::Object(over)) = (&mut input, over) else { panic!("an input is an object") };
    fields.extend(over);
    input
}

/// Creates a reward of 10 points and returns its id.
async fn reward(app: &GraphqlApp, fields: Value) -> String {
    let query =
        "mutation($input: RewardInput!) { createReward(input: $input) { reward { id } userErrors { code path } } }";
    let input = over(json!({ "name": "Mug", "cost": 10 }), fields);
    let answer = app.data(&admin(), query, json!({ "input": input })).await;
    assert_eq!(answer["createReward"]["userErrors"], json!([]));
    text(&answer["createReward"]["reward"]["id"])
}

async fn update(app: &GraphqlApp, id: &str, fields: Value) -> Value {
    let query = "mutation($id: ID!, $input: RewardUpdateInput!) { updateReward(id: $id, input: $input) { \
        reward { name cost stock active revision } userErrors { code path } } }";
    app.data(&admin(), query, json!({ "id": id, "input": fields })).await["updateReward"].take()
}

async fn add_codes(app: &GraphqlApp, id: &str, codes: &[&str]) -> Value {
    let query = "mutation($id: ID!, $codes: [String!]!) { addRewardCodes(rewardId: $id, codes: $codes) { \
        reward { codes { unused given } left } added known userErrors { code path } } }";
    app.data(&admin(), query, json!({ "id": id, "codes": codes })).await["addRewardCodes"].take()
}

/// Gives points that neither wait nor expire.
async fn give(app: &GraphqlApp, customer: &str, points: i64) {
    let query = "mutation($input: AdjustPointsInput!) { adjustPoints(input: $input) { userErrors { code } } }";
    let key = format!("{customer} {points}");
    let input = json!({ "customerExternalId": customer, "points": points, "reason": "gift", "idempotencyKey": key });
    assert_eq!(app.data(&admin(), query, json!({ "input": input })).await["adjustPoints"]["userErrors"], json!([]));
}

const FIELDS: &str = "{ redemption { id quantity points state createdAt reservedUntil redeemedAt endedAt codes reason } \
    balance { available reserved } replayed userErrors { code path } }";

async fn act(app: &GraphqlApp, viewer: &Viewer, mutation: &str, fields: Value) -> Value {
    let kind = if mutation == "redeemReward" { "RedeemRewardInput" } else { "ReserveRewardInput" };
    let query = format!("mutation($input: {kind}!) {{ {mutation}(input: $input) {FIELDS} }}");
    let mut answer = app.data(viewer, &query, json!({ "input": fields })).await;
    answer[mutation].take()
}

async fn redeem(app: &GraphqlApp, reward: &str, fields: Value) -> Value {
    let input = over(json!({ "rewardId": reward, "customerExternalId": "ada", "idempotencyKey": "k" }), fields);
    act(app, &storefront(), "redeemReward", input).await
}

async fn reserve(app: &GraphqlApp, reward: &str, fields: Value) -> Value {
    let input = over(json!({ "rewardId": reward, "customerExternalId": "ada", "idempotencyKey": "k" }), fields);
    act(app, &storefront(), "reserveReward", input).await
}

async fn step(app: &GraphqlApp, viewer: &Viewer, mutation: &str, id: &Value) -> Value {
    let query = format!("mutation($id: ID!) {{ {mutation}(id: $id) {FIELDS} }}");
    app.data(viewer, &query, json!({ "id": id })).await[mutation].take()
}

fn codes(answer: &Value) -> Vec<&str> {
    answer["userErrors"].as_array().unwrap().iter().map(|error| error["code"].as_str().unwrap()).collect()
}

async fn left(app: &GraphqlApp, id: &str) -> Value {
    let query = "query($id: ID!) { reward(id: $id) { left } }";
    app.data(&storefront(), query, json!({ "id": id })).await["reward"]["left"].take()
}

async fn ledger(app: &GraphqlApp, customer: &str) -> Vec<(String, i64)> {
    let entries = app.ledger(customer).await;
    entries.iter().map(|entry| (format!("{:?}", entry.kind), entry.points)).collect()
}

on_both! {
    async fn the_catalogue_is_created_read_and_changed(app: &GraphqlApp) {
        let mug = reward(app, json!({ "description": "Blue", "imageUrl": "https://shop.example/mug.png", "stock": 5, "maxPerCustomer": 2,
            "startsAt": "2026-11-01T00:00:00Z", "endsAt": "2026-12-01T00:00:00Z", "selfService": true })).await;
        let query = "query($id: ID!) { reward(id: $id) { id name description imageUrl cost left maxPerCustomer startsAt endsAt active \
            selfService revision stock codes { unused } } }";
        let expected = json!({
            "id": mug, "name": "Mug", "description": "Blue", "imageUrl": "https://shop.example/mug.png", "cost": 10, "left": 5,
            "maxPerCustomer": 2, "startsAt": "2026-11-01T00:00:00Z", "endsAt": "2026-12-01T00:00:00Z", "active": true,
            "selfService": true, "revision": 1, "stock": 5, "codes": null,
        });
        assert_eq!(app.data(&admin(), query, json!({ "id": mug })).await["reward"], expected);
        // What only admins see.
        let seen = app.data(&customer("ada"), query, json!({ "id": mug })).await;
        assert_eq!(seen["reward"], over(expected, json!({ "stock": null })));
        let changed = update(app, &mug, json!({ "ifRevision": 1, "cost": 12, "active": false })).await;
        assert_eq!(changed["reward"], json!({ "name": "Mug", "cost": 12, "stock": 5, "active": false, "revision": 2 }));
        assert_eq!(codes(&update(app, &mug, json!({ "ifRevision": 1, "cost": 1 })).await), ["STALE_REVISION"]);
        assert_eq!(codes(&update(app, &mug, json!({ "ifRevision": 2, "name": null, "cost": 0 })).await), ["REQUIRED", "OUT_OF_RANGE"]);
        assert_eq!(codes(&update(app, "nothing", json!({ "ifRevision": 1 })).await), ["NOT_FOUND"]);
        assert_eq!(app.data(&customer("ada"), query, json!({ "id": mug })).await["reward"], Value::Null);
        let later = reward(app, json!({ "name": "Later", "startsAt": "2026-11-03T00:00:00Z" })).await;
        let now = reward(app, json!({ "name": "Now", "endsAt": "2026-11-02T12:00:01Z" })).await;
        let list = async |viewer: &Viewer, active: Value| {
            let query = "query($active: Boolean) { rewards(active: $active) { nodes { id } } }";
            let answer = app.data(viewer, query, json!({ "active": active })).await;
            answer["rewards"]["nodes"].as_array().unwrap().iter().map(|node| text(&node["id"])).collect::<Vec<_>>()
        };
        assert_eq!(list(&storefront(), Value::Null).await, [now.clone(), later.clone(), mug.clone()]);
        assert_eq!(list(&storefront(), json!(true)).await, [now.clone(), later]);
        assert_eq!(list(&storefront(), json!(false)).await, [mug]);
        assert_eq!(list(&customer("ada"), Value::Null).await, [now]);
        app.set_clock("2026-11-02T12:00:01Z");
        assert!(list(&customer("ada"), Value::Null).await.is_empty());
    }

    async fn a_key_makes_one_reward_and_faults_are_told_with_their_path(app: &GraphqlApp) {
        let query = "mutation($input: RewardInput!, $key: String) { createReward(input: $input, idempotencyKey: $key) { \
            reward { id } userErrors { code path } } }";
        let create = async |input: Value| app.data(&admin(), query, json!({ "input": input, "key": "k" })).await["createReward"].take();
        let first = create(json!({ "name": "Mug", "cost": 10 })).await;
        assert_eq!(create(json!({ "name": "Mug", "cost": 10 })).await, first);
        assert_eq!(codes(&create(json!({ "name": "Mug", "cost": 11 })).await), ["IDEMPOTENCY_CONFLICT"]);
        for (input, code, field) in [
            (json!({ "name": "", "cost": 1 }), "REQUIRED", "name"),
            (json!({ "name": "a", "cost": 0 }), "OUT_OF_RANGE", "cost"),
            (json!({ "name": "a", "cost": 1_000_000_000_001_i64 }), "OUT_OF_RANGE", "cost"),
            (json!({ "name": "a", "cost": 1, "maxPerCustomer": 0 }), "OUT_OF_RANGE", "maxPerCustomer"),
            (json!({ "name": "a", "cost": 1, "imageUrl": "javascript:alert(1)" }), "INVALID", "imageUrl"),
            (json!({ "name": "a", "cost": 1, "startsAt": "2026-11-02T00:00:00Z", "endsAt": "2026-11-02T00:00:00Z" }), "OUT_OF_RANGE", "endsAt"),
        ] {
            assert_eq!(create(input).await["userErrors"], json!([{ "code": code, "path": ["input", field] }]));
        }
    }

    async fn a_redemption_spends_and_a_cancellation_gives_back(app: &GraphqlApp) {
        let mug = reward(app, json!({ "stock": 3 })).await;
        give(app, "ada", 25).await;
        let redeemed = redeem(app, &mug, json!({ "quantity": 2 })).await;
        assert_eq!(over(redeemed["redemption"].clone(), json!({ "id": null })), json!({
            "id": null, "quantity": 2, "points": 20, "state": "REDEEMED", "createdAt": "2026-11-02T12:00:00Z", "reservedUntil": null,
            "redeemedAt": "2026-11-02T12:00:00Z", "endedAt": null, "codes": [], "reason": null,
        }));
        assert_eq!(redeemed["balance"], json!({ "available": 5, "reserved": 0 }));
        assert_eq!(left(app, &mug).await, 1);
        let again = redeem(app, &mug, json!({ "quantity": 2 })).await;
        assert_eq!((&again["replayed"], &again["redemption"]["id"]), (&json!(true), &redeemed["redemption"]["id"]));
        assert_eq!(codes(&redeem(app, &mug, json!({ "quantity": 1 })).await), ["IDEMPOTENCY_CONFLICT"]);
        app.audit_is_clean().await;
        let id = &redeemed["redemption"]["id"];
        let cancelled = step(app, &storefront(), "cancelRedemption", id).await;
        assert_eq!((&cancelled["redemption"]["state"], &cancelled["balance"]["available"]), (&json!("CANCELLED"), &json!(25)));
        assert_eq!(left(app, &mug).await, 3);
        assert_eq!(step(app, &storefront(), "cancelRedemption", id).await["replayed"], true);
        assert_eq!(codes(&step(app, &storefront(), "commitRedemption", id).await), ["ILLEGAL_TRANSITION"]);
        // The replay of a request is answered as things are now.
        assert_eq!(redeem(app, &mug, json!({ "quantity": 2 })).await["redemption"]["state"], "CANCELLED");
        let entries = [("Adjustment", 25), ("Redemption", -20), ("Cancellation", 20)];
        assert_eq!(ledger(app, "ada").await, entries.map(|(kind, points)| (kind.to_owned(), points)));
        let query = "{ customer(by: { externalId: \"ada\" }) { ledger { nodes { kind redemption { points } } } \
            redemptions { nodes { points reward { name } customer { externalId } } } cancelled: redemptions(state: [CANCELLED]) { nodes { points } } \
            none: redemptions(state: [RESERVED, LAPSED, REDEEMED]) { nodes { points } } } }";
        let shown = app.data(&storefront(), query, json!({})).await;
        assert_eq!(shown["customer"], json!({
            "ledger": { "nodes": [
                { "kind": "CANCELLATION", "redemption": { "points": 20 } },
                { "kind": "REDEMPTION", "redemption": { "points": 20 } },
                { "kind": "ADJUSTMENT", "redemption": null },
            ] },
            "redemptions": { "nodes": [{ "points": 20, "reward": { "name": "Mug" }, "customer": { "externalId": "ada" } }] },
            "cancelled": { "nodes": [{ "points": 20 }] }, "none": { "nodes": [] },
        }));
        app.audit_is_clean().await;
    }

    async fn the_first_obstacle_is_told_and_leaves_no_trace(app: &GraphqlApp) {
        let mug = reward(app, json!({ "stock": 3, "maxPerCustomer": 2 })).await;
        let closed = reward(app, json!({ "active": false })).await;
        let dear = reward(app, json!({ "cost": 1_000_000_000_000_i64 })).await;
        for (id, fields, code, field) in [
            (&closed, json!({ "quantity": 9 }), "NOT_FOUND", "rewardId"),
            (&"nothing".to_owned(), json!({}), "NOT_FOUND", "rewardId"),
            (&mug, json!({ "quantity": 9 }), "LIMIT_REACHED", "quantity"),
            (&mug, json!({ "quantity": 1 }), "INSUFFICIENT_POINTS", "quantity"),
            (&mug, json!({ "quantity": 0 }), "OUT_OF_RANGE", "quantity"),
            (&dear, json!({ "quantity": 2 }), "OUT_OF_RANGE", "quantity"),
            (&mug, json!({ "customerExternalId": null }), "REQUIRED", "customerExternalId"),
        ] {
            let refused = redeem(app, id, fields.clone()).await;
            assert_eq!(refused["userErrors"], json!([{ "code": code, "path": ["input", field] }]), "{fields}");
        }
        assert!(app.customer("ada").await.is_none(), "a refusal creates no customer");
        give(app, "ada", 100).await;
        give(app, "bob", 100).await;
        assert_eq!(codes(&redeem(app, &mug, json!({ "quantity": 2 })).await), Vec::<&str>::new());
        let one_more = json!({ "idempotencyKey": "k2" });
        assert_eq!(codes(&redeem(app, &mug, one_more.clone()).await), ["LIMIT_REACHED"]);
        let bob = json!({ "customerExternalId": "bob", "quantity": 2, "idempotencyKey": "k3" });
        assert_eq!(codes(&redeem(app, &mug, bob.clone()).await), ["OUT_OF_STOCK"]);
        // A lower stock takes nothing back; a higher one is there at once.
        assert_eq!(update(app, &mug, json!({ "ifRevision": 1, "stock": 1 })).await["reward"]["stock"], 1);
        assert_eq!(left(app, &mug).await, 0);
        assert_eq!(update(app, &mug, json!({ "ifRevision": 2, "stock": 4 })).await["reward"]["stock"], 4);
        assert_eq!(codes(&redeem(app, &mug, bob).await), Vec::<&str>::new());
        app.audit_is_clean().await;
    }

    async fn a_reservation_is_committed_cancelled_or_over(app: &GraphqlApp) {
        let mug = reward(app, json!({ "stock": 2, "maxPerCustomer": 2 })).await;
        give(app, "ada", 25).await;
        let first = reserve(app, &mug, json!({})).await;
        assert_eq!((&first["redemption"]["state"], &first["balance"]), (&json!("RESERVED"), &json!({ "available": 15, "reserved": 10 })));
        assert_eq!(first["redemption"]["reservedUntil"], "2026-11-02T12:15:00Z");
        let second = reserve(app, &mug, json!({ "idempotencyKey": "k2", "reserveFor": "PT1H" })).await;
        assert_eq!(second["balance"], json!({ "available": 5, "reserved": 20 }));
        assert_eq!(left(app, &mug).await, 0);
        app.audit_is_clean().await;
        // At its end, the first is over, whether or not anybody writes that down.
        app.set_clock("2026-11-02T12:15:00Z");
        let query = "{ customer(by: { externalId: \"ada\" }) { balance { available reserved version } \
            redemptions(state: [LAPSED]) { nodes { state endedAt } } } }";
        let now = app.data(&storefront(), query, json!({})).await;
        assert_eq!(now["customer"]["balance"], json!({ "available": 15, "reserved": 10, "version": 3 }));
        assert_eq!(now["customer"]["redemptions"]["nodes"], json!([{ "state": "LAPSED", "endedAt": "2026-11-02T12:15:00Z" }]));
        assert_eq!(left(app, &mug).await, 1);
        app.audit_is_clean().await;
        // Its unit is free for others, without a write of the first customer.
        give(app, "bob", 10).await;
        let bob = json!({ "customerExternalId": "bob", "idempotencyKey": "k3" });
        assert_eq!(codes(&redeem(app, &mug, bob).await), Vec::<&str>::new());
        assert_eq!(left(app, &mug).await, 0);
        for mutation in ["commitRedemption", "cancelRedemption"] {
            assert_eq!(codes(&step(app, &storefront(), mutation, &first["redemption"]["id"]).await), ["ILLEGAL_TRANSITION"]);
        }
        let committed = step(app, &storefront(), "commitRedemption", &second["redemption"]["id"]).await;
        assert_eq!((&committed["redemption"]["state"], &committed["balance"]), (&json!("REDEEMED"), &json!({ "available": 15, "reserved": 0 })));
        assert_eq!(step(app, &storefront(), "commitRedemption", &second["redemption"]["id"]).await["replayed"], true);
        let third = reserve(app, &mug, json!({ "idempotencyKey": "k4" })).await;
        assert_eq!(codes(&third), ["OUT_OF_STOCK"]);
        app.record(vec![Fact::Expiry("ada".to_owned())]).await;
        app.audit_is_clean().await;
        assert_eq!(ledger(app, "ada").await, [("Adjustment".to_owned(), 25), ("Redemption".to_owned(), -10)]);
    }

    async fn what_is_over_or_cancelled_leaves_the_limit(app: &GraphqlApp) {
        let mug = reward(app, json!({ "maxPerCustomer": 1 })).await;
        give(app, "ada", 100).await;
        let none = Vec::<&str>::new();
        assert_eq!(codes(&reserve(app, &mug, json!({})).await), none);
        app.set_clock("2026-11-02T12:14:59.999999Z");
        assert_eq!(codes(&redeem(app, &mug, json!({ "idempotencyKey": "k2" })).await), ["LIMIT_REACHED"]);
        app.set_clock("2026-11-02T12:15:00Z");
        let redeemed = redeem(app, &mug, json!({ "idempotencyKey": "k3" })).await;
        assert_eq!(codes(&redeemed), none);
        assert_eq!(codes(&redeem(app, &mug, json!({ "idempotencyKey": "k4" })).await), ["LIMIT_REACHED"]);
        step(app, &storefront(), "cancelRedemption", &redeemed["redemption"]["id"]).await;
        assert_eq!(codes(&redeem(app, &mug, json!({ "idempotencyKey": "k5" })).await), none);
        app.audit_is_clean().await;
    }

    async fn codes_are_given_once_and_bound_the_stock(app: &GraphqlApp) {
        let voucher = reward(app, json!({})).await;
        assert_eq!(left(app, &voucher).await, Value::Null);
        let added = add_codes(app, &voucher, &["A", "B", "A", "C"]).await;
        assert_eq!(added, json!({ "reward": { "codes": { "unused": 3, "given": 0 }, "left": 3 }, "added": 3, "known": 1, "userErrors": [] }));
        assert_eq!(add_codes(app, &voucher, &["C"]).await["known"], 1);
        assert_eq!(codes(&add_codes(app, &voucher, &[])  .await), ["OUT_OF_RANGE"]);
        give(app, "ada", 100).await;
        let two = redeem(app, &voucher, json!({ "quantity": 2 })).await;
        assert_eq!(two["redemption"]["codes"], json!(["A", "B"]));
        let held = reserve(app, &voucher, json!({ "idempotencyKey": "k2" })).await;
        assert_eq!((&held["redemption"]["codes"], left(app, &voucher).await), (&json!([]), json!(0)));
        assert_eq!(codes(&redeem(app, &voucher, json!({ "idempotencyKey": "k3" })).await), ["OUT_OF_STOCK"]);
        // Codes that were shown do not return, and a reservation has seen none.
        step(app, &storefront(), "cancelRedemption", &two["redemption"]["id"]).await;
        assert_eq!(left(app, &voucher).await, 0);
        step(app, &storefront(), "cancelRedemption", &held["redemption"]["id"]).await;
        assert_eq!(left(app, &voucher).await, 1);
        let last = reserve(app, &voucher, json!({ "idempotencyKey": "k4" })).await;
        let committed = step(app, &storefront(), "commitRedemption", &last["redemption"]["id"]).await;
        assert_eq!(committed["redemption"]["codes"], json!(["C"]));
        app.audit_is_clean().await;
    }

    async fn a_customer_helps_itself_where_the_reward_says_so(app: &GraphqlApp) {
        let own = reward(app, json!({ "selfService": true })).await;
        let asked = reward(app, json!({ "name": "Asked" })).await;
        give(app, "ada", 100).await;
        let ada = customer("ada");
        let query = format!("mutation($input: RedeemRewardInput!) {{ redeemReward(input: $input) {FIELDS} }}");
        let input = |reward: &str, who: Value, key: &str| json!({ "input": { "rewardId": reward, "customerExternalId": who, "idempotencyKey": key } });
        assert_eq!(app.codes(&ada, &query, input(&asked, Value::Null, "a")).await, ["FORBIDDEN"]);
        let others = app.data(&ada, &query, input(&own, json!("bob"), "b")).await;
        assert_eq!(others["redeemReward"]["userErrors"], json!([{ "code": "NOT_FOUND", "path": ["input", "customerExternalId"] }]));
        let redeemed = app.data(&ada, &query, input(&own, Value::Null, "c")).await["redeemReward"].take();
        assert_eq!(redeemed["redemption"]["state"], "REDEEMED");
        let id = redeemed["redemption"]["id"].clone();
        assert_eq!(codes(&step(app, &ada, "cancelRedemption", &id).await), ["ILLEGAL_TRANSITION"]);
        for who in [customer("bob"), customer("eve")] {
            assert_eq!(codes(&step(app, &who, "cancelRedemption", &id).await), ["NOT_FOUND"]);
            let query = "query($id: ID!) { node(id: $id) { id } }";
            assert_eq!(app.data(&who, query, json!({ "id": id })).await["node"], Value::Null);
        }
        let held = act(app, &ada, "reserveReward", json!({ "rewardId": own, "idempotencyKey": "d" })).await;
        assert_eq!(step(app, &ada, "cancelRedemption", &held["redemption"]["id"]).await["redemption"]["state"], "CANCELLED");
        let held = act(app, &ada, "reserveReward", json!({ "rewardId": own, "idempotencyKey": "e" })).await;
        assert_eq!(step(app, &ada, "commitRedemption", &held["redemption"]["id"]).await["redemption"]["state"], "REDEEMED");
        assert_eq!(app.codes(&Viewer::Anonymous, &query, input(&own, Value::Null, "f")).await, ["UNAUTHENTICATED"]);
        app.audit_is_clean().await;
    }

    async fn sixty_four_redeemers_get_five(app: &GraphqlApp) {
        let mug = reward(app, json!({ "stock": 5 })).await;
        let names: Vec<String> = (0..64).map(|n| format!("c{n}")).collect();
        for name in &names {
            give(app, name, 10).await;
        }
        let redeem = async |name: &String| redeem(app, &mug, json!({ "customerExternalId": name, "idempotencyKey": name })).await;
        let answers = join_all(names.iter().map(redeem)).await;
        let refused: Vec<_> = answers.iter().flat_map(codes).collect();
        assert_eq!((refused.len(), left(app, &mug).await), (59, json!(0)));
        assert!(refused.iter().all(|code| *code == "OUT_OF_STOCK"));
        app.audit_is_clean().await;
    }

    /// Whatever comes first: nothing is spent twice.
    async fn a_redemption_races_a_return_and_another_redemption(app: &GraphqlApp) {
        let mug = reward(app, json!({ "cost": 30 })).await;
        app.campaign(json!({ "startsAt": "2026-10-01T00:00:00Z", "goal": { "everyPurchase": "EACH" },
            "award": { "pointsPerUnit": "1" }, "expiresAfter": "PT2H" })).await;
        let refund = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { userErrors { code } } }";
        for round in 0..8 {
            let (who, order) = (format!("c{round}"), format!("p{round}"));
            app.purchase(&order, &who, "2026-11-02T11:30:00Z", "50").await;
            let fields = |key: &str| json!({ "customerExternalId": who, "idempotencyKey": format!("{who}{key}") });
            let returned = json!({ "externalId": order, "purchaseExternalId": order, "refundedAt": "2026-11-02T12:00:00Z", "amount": "30" });
            let shop = storefront();
            let (one, other, _) = tokio::join!(
                redeem(app, &mug, fields("a")),
                redeem(app, &mug, fields("b")),
                app.data(&shop, refund, json!({ "input": returned })),
            );
            let spent = [&one, &other].iter().filter(|answer| codes(answer).is_empty()).count();
            assert!(spent <= 1, "{one} {other}");
            let query = "query($who: String!) { customer(by: { externalId: $who }) { balance { available } } }";
            let now = app.data(&storefront(), query, json!({ "who": who })).await;
            let expected = 20 - 30 * i64::try_from(spent).unwrap();
            assert_eq!(now["customer"]["balance"]["available"], expected);
        }
        app.audit_is_clean().await;
    }

    /// Named cases of a redemption whose points were returned or expire meanwhile.
    async fn points_that_are_gone_come_back_to_what_is_left_of_them(app: &GraphqlApp) {
        let mug = reward(app, json!({ "cost": 50 })).await;
        app.campaign(json!({ "startsAt": "2026-10-01T00:00:00Z", "goal": { "everyPurchase": "EACH" },
            "award": { "pointsPerUnit": "1" }, "expiresAfter": "PT2H" })).await;
        let available = async || app.data(&storefront(), "{ customer(by: { externalId: \"ada\" }) { balance { available reserved } } }", json!({}))
            .await["customer"]["balance"].take();
        // The order whose points were spent is returned: a deficit. Cancelling the redemption covers it.
        app.purchase("p", "ada", "2026-11-02T11:30:00Z", "50").await;
        let redeemed = redeem(app, &mug, json!({})).await;
        let refund = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { userErrors { code } } }";
        let returned = json!({ "externalId": "r", "purchaseExternalId": "p", "refundedAt": "2026-11-02T12:00:00Z" });
        app.data(&storefront(), refund, json!({ "input": returned })).await;
        assert_eq!(available().await["available"], -50);
        step(app, &storefront(), "cancelRedemption", &redeemed["redemption"]["id"]).await;
        assert_eq!(available().await["available"], 0);
        app.audit_is_clean().await;
        // A lot expires under a reservation: what comes back is past its expiry, and gone.
        app.purchase("q", "ada", "2026-11-02T11:40:00Z", "60").await;
        let held = reserve(app, &mug, json!({ "idempotencyKey": "k2", "reserveFor": "P1D" })).await;
        app.set_clock("2026-11-02T13:40:00Z");
        assert_eq!(available().await, json!({ "available": 0, "reserved": 50 }));
        app.audit_is_clean().await;
        step(app, &storefront(), "cancelRedemption", &held["redemption"]["id"]).await;
        assert_eq!(available().await, json!({ "available": 0, "reserved": 0 }));
        app.audit_is_clean().await;
        let kinds: Vec<(String, i64)> = ledger(app, "ada").await.into_iter().skip(4).collect();
        let expected = [("Award", 60), ("Expiry", -10), ("Expiry", -50)];
        assert_eq!(kinds, expected.map(|(kind, points)| (kind.to_owned(), points)));
        // A reservation that is committed after its lot expired is spent.
        app.purchase("s", "ada", "2026-11-02T13:00:00Z", "50").await;
        let held = reserve(app, &mug, json!({ "idempotencyKey": "k3", "reserveFor": "P1D" })).await;
        app.set_clock("2026-11-02T16:00:00Z");
        let spent = step(app, &storefront(), "commitRedemption", &held["redemption"]["id"]).await;
        assert_eq!((&spent["redemption"]["state"], &spent["balance"]), (&json!("REDEEMED"), &json!({ "available": 0, "reserved": 0 })));
        app.audit_is_clean().await;
    }
}
