//! Exports of customers: what they contain, and how admins request them.

use std::collections::BTreeMap;

use entity::{JobKind, JobState, job};
use sea_orm::{ConnectionTrait as _, DatabaseBackend, EntityTrait as _, Statement};
use serde_json::{Value, json};
use windfall::app::error::Error;
use windfall::app::export;
use windfall::app::jobs::{queue, runner};

use crate::support::app::{DAY, NOW, TestApp, cases, purchase_input};
use crate::support::graphql::{GraphqlApp, admin, on_both, storefront, text};

const EXPORT: &str = "mutation($id: String!) { exportCustomer(externalId: $id) { \
    job { id kind state resultUrl finishedAt subject { __typename ... on Customer { externalId } } } userErrors { path code message } } }";

async fn request(app: &GraphqlApp, customer: &str) -> Value {
    app.data(&admin(), EXPORT, json!({ "id": customer })).await["exportCustomer"].take()
}

/// The jobs of all exports.
async fn exports(app: &GraphqlApp) -> Vec<job::Model> {
    let jobs = job::Entity::find().all(app.app.database.read()).await.unwrap();
    jobs.into_iter().filter(|job| job.kind == JobKind::Export).collect()
}

/// Reads the result of an export, and checks that no part of it is too large.
async fn download(app: &GraphqlApp, job: i64) -> Result<String, Error> {
    let mut download = export::open(&app.app, &TestApp::admin(), job).await?;
    let mut bytes = Vec::new();
    while let Some(part) = download.next(&app.app).await? {
        assert!((1..=256 * 1024).contains(&part.len()), "{}", part.len());
        bytes.extend(part);
    }
    Ok(String::from_utf8(bytes).unwrap())
}

fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exports a customer and returns the lines.
async fn exported(app: &GraphqlApp, customer: &str) -> Vec<Value> {
    assert_eq!(request(app, customer).await["userErrors"], json!([]));
    runner::run_due(&app.app).await.unwrap();
    let id = app.customer(customer).await.unwrap().id;
    let job = exports(app).await.into_iter().find(|job| job.customer_id == Some(id.0)).unwrap();
    assert_eq!(job.unique_key, format!("export:customer:{}", id.0));
    parse(&download(app, job.id).await.unwrap())
}

/// The lines of a type, without their type.
fn of_type(lines: &[Value], name: &str) -> Vec<Value> {
    let mut found: Vec<Value> = lines.iter().filter(|line| line["type"] == name).cloned().collect();
    found.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("type")));
    found
}

fn counts(lines: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    lines.iter().for_each(|line| *counts.entry(text(&line["type"])).or_default() += 1);
    counts
}

pub(super) async fn buy(app: &GraphqlApp, customer: &str, id: &str, over: Value) {
    let mut input = json!({
        "externalId": id, "customerExternalId": customer, "purchasedAt": "2026-11-02T09:00:00Z", "total": "10", "currency": "EUR",
    });
    let (Value::Object(fields), Value::Object(over)) = (&mut input, over) else { panic!("an input is an object") };
    fields.extend(over);
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code path } } }";
    let answer = app.data(&storefront(), query, json!({ "input": input })).await;
    assert_eq!(answer["recordPurchase"]["userErrors"], json!([]));
}

pub(super) async fn refund(app: &GraphqlApp, id: &str, purchase: &str, over: Value) {
    let mut input = json!({ "externalId": id, "purchaseExternalId": purchase, "refundedAt": "2026-11-02T11:00:00Z" });
    let (Value::Object(fields), Value::Object(over)) = (&mut input, over) else { panic!("an input is an object") };
    fields.extend(over);
    let query = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { userErrors { code path } } }";
    let answer = app.data(&storefront(), query, json!({ "input": input })).await;
    assert_eq!(answer["recordRefund"]["userErrors"], json!([]));
}

pub(super) async fn adjust(app: &GraphqlApp, customer: &str, points: i64, expires_at: Value) {
    let query = "mutation($input: AdjustPointsInput!) { adjustPoints(input: $input) { userErrors { code path } } }";
    let input = json!({
        "customerExternalId": customer, "points": points, "reason": format!("gift to {customer}"),
        "idempotencyKey": format!("{customer} {points}"), "expiresAt": expires_at,
    });
    let answer = app.data(&admin(), query, json!({ "input": input })).await;
    assert_eq!(answer["adjustPoints"]["userErrors"], json!([]));
}

pub(super) async fn redeem(app: &GraphqlApp, mutation: &str, reward: &str, customer: &str) -> Value {
    let kind = if mutation == "redeemReward" { "RedeemRewardInput" } else { "ReserveRewardInput" };
    let query = format!(
        "mutation($input: {kind}!) {{ {mutation}(input: $input) {{ redemption {{ id }} userErrors {{ code path }} }} }}"
    );
    let key = format!("{mutation} {customer} {}", rand::random::<u64>());
    let input = json!({ "rewardId": reward, "customerExternalId": customer, "idempotencyKey": key });
    let mut answer = app.data(&storefront(), &query, json!({ "input": input })).await;
    assert_eq!(answer[mutation]["userErrors"], json!([]));
    answer[mutation]["redemption"]["id"].take()
}

/// Records of each of two customers something of every kind, by their names.
pub(super) async fn everything(app: &GraphqlApp) {
    app.campaign(json!({ "name": "Each", "goal": { "everyPurchase": "EACH" }, "expiresAfter": "P90D" })).await;
    app.campaign(json!({ "name": "Capped", "goal": { "everyPurchase": "EACH" }, "budget": 20 })).await;
    let make = "mutation { createReward(input: { name: \"Voucher\", cost: 5 }) { reward { id } } }";
    let reward = text(&app.data(&admin(), make, json!({})).await["createReward"]["reward"]["id"]);
    let add = "mutation($id: ID!) { addRewardCodes(rewardId: $id, codes: [\"A\", \"B\", \"C\", \"D\"]) { added } }";
    app.data(&admin(), add, json!({ "id": reward })).await;
    for (me, other) in [("ada-7c1e", "bob-41d9"), ("bob-41d9", "ada-7c1e")] {
        let id = |name: &str| format!("{me}-{name}");
        let lines = json!([
            { "sku": "tea", "category": "food", "quantity": 2, "amount": "7.50" }, { "sku": "cup", "amount": "2.50" },
        ]);
        buy(app, me, &id("lines"), json!({ "channel": "web", "lines": lines })).await;
        refund(
            app,
            &id("by line"),
            &id("lines"),
            json!({ "amount": "1.25", "lines": [{ "sku": "tea", "amount": "1.25" }] }),
        )
        .await;
        buy(app, me, &id("edited"), json!({})).await;
        buy(
            app,
            me,
            &id("edited"),
            json!({ "revision": 3, "total": "12", "refunded": "2", "refundedUntil": "2026-11-02T10:00:00Z" }),
        )
        .await;
        // The same content under a higher number.
        buy(app, me, &id("raised"), json!({ "revision": 1 })).await;
        buy(app, me, &id("raised"), json!({ "revision": 2 })).await;
        buy(app, me, &id("returned"), json!({})).await;
        refund(app, &id("whole"), &id("returned"), json!({})).await;
        // A purchase that was this customer's, with a refund of that time and a later one.
        buy(app, me, &id("lost"), json!({})).await;
        refund(app, &id("before"), &id("lost"), json!({ "amount": "1" })).await;
        buy(app, other, &id("lost"), json!({ "revision": 1 })).await;
        refund(app, &id("after"), &id("lost"), json!({ "amount": "2" })).await;
        // A content that names this customer and never counted.
        buy(app, other, &id("outdated"), json!({ "revision": 5 })).await;
        buy(app, me, &id("outdated"), json!({ "revision": 4, "total": "4" })).await;
        adjust(app, me, 100, Value::Null).await;
        adjust(app, me, 50, json!("2027-01-01T00:00:00Z")).await;
        redeem(app, "redeemReward", &reward, me).await;
        let reserved = redeem(app, "reserveReward", &reward, me).await;
        let cancel = "mutation($id: ID!) { cancelRedemption(id: $id) { userErrors { code } } }";
        app.data(&storefront(), cancel, json!({ "id": reserved })).await;
    }
}

/// Tables whose rows of a customer are lines of this type, with the column that holds the customer's key.
const EXPORTED: [(&str, &str); 11] = [
    ("award", "award"),
    ("idempotency_key", "idempotencyKey"),
    ("ledger_entry", "ledgerEntry"),
    ("lot", "lot"),
    ("purchase", "purchase"),
    ("purchase_revision", "purchaseRevision"),
    ("redemption", "redemption"),
    ("refund", "refund"),
    ("reward_code", "rewardCode"),
    ("taking", "taking"),
    ("trail_entry", "trailEntry"),
];
/// A table that names purchases and no customer: `ingest` tests its part of the export.
const OF_PURCHASES: &str = "waiting_fact";
/// Tables that only repeat others in a form of the server, or have nothing that an export may show. `docs/data-rights.md` says why.
const LEFT_OUT: [&str; 5] = ["budget_decision", "checkpoint", "erased_name", "job", "outbox"];

async fn tables_with(app: &GraphqlApp, column: &str) -> Vec<String> {
    let db = app.app.database.read();
    let sql = match db.get_database_backend() {
        DatabaseBackend::Postgres => {
            "SELECT table_name::text AS name FROM information_schema.columns \
             WHERE table_schema = 'public' AND column_name = $1 ORDER BY 1"
        }
        _ => {
            "SELECT m.name AS name FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c \
             WHERE m.type = 'table' AND c.name = $1 ORDER BY 1"
        }
    };
    let rows = db
        .query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, [column.into()]))
        .await
        .unwrap();
    let names = rows.iter().map(|row| row.try_get::<String>("", "name").unwrap());
    // The segments of the outbox.
    names.filter(|name| !name.starts_with("outbox_")).collect()
}

async fn count(app: &GraphqlApp, table: &str, condition: &str) -> usize {
    let sql = format!("SELECT COUNT(*) AS rows_found FROM {table} WHERE {condition}");
    let db = app.app.database.read();
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap().unwrap();
    usize::try_from(row.try_get::<i64>("", "rows_found").unwrap()).unwrap()
}

/// What GraphQL shows of a customer, in the form of lines.
const SEEN: &str = "query($id: String!) { customer(by: { externalId: $id }) { \
    purchases(first: 20) { nodes { externalId revision purchasedAt recordedAt total { amount currency } channel \
        lines { sku category quantity amount { amount } } refunds { externalId amount { amount } refundedAt } \
        revisions(first: 5) { nodes { revision purchasedAt total { amount } refunded { amount } refundedUntil } } } } \
    awards(first: 100) { nodes { campaign { name } points pointsBeforeCap status ordinal earnedAt availableAt expiresAt } } \
    ledger(first: 100) { nodes { sequence kind points balanceAfter reason availableAt expiresAt createdAt } } \
    redemptions(first: 100) { nodes { reward { name } quantity points state createdAt reservedUntil redeemedAt endedAt reason codes } } \
    balance { lifetime version } } }";

/// The parts of lines with these names, sorted.
fn parts(lines: &[Value], names: &[&str]) -> Vec<String> {
    let part = |line: &Value| names.iter().map(|name| line[name].to_string()).collect::<Vec<_>>().join(" ");
    let mut parts: Vec<String> = lines.iter().map(part).collect();
    parts.sort();
    parts
}

fn nodes(of: &Value) -> Vec<Value> {
    of["nodes"].as_array().unwrap().clone()
}

on_both! {
    /// A new table or column with data of customers makes this test fail.
    async fn every_table_with_data_of_a_customer_is_exported(app: &GraphqlApp) {
        everything(app).await;
        let lines = exported(app, "ada-7c1e").await;
        let counts = counts(&lines);
        let id = app.customer("ada-7c1e").await.unwrap().id.0;
        let known: Vec<String> = EXPORTED.iter().map(|(table, _)| *table).chain(LEFT_OUT).map(str::to_owned).collect();
        let mut with_key = tables_with(app, "customer_id").await;
        let mut expected = known.clone();
        with_key.sort();
        expected.sort();
        assert_eq!(with_key, expected, "decide what the export has of each table");
        for column in ["purchase_external_id", "customer_external_id"] {
            let is_known = |table: &String| known.contains(table) || table == OF_PURCHASES;
            assert!(tables_with(app, column).await.iter().all(is_known), "{column}");
        }
        for (table, name) in EXPORTED {
            let condition = match table {
                "purchase_revision" => "customer_external_id = 'ada-7c1e'".to_owned(),
                // Those of purchases that are now this customer's, and those that were recorded while they were.
                "refund" => format!(
                    "customer_id = {id} OR purchase_external_id IN (SELECT external_id FROM purchase WHERE customer_id = {id})"
                ),
                _ => format!("customer_id = {id}"),
            };
            let rows = count(app, table, &condition).await;
            assert!(rows > 0, "{table}");
            assert_eq!(counts.get(name), Some(&rows), "{table}: {counts:?}");
        }
        assert_eq!((counts["customer"], counts["raisedRevision"]), (1, 1), "{counts:?}");
        assert_eq!(counts.len(), EXPORTED.len() + 2, "{counts:?}");
        assert_eq!(lines[0]["type"], "customer");
    }

    async fn an_export_has_what_graphql_shows(app: &GraphqlApp) {
        everything(app).await;
        for customer in ["ada-7c1e", "bob-41d9"] {
            let lines = exported(app, customer).await;
            let seen = app.data(&admin(), SEEN, json!({ "id": customer })).await["customer"].take();
            let row = of_type(&lines, "customer").remove(0);
            assert_eq!((&row["externalId"], &row["lifetime"], &row["version"]),
                (&json!(customer), &seen["balance"]["lifetime"], &seen["balance"]["version"]));

            let (mut purchases, mut refunds, mut contents) = (nodes(&seen["purchases"]), Vec::new(), Vec::new());
            for purchase in &mut purchases {
                purchase["currency"] = purchase["total"]["currency"].take();
                purchase["total"] = purchase["total"]["amount"].take();
                for line in purchase["lines"].as_array_mut().unwrap() {
                    line["amount"] = line["amount"]["amount"].take();
                }
                let id = purchase["externalId"].clone();
                for refund in purchase["refunds"].as_array_mut().unwrap() {
                    refund["amount"] = refund["amount"]["amount"].take();
                    refund["purchaseExternalId"] = id.clone();
                    refunds.push(refund.clone());
                }
                contents.extend(nodes(&purchase["revisions"]).into_iter().skip(1));
            }
            let names = ["externalId", "revision", "purchasedAt", "recordedAt", "total", "currency", "channel", "lines"];
            assert_eq!(parts(&of_type(&lines, "purchase"), &names), parts(&purchases, &names), "{customer}");
            let edited = of_type(&lines, "purchaseRevision").into_iter().find(|content| content["externalId"] == format!("{customer}-edited"));
            let edited = edited.unwrap();
            assert_eq!((&edited["total"], &edited["revision"], &edited["counted"]), (&json!("10.00"), &json!(0), &json!(true)));
            assert!(contents.iter().any(|content| content["revision"] == 0 && content["total"]["amount"] == "10.00"));

            let lost = format!("{customer}-lost");
            let (gone, mut kept): (Vec<Value>, Vec<Value>) =
                of_type(&lines, "refund").into_iter().partition(|refund| refund["purchaseExternalId"] == lost);
            assert_eq!(parts(&gone, &["externalId", "amount"]), [format!("\"{customer}-before\" \"1.00\"")]);
            // A refund without an amount takes back the total.
            kept.iter_mut().filter(|refund| refund["amount"].is_null()).for_each(|refund| refund["amount"] = json!("10.00"));
            let names = ["externalId", "purchaseExternalId", "amount", "refundedAt"];
            assert_eq!(parts(&kept, &names), parts(&refunds, &names), "{customer}");
            assert!(kept.iter().any(|refund| refund["lines"] == json!([{ "sku": "tea", "amount": "1.25" }])));

            let mut awards = nodes(&seen["awards"]);
            awards.iter_mut().for_each(|award| award["campaign"] = award["campaign"]["name"].take());
            let names = ["campaign", "points", "pointsBeforeCap", "status", "ordinal", "earnedAt", "availableAt", "expiresAt"];
            assert_eq!(parts(&of_type(&lines, "award"), &names), parts(&awards, &names), "{customer}");
            let statuses = parts(&awards, &["status"]);
            assert!(["\"STANDING\"", "\"REVERSED\"", "\"DECLINED\""].iter().all(|status| statuses.contains(&(*status).to_owned())));

            let names = ["sequence", "kind", "points", "balanceAfter", "reason", "availableAt", "expiresAt", "createdAt"];
            assert_eq!(parts(&of_type(&lines, "ledgerEntry"), &names), parts(&nodes(&seen["ledger"]), &names), "{customer}");

            let mut redemptions = nodes(&seen["redemptions"]);
            redemptions.iter_mut().for_each(|redemption| redemption["reward"] = redemption["reward"]["name"].take());
            let names = ["reward", "quantity", "points", "state", "createdAt", "reservedUntil", "redeemedAt", "endedAt", "reason"];
            assert_eq!(parts(&of_type(&lines, "redemption"), &names), parts(&redemptions, &names), "{customer}");
            let codes: Vec<Value> = redemptions.iter().flat_map(|redemption| redemption["codes"].as_array().unwrap().clone()).collect();
            let given: Vec<Value> = of_type(&lines, "rewardCode").iter().map(|code| code["code"].clone()).collect();
            assert_eq!((&given, given.len()), (&codes, 1));

            // The points in lots and in the pool are the balance of the ledger.
            let lots: i64 = of_type(&lines, "lot").iter().map(|lot| lot["left"].as_i64().unwrap()).sum();
            assert!(lots > 0 && lots < row["balance"].as_i64().unwrap());
            let entries = of_type(&lines, "trailEntry");
            assert_eq!(parts(&entries, &["action"]), ["\"adjustPoints\"", "\"adjustPoints\"", "\"exportCustomer\""]);
            assert_eq!(entries[0]["after"]["entry"]["reason"], format!("gift to {customer}"));
            // Who the admin was is no data of the customer.
            assert!(entries.iter().all(|entry| !entry.to_string().contains("eve") && !entry.to_string().contains("192.0.2.7")));
        }
    }

    async fn an_export_names_no_other_customer(app: &GraphqlApp) {
        everything(app).await;
        for (customer, other) in [("ada-7c1e", "bob-41d9"), ("bob-41d9", "ada-7c1e")] {
            for line in exported(app, customer).await {
                // The ids of purchases begin with the name of their first customer. No other text has it.
                let mut line = line;
                for name in ["externalId", "purchaseExternalId", "evidenceFromExternalId"] {
                    if line["type"] != "customer" {
                        line[name] = Value::Null;
                    }
                }
                assert!(!line.to_string().contains(other), "{line}");
            }
            let lines = exported(app, customer).await;
            let names = |name: &str| of_type(&lines, name).iter().map(|line| text(&line["externalId"])).collect::<Vec<_>>();
            let outdated = format!("{customer}-outdated");
            assert!(names("purchaseRevision").contains(&outdated) && !names("purchase").contains(&outdated));
            assert!(!names("purchaseRevision").contains(&format!("{other}-outdated")));
            assert!(!names("purchaseRevision").contains(&format!("{other}-lost")));
            assert!(!names("refund").contains(&format!("{customer}-after")));
        }
    }

    async fn a_job_of_the_customer_has_the_result_once_it_is_done(app: &GraphqlApp) {
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let waiting = request(app, "ada").await;
        let id = waiting["job"]["id"].clone();
        assert_eq!(waiting, json!({ "userErrors": [], "job": {
            "id": id, "kind": "EXPORT", "state": "WAITING", "resultUrl": null, "finishedAt": null,
            "subject": { "__typename": "Customer", "externalId": "ada" },
        } }));
        let row = exports(app).await.remove(0);
        assert!(matches!(download(app, row.id).await, Err(Error::NotFound)), "not done");
        // A second request returns the job, whether it waits or runs, and does not make it run once more.
        assert_eq!(request(app, "ada").await, waiting);
        let running = queue::claim(&app.app, &[JobKind::Export]).await.unwrap().unwrap();
        let again = request(app, "ada").await;
        assert_eq!((&again["job"]["id"], &again["job"]["state"]), (&id, &json!("RUNNING")));
        assert_eq!(queue::end(&app.app, &running, queue::End::Again(windfall::engine::time::Instant(NOW))).await.unwrap(), Some(JobState::Waiting));
        assert_eq!(runner::run_due(&app.app).await.unwrap(), 1);
        let query = "query($id: ID!) { job(id: $id) { state resultUrl finishedAt } }";
        let done = app.data(&admin(), query, json!({ "id": id })).await;
        let url = format!("/exports/{}", row.id);
        assert_eq!(done["job"], json!({ "state": "DONE", "resultUrl": url, "finishedAt": "2026-11-02T12:00:00Z" }));
        let first = download(app, row.id).await.unwrap();
        assert_eq!(of_type(&parse(&first), "purchase").len(), 1);
        // Only the request that made something has an entry in the trail.
        assert_eq!(count(app, "trail_entry", "action = 'exportCustomer'").await, 1);

        // A request after that replaces the result, and a download that is under way breaks off.
        app.purchase("q", "ada", "2026-11-02T11:00:00Z", "5").await;
        let mut open = export::open(&app.app, &TestApp::admin(), row.id).await.unwrap();
        let next = request(app, "ada").await;
        assert_eq!((&next["job"]["id"], &next["job"]["state"], &next["job"]["resultUrl"]), (&id, &json!("WAITING"), &Value::Null));
        assert!(matches!(open.next(&app.app).await, Err(Error::NotFound)));
        runner::run_due(&app.app).await.unwrap();
        assert!(matches!(open.next(&app.app).await, Err(Error::NotFound)), "a part of another result");
        let second = parse(&download(app, row.id).await.unwrap());
        assert_eq!(of_type(&second, "purchase").len(), 2);
        assert_eq!(of_type(&second, "trailEntry").len(), 2, "both requests");
    }

    async fn an_unknown_customer_is_refused(app: &GraphqlApp) {
        for name in ["nobody", "", "a\0", &"x".repeat(201)] {
            let refused = request(app, name).await;
            assert_eq!((&refused["job"], &refused["userErrors"][0]["path"]), (&Value::Null, &json!(["externalId"])), "{refused}");
            assert_eq!(refused["userErrors"][0]["code"], "NOT_FOUND");
        }
        assert!(exports(app).await.is_empty());
        // Other jobs have no result.
        app.execute("INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
            VALUES ('audit', 'audit:1', 'done', 1, 0, 0, 0)").await;
        let audit = job::Entity::find().one(app.app.database.read()).await.unwrap().unwrap();
        assert!(matches!(download(app, audit.id).await, Err(Error::NotFound)));
    }

    /// An export is no evaluation: nothing waits for it.
    async fn an_export_can_be_cancelled_and_retried(app: &GraphqlApp) {
        app.campaign(json!({ "name": "Each", "goal": { "everyPurchase": "EACH" } })).await;
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let id = request(app, "ada").await["job"]["id"].clone();
        let change = async |mutation: &str| {
            let query = format!("mutation($id: ID!) {{ {mutation}(id: $id) {{ job {{ state resultUrl }} userErrors {{ code }} }} }}");
            app.data(&admin(), &query, json!({ "id": id })).await[mutation].take()
        };
        let deferred = queue::deferred_customers(app.app.database.read(), 10).await.unwrap();
        assert!(deferred.is_empty(), "{deferred:?}");
        let state = |state: &str| json!({ "job": { "state": state, "resultUrl": null }, "userErrors": [] });
        assert_eq!(change("cancelJob").await, state("CANCELLED"));
        runner::finish(&app.app).await.unwrap();
        assert_eq!(change("retryJob").await, state("WAITING"));
        runner::run_due(&app.app).await.unwrap();
        assert_eq!(exports(app).await[0].state, JobState::Done);
    }

    /// Lists go over several pages, and the result over several chunks.
    async fn a_long_history_is_exported_as_a_whole(app: &GraphqlApp) {
        app.campaign(json!({ "name": "Each", "goal": { "everyPurchase": "EACH" }, "startsAt": "2020-01-01T00:00:00Z" })).await;
        let count = cases(1_230, 30_000);
        for chunk in (0..count).collect::<Vec<_>>().chunks(500) {
            let inputs = chunk.iter().map(|n| {
                // Several purchases have the same instant.
                let at = NOW - i64::try_from(n / 7).unwrap() * DAY / 10 - DAY;
                (vec![], purchase_input("ada", &format!("p{n:06}"), at, "4.00"))
            });
            for answer in windfall::app::purchase::record(&app.app, &TestApp::shop(), inputs.collect()).await.unwrap() {
                answer.unwrap();
            }
        }
        for n in 0..130 {
            refund(app, &format!("r{n}"), &format!("p{:06}", n % 60), json!({ "amount": "0.01" })).await;
        }
        let lines = exported(app, "ada").await;
        let ids = |name: &str| {
            let mut ids: Vec<String> = of_type(&lines, name).iter().map(|line| text(&line["externalId"])).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids("purchase"), (0..count).map(|n| format!("p{n:06}")).collect::<Vec<_>>());
        let mut refunds: Vec<String> = (0..130).map(|n| format!("r{n}")).collect();
        refunds.sort();
        assert_eq!(ids("refund"), refunds);
        let sequences: Vec<usize> = of_type(&lines, "ledgerEntry").iter().map(|line| usize::try_from(line["sequence"].as_u64().unwrap()).unwrap()).collect();
        assert_eq!(sequences, (1..=count).collect::<Vec<_>>());
        assert_eq!(of_type(&lines, "award").len(), count);
        let chunks = entity::export_chunk::Entity::find().all(app.app.database.read()).await.unwrap();
        assert!(chunks.len() > 2, "{}", chunks.len());
        assert!(chunks.iter().take(chunks.len() - 1).all(|chunk| chunk.content.len() == 256 * 1024));
        // A shorter result leaves nothing of the longer one.
        app.execute("DELETE FROM award; DELETE FROM ledger_entry; DELETE FROM purchase WHERE external_id <> 'p000100'").await;
        let lines = exported(app, "ada").await;
        assert_eq!(of_type(&lines, "purchase").len(), 1);
        assert!(lines.len() < 10, "{}", lines.len());
    }
}
