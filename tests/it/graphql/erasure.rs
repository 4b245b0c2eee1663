//! Erasures of customers: what goes, what stays, and what becomes of what is sent afterwards.

use entity::{CustomerId, JobKind, JobState, job};
use sea_orm::{ConnectionTrait as _, DatabaseBackend, EntityTrait as _, Statement};
use serde_json::{Value, json};
use windfall::app::jobs::{periodic, runner};
use windfall::engine::external_id::is_erased;

use super::export::{adjust, buy, everything, redeem, refund};
use super::trail::{repair, sabotage};
use crate::support::graphql::{GraphqlApp, admin, codes, customer, on_both, storefront, text};

const ERASE: &str = "mutation($id: String!, $confirmed: String!) { eraseCustomer(externalId: $id, confirmExternalId: $confirmed) { \
    job { id kind state subject { __typename } } userErrors { path code } } }";

/// Of the orders of [`everything`], those of ada contain this name. So do those that bob has now.
const ADA: &str = "ada-7c1e";
/// The ids of orders, and of their refunds, that were ada's first and are bob's now.
const NOW_BOBS: [&str; 4] = ["ada-7c1e-lost", "ada-7c1e-before", "ada-7c1e-after", "ada-7c1e-outdated"];
/// The ids that were bob's first and are ada's now, so that they go with her, and the refunds of that time.
const NOW_ADAS: [&str; 3] = ["bob-41d9-lost", "bob-41d9-after", "bob-41d9-outdated"];

async fn request(app: &GraphqlApp, name: &str) -> Value {
    app.data(&admin(), ERASE, json!({ "id": name, "confirmed": name })).await["eraseCustomer"].take()
}

/// Erases a customer. Returns its key.
async fn erase(app: &GraphqlApp, name: &str) -> CustomerId {
    let id = app.customer(name).await.unwrap().id;
    assert_eq!(request(app, name).await["userErrors"], json!([]));
    runner::run_due(&app.app).await.unwrap();
    assert_eq!(erasure(app).await.state, JobState::Done);
    id
}

/// The job of the only erasure.
async fn erasure(app: &GraphqlApp) -> job::Model {
    let jobs = job::Entity::find().all(app.app.database.read()).await.unwrap();
    jobs.into_iter().find(|job| job.kind == JobKind::Erasure).unwrap()
}

async fn rows(app: &GraphqlApp, sql: &str) -> Vec<sea_orm::QueryResult> {
    let db = app.app.database.read();
    db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap()
}

/// Every value in the database, whatever its table, as text.
async fn all_values(app: &GraphqlApp) -> Vec<String> {
    let postgres = app.app.database.backend() == DatabaseBackend::Postgres;
    let columns = if postgres {
        "SELECT table_name::text AS name, column_name::text AS part, (data_type = 'bytea') AS is_bytes \
         FROM information_schema.columns WHERE table_schema = 'public'"
    } else {
        "SELECT m.name AS name, c.name AS part, false AS is_bytes FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c \
         WHERE m.type = 'table'"
    };
    let mut values = Vec::new();
    for row in rows(app, columns).await {
        let (table, column): (String, String) = (row.try_get("", "name").unwrap(), row.try_get("", "part").unwrap());
        let bytes = match (postgres, row.try_get::<bool>("", "is_bytes").unwrap()) {
            (false, _) => format!("CAST(\"{column}\" AS BLOB)"),
            (true, true) => format!("\"{column}\""),
            (true, false) => format!("convert_to(\"{column}\"::text, 'UTF8')"),
        };
        let found =
            rows(app, &format!("SELECT {bytes} AS bytes FROM \"{table}\" WHERE \"{column}\" IS NOT NULL")).await;
        let value = |row: &sea_orm::QueryResult| {
            let bytes: Vec<u8> = row.try_get("", "bytes").unwrap();
            format!("{table}.{column}: {}", String::from_utf8_lossy(&bytes))
        };
        values.extend(found.iter().map(value));
    }
    assert!(values.len() > 500, "{}", values.len());
    values
}

/// The values that contain a name of ada.
async fn traces(app: &GraphqlApp) -> Vec<String> {
    let mut values = all_values(app).await;
    for value in &mut values {
        NOW_BOBS.iter().for_each(|id| *value = value.replace(id, ""));
    }
    values.retain(|value| value.contains(ADA) || NOW_ADAS.iter().any(|id| value.contains(id)));
    values
}

/// What must stay: sums over all customers, and the points of one customer.
async fn sums(app: &GraphqlApp, id: CustomerId) -> Value {
    let stats = "{ campaigns(first: 9) { nodes { name budgetExhausted stats { awards customers pointsStanding pointsDeclined budgetLeft } } } \
        rewards(first: 9) { nodes { name stock codes { unused given } } } }";
    let all = app.data(&admin(), stats, json!({})).await;
    let own = |sql: &str| sql.replace("{id}", &id.0.to_string());
    let mut of_customer = Vec::new();
    for (sql, column) in [
        ("SELECT balance AS n FROM customer WHERE id = {id}", "n"),
        ("SELECT lifetime AS n FROM customer WHERE id = {id}", "n"),
        ("SELECT points AS n FROM ledger_entry WHERE customer_id = {id} ORDER BY sequence", "n"),
        ("SELECT balance_after AS n FROM ledger_entry WHERE customer_id = {id} ORDER BY sequence", "n"),
        ("SELECT points AS n FROM award WHERE customer_id = {id} ORDER BY number", "n"),
        ("SELECT redeemed AS n FROM stock ORDER BY reward_id", "n"),
        ("SELECT \"left\" AS n FROM lot WHERE customer_id = {id} ORDER BY matures_at, expires_at", "n"),
    ] {
        let found = rows(app, &own(sql)).await;
        of_customer.push(found.iter().map(|row| row.try_get::<i64>("", column).unwrap()).collect::<Vec<_>>());
    }
    json!([all, of_customer])
}

/// What bob sees of himself.
async fn seen_by_bob(app: &GraphqlApp) -> Value {
    let query = "{ me { balance { available pending version } \
        purchases(first: 50) { nodes { externalId total { amount } net { amount } awards { points } revisions(first: 9) { nodes { revision } } } } \
        awards(first: 50) { nodes { points status purchases(first: 50) { nodes { total { amount } } } } } \
        ledger(first: 50) { nodes { kind points balanceAfter reason } } } }";
    app.data(&customer("bob-41d9"), query, json!({})).await
}

async fn send(app: &GraphqlApp, mutation: &str, input: Value) -> Value {
    let kind = format!("{}{}Input", mutation[..1].to_uppercase(), &mutation[1..]);
    let fields = if mutation == "recordPurchase" { "superseded" } else { "__typename" };
    let query = format!(
        "mutation($input: {kind}!) {{ done: {mutation}(input: $input) {{ replayed {fields} purchase {{ externalId }} awards {{ id }} \
         awardsChanged userErrors {{ path code }} }} }}"
    );
    app.data(&storefront(), &query, json!({ "input": input })).await["done"].take()
}

fn order(id: &str, customer: &str, over: Value) -> Value {
    let mut input = json!({
        "externalId": id, "customerExternalId": customer, "purchasedAt": "2026-11-02T09:00:00Z", "total": "10", "currency": "EUR",
    });
    let (Value::Object(fields), Value::Object(over)) = (&mut input, over) else { panic!("an input is an object") };
    fields.extend(over);
    input
}

/// Sends everything again that may come after an erasure: it counts as recorded, and changes nothing.
async fn send_again(app: &GraphqlApp) {
    for (id, over) in [
        ("ada-7c1e-lines", json!({})),
        ("ada-7c1e-edited", json!({ "revision": 3 })),
        ("ada-7c1e-edited", json!({ "revision": 9, "total": "99", "lines": [{ "sku": "x", "amount": "1" }] })),
        ("ada-7c1e-returned", json!({ "customerExternalId": "carl", "revision": 7 })),
        ("ada-7c1e-raised", json!({ "customerExternalId": "bob-41d9", "revision": 1 })),
        ("bob-41d9-lost", json!({ "customerExternalId": "bob-41d9", "revision": 4 })),
        ("ada-7c1e-lines", json!({ "purchasedAt": "2027-11-02T09:00:00Z" })),
    ] {
        let done = send(app, "recordPurchase", order(id, ADA, over.clone())).await;
        let seen = (&done["userErrors"], &done["replayed"], &done["superseded"]);
        assert_eq!(seen, (&json!([]), &json!(true), &json!(false)), "{id} {over}: {done}");
        // Until the erasure is done, its purchase may be there.
        if done["purchase"].is_null() {
            assert_eq!((&done["awards"], &done["awardsChanged"]), (&json!([]), &json!(0)), "{id} {over}: {done}");
        }
    }
    for (id, purchase, over) in [
        ("ada-7c1e-whole", "ada-7c1e-returned", json!({})),
        ("new", "ada-7c1e-lines", json!({ "lines": [{ "sku": "unknown", "amount": "1000" }] })),
        ("newer", "ada-7c1e-lines", json!({ "refundedAt": "2027-11-02T11:00:00Z", "amount": "1.23456" })),
    ] {
        let mut input =
            json!({ "externalId": id, "purchaseExternalId": purchase, "refundedAt": "2026-11-02T11:00:00Z" });
        input.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        let done = send(app, "recordRefund", input).await;
        assert_eq!((&done["userErrors"], &done["replayed"]), (&json!([]), &json!(true)), "{id} {purchase}: {done}");
    }
}

const ADJUST: &str =
    "mutation($input: AdjustPointsInput!) { adjustPoints(input: $input) { replayed userErrors { path code } } }";

/// Sends an adjustment of hers again, and another one with the same key. Neither is done, nor taken for done.
async fn use_a_key_again(app: &GraphqlApp) {
    for customer in [ADA, "bob-41d9"] {
        let key = "ada-7c1e 100";
        let input = json!({ "customerExternalId": customer, "points": 100, "reason": "gift to ada-7c1e", "idempotencyKey": key });
        let refused = app.data(&admin(), ADJUST, json!({ "input": input })).await["adjustPoints"].take();
        let codes: Vec<&Value> = refused["userErrors"].as_array().unwrap().iter().map(|error| &error["code"]).collect();
        assert_eq!(codes, ["IDEMPOTENCY_CONFLICT"], "{customer}: {refused}");
        assert_eq!(refused["replayed"], false);
    }
}

on_both! {
    async fn an_erased_customer_is_found_nowhere(app: &GraphqlApp) {
        everything(app).await;
        runner::run_due(&app.app).await.unwrap();
        assert!(traces(app).await.len() > 50);
        let id = app.customer(ADA).await.unwrap().id;
        let export = "mutation { exportCustomer(externalId: \"ada-7c1e\") { job { id } } }";
        app.data(&admin(), export, json!({})).await;
        runner::run_due(&app.app).await.unwrap();
        let (before, of_bob) = (sums(app, id).await, seen_by_bob(app).await);
        let requested = request(app, ADA).await;
        assert_eq!(requested["job"]["kind"], "ERASURE");
        assert_eq!(request(app, ADA).await["job"]["id"], requested["job"]["id"], "one at a time");
        runner::run_due(&app.app).await.unwrap();
        assert_eq!(erasure(app).await.state, JobState::Done);
        assert_eq!(traces(app).await, Vec::<String>::new());
        assert_eq!(sums(app, id).await, before);
        assert_eq!(seen_by_bob(app).await, of_bob);
        app.audit_is_clean().await;

        let exports: i64 = rows(app, "SELECT COUNT(*) AS n FROM export_chunk").await[0].try_get("", "n").unwrap();
        assert_eq!(exports, 0);
        let query = "{ gone: customer(by: { externalId: \"ada-7c1e\" }) { id } customers(first: 9) { nodes { externalId \
            balance { available reserved } purchases(first: 9) { nodes { externalId } } \
            awards(first: 50) { nodes { points purchases(first: 9) { nodes { externalId } } } } \
            ledger(first: 50) { nodes { points reason purchase { externalId } award { points } } } \
            redemptions(first: 9) { nodes { state reason } } } } }";
        let seen = app.data(&admin(), query, json!({})).await;
        assert_eq!(seen["gone"], Value::Null);
        let customers = seen["customers"]["nodes"].as_array().unwrap();
        let erased = customers.iter().find(|one| is_erased(&text(&one["externalId"]))).unwrap();
        assert_eq!((customers.len(), &erased["balance"]["reserved"]), (2, &json!(0)));
        for award in erased["awards"]["nodes"].as_array().unwrap() {
            assert_eq!(award["purchases"]["nodes"], json!([]));
        }
        for entry in erased["ledger"]["nodes"].as_array().unwrap() {
            assert_eq!((&entry["reason"], &entry["purchase"]), (&Value::Null, &Value::Null));
        }
        // The one that bob had before.
        let purchases = erased["purchases"]["nodes"].as_array().unwrap();
        assert!(purchases.len() == 1 && is_erased(&text(&purchases[0]["externalId"])), "{purchases:?}");
        let trail = "{ trail(first: 50) { nodes { action before after node { __typename ... on Customer { externalId } } } } }";
        let entries = app.data(&admin(), trail, json!({})).await["trail"]["nodes"].take();
        let about = entries.as_array().unwrap().iter().filter(|entry| entry["node"]["externalId"] == erased["externalId"]);
        let about: Vec<&Value> = about.collect();
        assert!(about.len() >= 4 && about.iter().all(|entry| entry["before"].is_null() && entry["after"].is_null()), "{about:?}");
    }

    async fn what_is_sent_after_an_erasure_changes_nothing(app: &GraphqlApp) {
        everything(app).await;
        let id = erase(app, ADA).await;
        let before = all_values(app).await;
        send_again(app).await;
        let done = send(app, "recordPurchase", order("ada-7c1e-lines", ADA, json!({}))).await;
        assert_eq!(done["purchase"], Value::Null);
        use_a_key_again(app).await;
        let name: String = rows(app, &format!("SELECT external_id AS name FROM customer WHERE id = {}", id.0)).await[0].try_get("", "name").unwrap();
        let not_found = |field: &str| json!([{ "path": ["input", field], "code": "NOT_FOUND" }]);
        let done = send(app, "recordPurchase", order("another", &name, json!({}))).await;
        assert_eq!(done["userErrors"], not_found("customerExternalId"));
        let input = json!({ "customerExternalId": name, "points": 5, "reason": "gift", "idempotencyKey": "fresh" });
        let refused = app.data(&admin(), ADJUST, json!({ "input": input })).await;
        assert_eq!(refused["adjustPoints"]["userErrors"], not_found("customerExternalId"));
        let (kind, query) = ("RedeemRewardInput", "{ rewards(first: 1) { nodes { id } } }");
        let reward = app.data(&admin(), query, json!({})).await["rewards"]["nodes"][0]["id"].take();
        let redeem = format!("mutation($input: {kind}!) {{ redeemReward(input: $input) {{ userErrors {{ path code }} }} }}");
        let input = json!({ "customerExternalId": name, "rewardId": reward, "idempotencyKey": "fresh" });
        let refused = app.data(&storefront(), &redeem, json!({ "input": input })).await;
        assert_eq!(refused["redeemReward"]["userErrors"], not_found("customerExternalId"));
        let query = "query($id: String!) { customer(by: { externalId: $id }) { redemptions(first: 9) { nodes { id state } } } }";
        let redemptions = app.data(&admin(), query, json!({ "id": name })).await["customer"]["redemptions"]["nodes"].take();
        let redeemed = redemptions.as_array().unwrap().iter().find(|one| one["state"] == "REDEEMED").unwrap();
        let cancel = "mutation($id: ID!) { cancelRedemption(id: $id) { userErrors { path code } } }";
        let refused = app.data(&admin(), cancel, json!({ "id": redeemed["id"] })).await;
        assert_eq!(refused["cancelRedemption"]["userErrors"], json!([{ "path": ["id"], "code": "NOT_FOUND" }]));

        // Refused attempts are in the trail.
        let is_of_trail = |value: &String| ["trail_entry.", "sqlite_sequence."].iter().any(|table| value.starts_with(table));
        let after = all_values(app).await;
        let new: Vec<&String> = after.iter().filter(|value| !is_of_trail(value) && !before.contains(value)).collect();
        assert_eq!(new, Vec::<&String>::new());
        // Whoever comes back is a new customer.
        let done = send(app, "recordPurchase", order("her next order", ADA, json!({}))).await;
        assert_eq!((&done["purchase"]["externalId"], &done["replayed"]), (&json!("her next order"), &json!(false)));
        let ada = app.customer(ADA).await.unwrap();
        assert!(ada.id != id && ada.balance > 0);
        app.audit_is_clean().await;
        // And can be erased, too.
        assert_ne!(erase(app, ADA).await, id);
        assert_eq!(traces(app).await, Vec::<String>::new());
        app.audit_is_clean().await;
    }

    /// The old content of a purchase that is bob's now named her. It is still recognised.
    async fn a_content_that_named_her_is_recognised(app: &GraphqlApp) {
        everything(app).await;
        erase(app, ADA).await;
        let before = app.customer("bob-41d9").await.unwrap();
        for (id, over) in [("ada-7c1e-lost", json!({})), ("ada-7c1e-outdated", json!({ "revision": 4, "total": "4" }))] {
            let done = send(app, "recordPurchase", order(id, ADA, over.clone())).await;
            let seen = (&done["userErrors"], &done["replayed"], &done["superseded"], &done["purchase"]["externalId"]);
            assert_eq!(seen, (&json!([]), &json!(true), &json!(true), &json!(id)), "{done}");
            let total = json!({ "total": "5" });
            let mut other = order(id, ADA, over);
            other.as_object_mut().unwrap().extend(total.as_object().unwrap().clone());
            let done = send(app, "recordPurchase", other).await;
            assert_eq!(done["userErrors"], json!([{ "path": ["input", "total"], "code": "IDEMPOTENCY_CONFLICT" }]), "{done}");
        }
        assert_eq!(app.customer("bob-41d9").await.unwrap(), before);
    }

    async fn reservations_end_and_lots_run_on(app: &GraphqlApp) {
        let make = "mutation { createReward(input: { name: \"Voucher\", cost: 30, stock: 5 }) { reward { id } } }";
        let reward = text(&app.data(&admin(), make, json!({})).await["createReward"]["reward"]["id"]);
        adjust(app, ADA, 100, json!("2026-12-01T00:00:00Z")).await;
        redeem(app, "reserveReward", &reward, ADA).await;
        redeem(app, "reserveReward", &reward, ADA).await;
        redeem(app, "redeemReward", &reward, ADA).await;
        let id = erase(app, ADA).await;
        let stock = rows(app, "SELECT redeemed, reserved FROM stock").await.remove(0);
        let stock: (i64, i64) = (stock.try_get("", "redeemed").unwrap(), stock.try_get("", "reserved").unwrap());
        assert_eq!(stock, (1, 0));
        let query = "{ customers(first: 9) { nodes { balance { available reserved } redemptions(first: 9) { nodes { state } } } } }";
        let seen = app.data(&admin(), query, json!({})).await["customers"]["nodes"][0].take();
        assert_eq!(seen["balance"], json!({ "available": 70, "reserved": 0 }));
        let states = json!([{ "state": "REDEEMED" }, { "state": "CANCELLED" }, { "state": "CANCELLED" }]);
        assert_eq!(seen["redemptions"]["nodes"], states);
        app.audit_is_clean().await;

        app.set_clock("2026-12-01T00:00:00Z");
        let seen = app.data(&admin(), query, json!({})).await["customers"]["nodes"][0].take();
        assert_eq!(seen["balance"], json!({ "available": 0, "reserved": 0 }));
        periodic::request_ticks(&app.app, &mut periodic::Requested::default()).await.unwrap();
        runner::run_due(&app.app).await.unwrap();
        let last = format!("SELECT kind, points FROM ledger_entry WHERE customer_id = {} ORDER BY sequence DESC", id.0);
        let last = rows(app, &last).await;
        let last: (String, i64) = (last[0].try_get("", "kind").unwrap(), last[0].try_get("", "points").unwrap());
        assert_eq!(last, ("expiry".to_owned(), -70));
        app.audit_is_clean().await;
    }

    /// A campaign that is activated later counts nothing of her, and a repair takes nothing away.
    async fn nothing_is_evaluated_after_an_erasure(app: &GraphqlApp) {
        everything(app).await;
        let id = erase(app, ADA).await;
        let name: String = rows(app, &format!("SELECT external_id AS name FROM customer WHERE id = {}", id.0)).await[0].try_get("", "name").unwrap();
        let before = app.customer(&name).await.unwrap();
        let later = app.campaign(json!({ "name": "Later", "goal": { "everyPurchase": "EACH" }, "award": { "points": 1 } })).await;
        runner::run_due(&app.app).await.unwrap();
        let query = "query($id: ID!) { campaign(id: $id) { backfill { done } stats { awards customers } } \
            customers(first: 9) { nodes { externalId progress { campaign { name } evaluating awardsEarned current } } } }";
        let seen = app.data(&admin(), query, json!({ "id": later })).await;
        assert_eq!(seen["campaign"]["backfill"], Value::Null);
        let customers = seen["customers"]["nodes"].as_array().unwrap();
        let erased = customers.iter().find(|one| one["externalId"] == name.as_str()).unwrap();
        let progress = erased["progress"].as_array().unwrap();
        assert_eq!(progress.len(), 3);
        assert!(progress.iter().all(|one| one["evaluating"] == false && one["current"] == "0"), "{progress:?}");
        let repair = windfall::app::recorder::fact::Fact::Repair(name.clone());
        app.app.recorder.record_when_free(repair).await.unwrap().await.unwrap().unwrap().unwrap();
        let after = app.customer(&name).await.unwrap();
        assert_eq!((after.balance, after.lifetime, after.ledger_sequence), (before.balance, before.lifetime, before.ledger_sequence));
        app.audit_is_clean().await;
    }

    /// The erasure fails once at each of its tables. Whatever is sent in between changes nothing, and the retry completes it.
    async fn an_erasure_can_fail_anywhere(app: &GraphqlApp) {
        everything(app).await;
        let id = app.customer(ADA).await.unwrap().id;
        let before = sums(app, id).await;
        request(app, ADA).await;
        for (event, table) in [
            ("UPDATE", "purchase_revision"), ("UPDATE", "customer"), ("INSERT", "erased_name"), ("UPDATE", "ledger_entry"),
            ("UPDATE", "award"), ("UPDATE", "trail_entry"), ("DELETE", "idempotency_key"), ("DELETE", "refund"),
            ("UPDATE", "refund"), ("DELETE", "purchase"),
        ] {
            sabotage(app, event, table).await;
            runner::run_due(&app.app).await.unwrap_err();
            repair(app, table).await;
            let job = erasure(app).await;
            assert_eq!(job.state, JobState::Waiting, "{event} {table}");
            assert!(!job.error.unwrap().contains(ADA));
            app.audit_is_clean().await;
            if app.customer(ADA).await.is_none() {
                send_again(app).await;
                use_a_key_again(app).await;
                assert_eq!(sums(app, id).await, before, "{event} {table}");
            }
            let cancel = "mutation($id: ID!) { cancelJob(id: $id) { userErrors { code } } }";
            let jobs = "{ jobs(kind: [ERASURE]) { nodes { id } } }";
            let job = app.data(&admin(), jobs, json!({})).await["jobs"]["nodes"][0]["id"].take();
            let refused = app.data(&admin(), cancel, json!({ "id": job })).await;
            assert_eq!(refused["cancelJob"]["userErrors"], json!([{ "code": "ILLEGAL_TRANSITION" }]));
            app.execute("UPDATE job SET run_at = 0, attempts = 0 WHERE kind = 'erasure'").await;
        }
        runner::run_due(&app.app).await.unwrap();
        assert_eq!(erasure(app).await.state, JobState::Done);
        assert_eq!(traces(app).await, Vec::<String>::new());
        assert_eq!(sums(app, id).await, before);
        app.audit_is_clean().await;
    }

    async fn an_erasure_that_keeps_failing_is_given_up(app: &GraphqlApp) {
        everything(app).await;
        request(app, ADA).await;
        sabotage(app, "DELETE", "purchase").await;
        for attempt in 1..=8 {
            runner::run_due(&app.app).await.unwrap_err();
            let job = erasure(app).await;
            let expected = if attempt < 8 { JobState::Waiting } else { JobState::Dead };
            assert_eq!((job.state, job.attempts), (expected, attempt));
            app.execute("UPDATE job SET run_at = 0").await;
        }
        repair(app, "purchase").await;
        let retry = "mutation($id: ID!) { retryJob(id: $id) { job { state } } }";
        let jobs = "{ jobs(kind: [ERASURE]) { nodes { id } } }";
        let job = app.data(&admin(), jobs, json!({})).await["jobs"]["nodes"][0]["id"].take();
        app.data(&admin(), retry, json!({ "id": job })).await;
        runner::run_due(&app.app).await.unwrap();
        assert_eq!(traces(app).await, Vec::<String>::new());
    }

    async fn an_erasure_must_be_confirmed(app: &GraphqlApp) {
        adjust(app, ADA, 100, Value::Null).await;
        let refused = app.data(&admin(), ERASE, json!({ "id": ADA, "confirmed": "ada" })).await["eraseCustomer"].take();
        assert_eq!(refused["userErrors"], json!([{ "path": ["confirmExternalId"], "code": "INVALID" }]));
        let refused = app.data(&admin(), ERASE, json!({ "id": "nobody", "confirmed": "nobody" })).await["eraseCustomer"].take();
        assert_eq!(refused["userErrors"], json!([{ "path": ["externalId"], "code": "NOT_FOUND" }]));
        for viewer in [storefront(), customer(ADA)] {
            let answer = app.run(&viewer, ERASE, json!({ "id": ADA, "confirmed": ADA })).await;
            assert_eq!(codes(&answer), ["FORBIDDEN"]);
        }
        // Until it begins, it can be cancelled.
        let job = request(app, ADA).await["job"]["id"].take();
        let cancel = "mutation($id: ID!) { cancelJob(id: $id) { job { state } userErrors { code } } }";
        let cancelled = app.data(&admin(), cancel, json!({ "id": job })).await["cancelJob"].take();
        assert_eq!(cancelled, json!({ "job": { "state": "CANCELLED" }, "userErrors": [] }));
        runner::run_due(&app.app).await.unwrap();
        assert!(app.customer(ADA).await.is_some());
        // A customer without purchases.
        erase(app, ADA).await;
        assert_eq!(app.customer(ADA).await, None);
        refund_is_unknown(app).await;
    }
}

/// An order that nobody knows is still unknown.
async fn refund_is_unknown(app: &GraphqlApp) {
    buy(app, "bob-41d9", "bob's", json!({})).await;
    refund(app, "bob's refund", "bob's", json!({})).await;
    let input = json!({ "externalId": "r", "purchaseExternalId": "unknown", "refundedAt": "2026-11-02T11:00:00Z" });
    let refused = send(app, "recordRefund", input).await;
    let expected = json!([{ "path": ["input", "purchaseExternalId"], "code": "PURCHASE_NOT_FOUND" }]);
    assert_eq!(refused["userErrors"], expected);
}
