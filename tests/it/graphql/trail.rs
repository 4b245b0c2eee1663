//! The trail: each mutation of an admin leaves one entry, whether it takes effect or is refused.

use apollo_compiler::ast::FieldDefinition;
use entity::trail_entry;
use sea_orm::{DatabaseBackend, EntityTrait};
use serde_json::{Value, json};

use windfall::app::ingest_position::{self, Kept, Last, Place};
use windfall::app::message::Message;

use super::rights::fields;
use crate::support::graphql::{GraphqlApp, NOW, admin, campaign_input, codes, customer, on_both, storefront, text};

/// The mutations that record what happens in the shop. They leave no entry, not even if an admin sends them. All other mutations need
/// a [`Scenario`].
const OF_THE_SHOP: [&str; 7] = [
    "recordPurchase",
    "recordPurchases",
    "recordRefund",
    "redeemReward",
    "reserveReward",
    "commitRedemption",
    "cancelRedemption",
];

/// A request, and the parts of its entry that are its own.
struct Case {
    variables: Value,
    node: Value,
    before: Value,
    after: Value,
    refused: &'static [&'static str],
}

/// What a mutation leaves in the trail: one request that takes effect, and one that is refused.
struct Scenario {
    accepted: Case,
    refused: Case,
}

fn accepted(variables: Value, node: Value, before: Value, after: Value) -> Case {
    Case { variables, node, before, after, refused: &[] }
}

fn refused(variables: Value, node: Value, refused: &'static [&'static str]) -> Case {
    Case { variables, node, before: Value::Null, after: Value::Null, refused }
}

/// The definition of a campaign with [`campaign_input`], in the trail.
fn definition(over: Value) -> Value {
    let mut whole = campaign_input(json!({
        "description": null, "endsAt": null, "timeZone": "UTC", "filter": null, "maxPerCustomer": null, "maxPerWindow": null,
        "budget": null, "lateness": "P30D", "holdFor": null, "expiresAfter": null,
    }));
    let (Value::Object(fields), Value::Object(over)) = (&mut whole, over) else { panic!("a definition is an object") };
    fields.extend(over);
    whole
}

/// The status and the boundaries of a campaign with [`campaign_input`], in the trail.
fn life(status: &str, boundary: Option<&str>) -> Value {
    let ends_at = boundary.filter(|_| status == "ENDED");
    json!({ "status": status, "startsAt": "2026-11-01T00:00:00Z", "endsAt": ends_at, "boundary": boundary })
}

fn campaign(name: &str) -> Value {
    json!({ "__typename": "Campaign", "name": name })
}

/// Sends a mutation with these arguments, and returns the response.
async fn mutate(app: &GraphqlApp, field: &FieldDefinition, variables: &Value) -> Value {
    let (mut definitions, mut arguments) = (Vec::new(), Vec::new());
    for name in variables.as_object().unwrap().keys() {
        let argument = field.argument_by_name(name).expect("an argument of the mutation");
        definitions.push(format!("${name}: {}", argument.ty));
        arguments.push(format!("{name}: ${name}"));
    }
    let (definitions, arguments) = (definitions.join(", "), arguments.join(", "));
    let query = format!("mutation({definitions}) {{ done: {}({arguments}) {{ userErrors {{ code }} }} }}", field.name);
    app.run(&admin(), &query, variables.clone()).await
}

async fn mutate_by_name(app: &GraphqlApp, name: &str, variables: &Value) -> Value {
    let field = fields("Mutation").into_iter().find(|field| field.name == name).unwrap();
    let answer = mutate(app, &field, variables).await;
    assert_eq!(answer.get("errors"), None, "{answer}");
    answer["data"]["done"]["userErrors"].clone()
}

/// Prepares a scenario for a mutation of an admin. Panics for one that is not known here, so that whoever adds a mutation decides what
/// the trail says of it.
async fn scenario(app: &GraphqlApp, mutation: &str) -> Scenario {
    let (draft, active) = (app.draft(json!({})).await, app.campaign(json!({ "name": "Active" })).await);
    let id = |id: &str| json!({ "id": id });
    let illegal = |id: &str, name: &str| refused(json!({ "id": id }), campaign(name), &["ILLEGAL_TRANSITION"]);
    match mutation {
        "createCampaign" => Scenario {
            accepted: accepted(
                json!({ "input": campaign_input(json!({ "budget": 5 })) }),
                campaign("Three"),
                Value::Null,
                definition(json!({ "budget": 5 })),
            ),
            refused: refused(
                json!({ "input": campaign_input(json!({ "name": "", "description": "", "budget": -1 })) }),
                Value::Null,
                &["REQUIRED", "OUT_OF_RANGE"],
            ),
        },
        "updateCampaign" => {
            let revision = "query($id: ID!) { campaign(id: $id) { revision } }";
            let revision = app.data(&admin(), revision, id(&draft)).await["campaign"]["revision"].take();
            let update = |revision: &Value| {
                let input =
                    json!({ "ifRevision": revision, "name": "Four", "budget": 7, "filter": { "minAmount": "3" } });
                json!({ "id": draft, "input": input })
            };
            let filter = json!({ "minAmount": "3.00", "channels": null, "categories": null, "skus": null });
            Scenario {
                refused: refused(update(&json!(1_000)), campaign("Three"), &["STALE_REVISION"]),
                accepted: accepted(
                    update(&revision),
                    campaign("Four"),
                    definition(json!({})),
                    definition(json!({ "name": "Four", "budget": 7, "filter": filter })),
                ),
            }
        }
        "cloneCampaign" => Scenario {
            accepted: accepted(
                json!({ "id": active, "name": "Copy" }),
                campaign("Copy"),
                Value::Null,
                definition(json!({ "name": "Copy" })),
            ),
            refused: refused(json!({ "id": active, "name": "" }), campaign("Active"), &["REQUIRED"]),
        },
        "deleteCampaign" => Scenario {
            refused: illegal(&active, "Active"),
            accepted: accepted(id(&draft), Value::Null, definition(json!({})), Value::Null),
        },
        "activateCampaign" => Scenario {
            accepted: accepted(id(&draft), campaign("Three"), life("DRAFT", None), life("ACTIVE", None)),
            refused: illegal(&active, "Active"),
        },
        "pauseCampaign" => Scenario {
            accepted: accepted(id(&active), campaign("Active"), life("ACTIVE", None), life("PAUSED", Some(NOW))),
            refused: illegal(&draft, "Three"),
        },
        "resumeCampaign" => {
            mutate_by_name(app, "pauseCampaign", &id(&active)).await;
            let active_again = life("ACTIVE", Some(NOW));
            Scenario {
                accepted: accepted(id(&active), campaign("Active"), life("PAUSED", Some(NOW)), active_again),
                refused: illegal(&draft, "Three"),
            }
        }
        "endCampaign" => Scenario {
            accepted: accepted(id(&active), campaign("Active"), life("ACTIVE", None), life("ENDED", Some(NOW))),
            refused: illegal(&draft, "Three"),
        },
        "adjustPoints" => {
            assert_eq!(mutate_by_name(app, mutation, &adjustment("earlier", 50)).await, json!([]));
            let ada = json!({ "__typename": "Customer", "externalId": "ada-7c1e" });
            let entry = json!({ "sequence": 2, "points": -70, "reason": "a correction" });
            let after = json!({ "balance": -20, "entry": entry });
            Scenario {
                accepted: accepted(adjustment("k", -70), ada.clone(), json!({ "balance": 50 }), after),
                refused: refused(adjustment("l", 0), ada, &["OUT_OF_RANGE"]),
            }
        }
        "createReward" => Scenario {
            accepted: accepted(
                json!({ "input": { "name": "Mug", "cost": 5 } }),
                reward("Mug"),
                Value::Null,
                reward_state(json!({})),
            ),
            refused: refused(json!({ "input": { "name": "", "cost": 0 } }), Value::Null, &["REQUIRED", "OUT_OF_RANGE"]),
        },
        "updateReward" => {
            let id = made_reward(app).await;
            let update = |revision| json!({ "id": id, "input": { "ifRevision": revision, "cost": 7, "stock": 3 } });
            Scenario {
                refused: refused(update(2), reward("Mug"), &["STALE_REVISION"]),
                accepted: accepted(
                    update(1),
                    reward("Mug"),
                    reward_state(json!({})),
                    reward_state(json!({ "cost": 7, "stock": 3 })),
                ),
            }
        }
        "addRewardCodes" => {
            let id = made_reward(app).await;
            let add = |codes: &[&str]| json!({ "rewardId": id, "codes": codes });
            let state = |unused: i64| json!({ "codes": { "unused": unused, "given": 0 } });
            Scenario {
                refused: refused(add(&[]), reward("Mug"), &["OUT_OF_RANGE"]),
                accepted: accepted(add(&["A", "B", "A"]), reward("Mug"), state(0), state(2)),
            }
        }
        "exportCustomer" => {
            assert_eq!(mutate_by_name(app, "adjustPoints", &adjustment("export", 50)).await, json!([]));
            let ada = json!({ "__typename": "Customer", "externalId": "ada-7c1e" });
            let after = json!({ "kind": "EXPORT", "state": "WAITING" });
            Scenario {
                accepted: accepted(json!({ "externalId": "ada-7c1e" }), ada, Value::Null, after),
                refused: refused(json!({ "externalId": "nobody" }), Value::Null, &["NOT_FOUND"]),
            }
        }
        "eraseCustomer" => {
            assert_eq!(mutate_by_name(app, "adjustPoints", &adjustment("erase", 50)).await, json!([]));
            let ada = json!({ "__typename": "Customer", "externalId": "ada-7c1e" });
            let after = json!({ "kind": "ERASURE", "state": "WAITING" });
            let erase = |confirmed: &str| json!({ "externalId": "ada-7c1e", "confirmExternalId": confirmed });
            Scenario {
                accepted: accepted(erase("ada-7c1e"), ada, Value::Null, after),
                refused: refused(erase("ada"), Value::Null, &["INVALID"]),
            }
        }
        "retryJob" | "cancelJob" => {
            let (states, action) = (["WAITING", "DEAD"], mutation);
            let waiting = made_job(app, "waiting").await;
            let dead = made_job(app, "dead").await;
            let done = made_job(app, "done").await;
            let (id_of, from, to, attempts) = if action == "retryJob" {
                (dead, states[1], states[0], 0)
            } else {
                (waiting, states[0], "CANCELLED", 8)
            };
            let state =
                |state: &str, attempts: i64, at: &str| json!({ "state": state, "attempts": attempts, "runAt": at });
            let later = "2027-01-01T00:00:00Z";
            let run_at = if action == "retryJob" { NOW } else { later };
            Scenario {
                accepted: accepted(id(&id_of), job(to), state(from, 8, later), state(to, attempts, run_at)),
                refused: refused(id(&done), job("DONE"), &["ILLEGAL_TRANSITION"]),
            }
        }
        "replayDeadLetter" | "discardDeadLetter" => {
            // It was recorded otherwise in the meantime, so its replay changes nothing else.
            app.purchase("lost", "ada-7c1e", "2026-11-02T10:00:00Z", "5").await;
            let whole = r#"{"externalId":"lost","customerExternalId":"ada-7c1e","purchasedAt":"2026-11-02T10:00:00Z","total":"5","currency":"EUR"}"#;
            let size = whole.len();
            let (whole, broken) = (dead_letter(app, 0, whole).await, dead_letter(app, 1, "{").await);
            let before = json!({ "topic": "orders", "partition": 0, "offset": 0, "size": size });
            if mutation == "replayDeadLetter" {
                let node = json!({ "__typename": "DeadLetter", "topic": "orders" });
                return Scenario {
                    accepted: accepted(id(&whole), Value::Null, before, Value::Null),
                    refused: refused(id(&broken), node, &["INVALID"]),
                };
            }
            let discard = |id: &str, reason: &str| json!({ "id": id, "reason": reason });
            let after = json!({ "discardedBecause": "a test" });
            let node = json!({ "__typename": "DeadLetter", "topic": "orders" });
            Scenario {
                accepted: accepted(discard(&whole, "a test"), Value::Null, before, after),
                refused: refused(discard(&broken, ""), node, &["REQUIRED"]),
            }
        }
        other => panic!(
            "{other}: decide what the trail says of it, and add a request that takes effect and one that is refused"
        ),
    }
}

fn job(state: &str) -> Value {
    json!({ "__typename": "Job", "state": state })
}

/// Makes a dead letter with this offset and payload, and returns its id.
async fn dead_letter(app: &GraphqlApp, offset: i64, payload: &str) -> String {
    let message = Message {
        topic: "orders".into(),
        partition: 0,
        offset,
        key: None,
        headers: Vec::new(),
        value: Some(payload.as_bytes().to_vec()),
        sent_at: None,
    };
    let place = Place { group: rand::random::<u64>().to_string(), topic: "orders".to_owned(), partition: 0 };
    let dead = vec![message.dead("a reason", app.app.clock.now())];
    let last = Last { offset, hash: message.hash() };
    ingest_position::advance(&app.app, &place, 0, &last, &Kept { dead, waiting: Vec::new() }).await.unwrap();
    let answer = app.data(&admin(), "{ deadLetters(first: 100) { nodes { id offset } } }", json!({})).await;
    let nodes = answer["deadLetters"]["nodes"].as_array().unwrap();
    text(&nodes.iter().find(|node| node["offset"] == offset).unwrap()["id"])
}

/// Makes a backfill that can be cancelled, in this state, and returns its id.
async fn made_job(app: &GraphqlApp, state: &str) -> String {
    let columns = "kind, unique_key, state, requests, attempts, run_at, created_at";
    let key = format!("{state} {}", rand::random::<u64>());
    app.execute(&format!(
        "INSERT INTO job ({columns}) VALUES ('evaluation', '{key}', '{state}', 1, 8, 1798761600000000, 1893456000000000)"
    ))
    .await;
    let query = "{ jobs(first: 1) { nodes { id } } }";
    text(&app.data(&admin(), query, json!({})).await["jobs"]["nodes"][0]["id"])
}

fn reward(name: &str) -> Value {
    json!({ "__typename": "Reward", "name": name })
}

/// A reward of 5 points, in the trail.
fn reward_state(over: Value) -> Value {
    let mut whole = json!({
        "name": "Mug", "description": null, "imageUrl": null, "cost": 5, "stock": null, "maxPerCustomer": null, "startsAt": null,
        "endsAt": null, "active": true, "selfService": false,
    });
    let (Value::Object(fields), Value::Object(over)) = (&mut whole, over) else { panic!("a state is an object") };
    fields.extend(over);
    whole
}

async fn made_reward(app: &GraphqlApp) -> String {
    let query = "mutation($input: RewardInput!) { createReward(input: $input) { reward { id } } }";
    let answer = app.data(&admin(), query, json!({ "input": { "name": "Mug", "cost": 5 } })).await;
    text(&answer["createReward"]["reward"]["id"])
}

fn adjustment(key: &str, points: i64) -> Value {
    let input =
        json!({ "customerExternalId": "ada-7c1e", "points": points, "reason": "a correction", "idempotencyKey": key });
    json!({ "input": input })
}

const ENTRIES: &str = "{ trail(first: 100) { nodes { id at subjectOfToken role action node { __typename \
    ... on Campaign { name } ... on Customer { externalId } ... on Reward { name } ... on Job { state } ... on DeadLetter { topic } } before after refused requestId address } } }";

/// All entries, newest first, with their states parsed.
async fn entries(app: &GraphqlApp) -> Vec<Value> {
    let mut answer = app.data(&admin(), ENTRIES, json!({})).await;
    let Value::Array(mut entries) = answer["trail"]["nodes"].take() else { panic!("a list") };
    for entry in &mut entries {
        for name in ["before", "after"] {
            entry[name] = entry[name].as_str().map_or(Value::Null, |state| serde_json::from_str(state).unwrap());
        }
    }
    entries
}

/// The parts of entries that never change. A node is shown as it is now.
fn without_nodes(mut entries: Vec<Value>) -> Vec<Value> {
    entries.iter_mut().for_each(|entry| entry["node"] = Value::Null);
    entries
}

fn mutations_of_admins() -> Vec<FieldDefinition> {
    let mutations = fields("Mutation").into_iter().filter(|field| !OF_THE_SHOP.contains(&field.name.as_str()));
    mutations.collect()
}

#[test]
fn only_mutations_of_admins_have_entries() {
    let of_admins: Vec<String> = mutations_of_admins().iter().map(|field| field.name.to_string()).collect();
    assert!(of_admins.len() >= 9, "{of_admins:?}");
    for field in fields("Mutation") {
        let description = field.description.as_deref().unwrap_or_default().replace('\n', " ");
        let is_of_admins = description.contains("Requires an admin token (`FORBIDDEN`)");
        assert_eq!(is_of_admins, of_admins.contains(&field.name.to_string()), "{}", field.name);
    }
}

/// Makes the database refuse what a statement does to a table.
pub(super) async fn sabotage(app: &GraphqlApp, event: &str, table: &str) {
    let sql = match app.app.database.backend() {
        DatabaseBackend::Postgres => format!(
            "CREATE OR REPLACE FUNCTION sabotage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$; \
             CREATE TRIGGER sabotage BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION sabotage()"
        ),
        _ => format!("CREATE TRIGGER sabotage BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END"),
    };
    app.execute(&sql).await;
}

pub(super) async fn repair(app: &GraphqlApp, table: &str) {
    let on =
        if app.app.database.backend() == DatabaseBackend::Postgres { format!(" ON {table}") } else { String::new() };
    app.execute(&format!("DROP TRIGGER sabotage{on}")).await;
}

/// What the mutations of admins may change.
async fn world(app: &GraphqlApp) -> Value {
    let query = "{ campaigns(first: 100) { nodes { id name status endsAt revision budget } } \
        rewards(first: 100) { nodes { id cost stock revision codes { unused } } } \
        jobs(first: 100) { nodes { id state attempts runAt } } \
        customer(by: { externalId: \"ada-7c1e\" }) { balance { available version } ledger { nodes { sequence } } } }";
    app.data(&admin(), query, json!({})).await
}

on_both! {
    async fn every_mutation_of_an_admin_leaves_one_entry(app: &GraphqlApp) {
        for field in mutations_of_admins() {
            let Scenario { accepted, refused } = scenario(app, &field.name).await;
            for case in [refused, accepted] {
                let before = without_nodes(entries(app).await);
                let answer = mutate(app, &field, &case.variables).await;
                assert_eq!(codes(&answer), Vec::<String>::new(), "{}: {answer}", field.name);
                let mut after = entries(app).await;
                let mut entry = after.remove(0);
                assert_eq!(without_nodes(after), before, "{}: one entry more", field.name);
                assert!(!text(&entry["id"].take()).is_empty());
                let expected = json!({
                    "id": null, "at": NOW, "subjectOfToken": "eve", "role": "admin", "action": field.name.as_str(), "node": case.node,
                    "before": case.before, "after": case.after, "refused": case.refused, "requestId": "request-7",
                    "address": "192.0.2.7",
                });
                assert_eq!(entry, expected, "{}", field.name);
                let user_errors = answer["data"]["done"]["userErrors"].as_array().unwrap();
                assert!(user_errors.iter().all(|error| case.refused.contains(&error["code"].as_str().unwrap())));
                assert_eq!(user_errors.is_empty(), case.refused.is_empty());
            }
        }
        // The external id of the customer is nowhere in the table.
        let rows = trail_entry::Entity::find().all(app.app.database.read()).await.unwrap();
        assert!(rows.iter().any(|row| row.customer_id.is_some()));
        assert!(rows.iter().all(|row| !format!("{row:?}").contains("ada-7c1e")), "{rows:?}");
    }

    async fn what_names_nothing_that_exists_has_no_node(app: &GraphqlApp) {
        for (name, variables, code) in [
            ("pauseCampaign", json!({ "id": "nonsense" }), "NOT_FOUND"),
            ("deleteCampaign", json!({ "id": "Q2FtcGFpZ246OTk" }), "NOT_FOUND"),
            ("cloneCampaign", json!({ "id": "Q3VzdG9tZXI6YWRh", "name": "Copy" }), "NOT_FOUND"),
            ("adjustPoints", adjustment("k", 0), "OUT_OF_RANGE"),
        ] {
            assert_eq!(mutate_by_name(app, name, &variables).await, json!([{ "code": code }]), "{name}");
            let newest = entries(app).await.remove(0);
            assert_eq!((&newest["action"], &newest["node"]), (&json!(name), &Value::Null));
            assert_eq!(newest["refused"], json!([code]));
        }
        assert_eq!(entries(app).await.len(), 4);
    }

    async fn facts_leave_no_entry(app: &GraphqlApp) {
        let purchase = json!({
            "externalId": "p", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "1", "currency": "EUR",
        });
        let refund = json!({ "externalId": "r", "purchaseExternalId": "p", "refundedAt": "2026-11-02T11:00:00Z" });
        for (name, variables) in [
            ("recordPurchase", json!({ "input": purchase })),
            ("recordPurchases", json!({ "inputs": [purchase] })),
            ("recordRefund", json!({ "input": refund })),
        ] {
            assert!(OF_THE_SHOP.contains(&name));
            let field = fields("Mutation").into_iter().find(|field| field.name == name).unwrap();
            assert_eq!(codes(&mutate(app, &field, &variables).await), Vec::<String>::new());
            let unknown = json!({ "externalId": "s", "purchaseExternalId": "q", "refundedAt": "2026-11-02T11:00:00Z" });
            assert_eq!(mutate_by_name(app, "recordRefund", &json!({ "input": unknown })).await, json!([{ "code": "PURCHASE_NOT_FOUND" }]));
        }
        assert_eq!(entries(app).await, Vec::<Value>::new());
    }

    /// No statement of these writes touches the trail, so it does not make them slower.
    async fn facts_are_recorded_without_the_trail(app: &GraphqlApp) {
        app.campaign(json!({})).await;
        app.execute("DROP TABLE trail_entry").await;
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        let refund = json!({ "externalId": "r", "purchaseExternalId": "p", "refundedAt": "2026-11-02T11:00:00Z" });
        assert_eq!(mutate_by_name(app, "recordRefund", &json!({ "input": refund })).await, json!([]));
        let field = fields("Mutation").into_iter().find(|field| field.name == "adjustPoints").unwrap();
        assert_eq!(codes(&mutate(app, &field, &adjustment("k", 5)).await), ["INTERNAL"]);
    }

    async fn a_repeated_key_leaves_no_second_entry(app: &GraphqlApp) {
        let original = app.draft(json!({})).await;
        let create = json!({ "input": campaign_input(json!({ "name": "New" })), "idempotencyKey": "create" });
        let clone = json!({ "id": original, "name": "Copy", "idempotencyKey": "clone" });
        for (name, variables) in [("createCampaign", create), ("cloneCampaign", clone), ("adjustPoints", adjustment("adjust", 5))] {
            assert_eq!(mutate_by_name(app, name, &variables).await, json!([]), "{name}");
            let once = entries(app).await;
            assert_eq!(once[0]["action"], name);
            assert_eq!(mutate_by_name(app, name, &variables).await, json!([]), "{name}");
            assert_eq!(entries(app).await, once, "{name}");
        }
        // The same key with another content is refused.
        let before = entries(app).await.len();
        assert_eq!(mutate_by_name(app, "adjustPoints", &adjustment("adjust", 6)).await, json!([{ "code": "IDEMPOTENCY_CONFLICT" }]));
        let after = entries(app).await;
        assert_eq!((after.len(), &after[0]["refused"]), (before + 1, &json!(["IDEMPOTENCY_CONFLICT"])));
    }

    /// Several adjustments of one customer are one commit, with an entry each.
    async fn adjustments_of_one_batch_have_an_entry_each(app: &GraphqlApp) {
        let field = fields("Mutation").into_iter().find(|field| field.name == "adjustPoints").unwrap();
        let variables: Vec<Value> = (1..=20).map(|n| adjustment(&format!("k{n}"), n)).collect();
        let answers = futures_util::future::join_all(variables.iter().map(|variables| mutate(app, &field, variables))).await;
        assert!(answers.iter().all(|answer| codes(answer).is_empty()));
        let mut entries = entries(app).await;
        assert_eq!(entries.len(), 20);
        entries.sort_by_key(|entry| entry["after"]["entry"]["sequence"].as_i64());
        let mut balance = 0;
        for (sequence, entry) in (1..).zip(&entries) {
            let posted = &entry["after"]["entry"];
            assert_eq!((&entry["before"], &posted["sequence"]), (&json!({ "balance": balance }), &json!(sequence)));
            balance += posted["points"].as_i64().unwrap();
            assert_eq!(entry["after"]["balance"], balance);
        }
        assert_eq!(balance, 210);
    }

    /// An entry that cannot be written takes its change with it, and a change that cannot be written takes its entry with it.
    async fn neither_a_change_nor_its_entry_is_there_without_the_other(app: &GraphqlApp) {
        for field in mutations_of_admins() {
            let Scenario { accepted, refused } = scenario(app, &field.name).await;
            let before = (entries(app).await, world(app).await);
            let change = match field.name.as_str() {
                "adjustPoints" => ("UPDATE", "customer"),
                "createReward" => ("INSERT", "reward"),
                "updateReward" => ("UPDATE", "reward"),
                "addRewardCodes" => ("UPDATE", "stock"),
                "retryJob" | "cancelJob" => ("UPDATE", "job"),
                "exportCustomer" | "eraseCustomer" => ("INSERT", "job"),
                "replayDeadLetter" | "discardDeadLetter" => ("DELETE", "dead_letter"),
                _ => ("UPDATE", "installation"),
            };
            for (event, table) in [("INSERT", "trail_entry"), change] {
                sabotage(app, event, table).await;
                let answer = mutate(app, &field, &accepted.variables).await;
                assert_eq!(codes(&answer), ["INTERNAL"], "{}: {table}", field.name);
                assert_eq!((entries(app).await, world(app).await), before, "{}: {table}", field.name);
                repair(app, table).await;
            }
            // A refusal is told even if it cannot be written down.
            sabotage(app, "INSERT", "trail_entry").await;
            let answer = mutate(app, &field, &refused.variables).await;
            assert_ne!(answer["data"]["done"]["userErrors"], json!([]), "{}", field.name);
            repair(app, "trail_entry").await;
            assert_eq!((entries(app).await, world(app).await), before, "{}", field.name);
            assert_eq!(codes(&mutate(app, &field, &accepted.variables).await), Vec::<String>::new(), "{}", field.name);
        }
    }

    async fn a_large_definition_is_shortened(app: &GraphqlApp) {
        let skus: Vec<String> = (0..500).map(|n| format!("{n:0>40}")).collect();
        let draft = app.draft(json!({ "filter": { "skus": skus } })).await;
        let revision = app.data(&admin(), "query($id: ID!) { campaign(id: $id) { revision } }", json!({ "id": draft })).await;
        let input = json!({ "ifRevision": revision["campaign"]["revision"], "name": "Four" });
        assert_eq!(mutate_by_name(app, "updateCampaign", &json!({ "id": draft, "input": input })).await, json!([]));
        let entry = entries(app).await.remove(0);
        assert_eq!((&entry["before"]["name"], &entry["after"]["name"]), (&json!("Three"), &json!("Four")));
        let filter = &entry["after"]["filter"];
        assert!(filter["bytes"].as_u64().unwrap() > 20_000 && text(&filter["sha256"]).len() == 64, "{filter}");
        assert_eq!(entry["before"]["filter"], *filter);
    }

    async fn the_trail_is_newest_first_and_can_be_filtered(app: &GraphqlApp) {
        let draft = app.draft(json!({})).await;
        for (minute, mutation) in ["activateCampaign", "pauseCampaign", "resumeCampaign", "resumeCampaign"].iter().enumerate() {
            app.set_clock(&format!("2026-11-02T12:0{}:00Z", minute + 1));
            mutate_by_name(app, mutation, &json!({ "id": draft })).await;
        }
        let query = "query($action: [String!]) { trail(action: $action) { nodes { at action refused } } }";
        let found = async |action: Value| {
            let mut answer = app.data(&admin(), query, json!({ "action": action })).await;
            let Value::Array(nodes) = answer["trail"]["nodes"].take() else { panic!("a list") };
            nodes.iter().map(|node| format!("{} {}", &text(&node["at"])[14..16], text(&node["action"]))).collect::<Vec<_>>()
        };
        let all = ["04 resumeCampaign", "03 resumeCampaign", "02 pauseCampaign", "01 activateCampaign", "00 createCampaign"];
        assert_eq!(found(Value::Null).await, all);
        assert_eq!(found(json!(["resumeCampaign", "createCampaign", "resumeCampaign"])).await, [all[0], all[1], all[4]]);
        assert_eq!(found(json!(["pauseCampaign", "nothing", "", "\0"])).await, [all[2]]);
        assert_eq!(found(json!([])).await, Vec::<String>::new());
        let many = vec!["x"; 101];
        assert_eq!(app.codes(&admin(), query, json!({ "action": many })).await, ["BAD_USER_INPUT"]);
    }

    async fn only_admins_read_entries_by_id(app: &GraphqlApp) {
        app.draft(json!({})).await;
        let id = entries(app).await[0]["id"].clone();
        let query = "query($id: ID!) { node(id: $id) { __typename id ... on TrailEntry { action } } nodes(ids: [$id]) { id } }";
        let seen = async |viewer| app.data(&viewer, query, json!({ "id": id })).await;
        let entry = json!({ "__typename": "TrailEntry", "id": id, "action": "createCampaign" });
        assert_eq!(seen(admin()).await, json!({ "node": entry, "nodes": [{ "id": id }] }));
        for viewer in [storefront(), customer("ada")] {
            assert_eq!(seen(viewer).await, json!({ "node": null, "nodes": [null] }));
        }
    }
}
