//! What the audit says of lots, redemptions and stock that somebody tampered with, and what a repair does about it.

use serde_json::json;

use crate::support::app::{ENGINES, TestApp};
use crate::support::graphql::{GraphqlApp, admin, storefront, text};

use super::{repair, tamper, texts};

/// A customer with a lot that expired, one that is half spent, a redemption with a code and a reservation.
async fn with_points(test: TestApp) -> GraphqlApp {
    let app = GraphqlApp::of(test);
    let timed =
        json!({ "goal": { "everyPurchase": "EACH" }, "award": { "pointsPerUnit": "1" }, "expiresAfter": "PT2H" });
    app.campaign(timed).await;
    app.purchase("p", "ada", "2026-11-02T09:00:00Z", "5").await;
    app.purchase("q", "ada", "2026-11-02T11:00:00Z", "50").await;
    let create = "mutation { createReward(input: {name: \"Mug\", cost: 10, stock: 9}) { reward { id } } }";
    let mug = text(&app.data(&admin(), create, json!({})).await["createReward"]["reward"]["id"]);
    let add = "mutation($id: ID!) { addRewardCodes(rewardId: $id, codes: [\"A\", \"B\", \"C\"]) { added } }";
    app.data(&admin(), add, json!({ "id": mug })).await;
    let redeem = "mutation($id: ID!) { redeemReward(input: {rewardId: $id, customerExternalId: \"ada\", idempotencyKey: \"a\"}) { \
        userErrors { code } } reserveReward(input: {rewardId: $id, customerExternalId: \"ada\", idempotencyKey: \"b\"}) { \
        userErrors { code } } }";
    app.data(&storefront(), redeem, json!({ "id": mug })).await;
    app.audit_is_clean().await;
    app
}

/// A statement, what the audit says of it, and what it still says after a repair.
const CASES: [(&str, &str, &str); 11] = [
    ("UPDATE lot SET \"left\" = \"left\" + 1 WHERE \"left\" > 0", "lot from now until 2026-11-02T13:00:00Z", ""),
    ("DELETE FROM lot", "recorded none", ""),
    ("UPDATE lot SET spent = spent + 1 WHERE expired > 0", "lot from now until 2026-11-02T11:00:00Z", ""),
    ("UPDATE stock SET redeemed = 7", "redeemed units of reward 1 (Mug): recorded 7, expected 1", ""),
    ("UPDATE stock SET reserved = 0", "reserved units of reward 1 (Mug): recorded 0, expected 1", ""),
    ("UPDATE stock SET codes_unused = 9", "unused codes of reward 1 (Mug): recorded 9, expected 2", ""),
    ("UPDATE customer SET due_at = NULL", "next change of points", ""),
    ("UPDATE award SET expires_at = expires_at + 1 WHERE number = 2", "expiring at 2026-11-02T13:00:00.000001Z", ""),
    // What is recorded as it happens stays.
    (
        "UPDATE taking SET points = points + 1 WHERE redemption_number = 1",
        "points taken by redemption 1: recorded 11",
        "redemption 1",
    ),
    (
        "INSERT INTO taking VALUES (99, 1, 1, 1)",
        "rows of the table taking without a customer",
        "rows of the table taking",
    ),
    (
        "UPDATE ledger_entry SET points = -4 WHERE kind = 'expiry'",
        "expiry up to ledger entry 2: recorded -4, expected -5",
        "expiry up to",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_that_were_tampered_with_are_told_and_mended() {
    for engine in ENGINES {
        for (sql, told, left) in CASES {
            let app = with_points(TestApp::start(engine).await).await;
            let before = app.customer("ada").await.unwrap();
            tamper(&app, sql).await;
            let found = texts(&app.audit().await);
            assert!(found.iter().any(|text| text.contains(told)), "{engine:?} {sql}: {found:#?}");
            repair(&app).await;
            let found = texts(&app.audit().await);
            assert!(
                found.iter().all(|text| !left.is_empty() && text.contains(left) || text.contains("balance")),
                "{sql}: {found:#?}"
            );
            assert_eq!(found.is_empty(), left.is_empty(), "{engine:?} {sql}: {found:#?}");
            if left.is_empty() {
                let after = app.customer("ada").await.unwrap();
                assert_eq!((after.balance, after.due_at), (before.balance, before.due_at), "{engine:?} {sql}");
            }
        }
    }
}

/// Awards of this campaign have no dates. One that somebody gave a date loses it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_date_that_should_not_be_there_goes() {
    for engine in ENGINES {
        let app = GraphqlApp::of(TestApp::start(engine).await);
        app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        app.purchase("p", "ada", "2026-11-02T09:00:00Z", "5").await;
        tamper(&app, "UPDATE award SET expires_at = 1893456000000000").await;
        assert!(!app.audit().await.is_empty(), "{engine:?}");
        repair(&app).await;
        app.audit_is_clean().await;
        assert_eq!(app.awards("ada").await[0].expires_at, None, "{engine:?}");
    }
}
