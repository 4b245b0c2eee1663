//! The trail as the operators' README describes it: its example query, and what the log has if the trail cannot be written.

use std::io::Read as _;
use std::process::Stdio;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{blocks, text};
use crate::support::app::open;
use crate::support::server::{command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

const DELETE: &str = "mutation($id: ID!) { deleteCampaign(id: $id) { userErrors { code } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_shows_who_changed_a_budget() {
    let [query] = &blocks("graphql")[..] else { panic!("one block of GraphQL") };
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    let campaign = shop.campaign(json!({ "budget": 100 })).await;
    shop.data(&shop.admin, DELETE, json!({ "id": campaign })).await;
    let revision = "query($id: ID!) { campaign(id: $id) { revision } }";
    let revision = shop.data(&shop.admin, revision, json!({ "id": campaign })).await["campaign"]["revision"].take();
    let update = "mutation($id: ID!, $input: CampaignUpdateInput!) { updateCampaign(id: $id, input: $input) { userErrors { code } } }";
    let mallory = token(Role::Admin, "mallory");
    shop.data(&mallory, update, json!({ "id": campaign, "input": { "ifRevision": revision, "budget": 900 } })).await;
    let answer = shop.data(&shop.admin, query, Value::Null).await;
    let [entry] = &answer["trail"]["nodes"].as_array().unwrap()[..] else { panic!("one entry: {answer}") };
    let budget = |state: &str| serde_json::from_str::<Value>(text(&entry[state])).unwrap()["budget"].clone();
    assert_eq!((&entry["subjectOfToken"], &entry["refused"]), (&json!("mallory"), &json!([])));
    assert_eq!((&entry["node"]["name"], budget("before"), budget("after")), (&json!("each"), json!(100), json!(900)));
}

/// What cannot be written to the trail is in the log, and so is each failure, with the id of its request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_what_the_trail_lacks() {
    let sqlite = Sqlite::new();
    let (server, stderr) =
        crate::support::server::Server::start_with(command(&sqlite.url()).stderr(Stdio::piped())).await;
    let shop = Shop::of(server);
    let campaign = shop.campaign(json!({})).await;
    let database = open(&sqlite.url()).await;
    let tx = database.begin().await.unwrap();
    let sql = "CREATE TRIGGER sabotage BEFORE INSERT ON trail_entry BEGIN SELECT RAISE(ABORT, 'no'); END";
    tx.execute_unprepared(sql).await.unwrap();
    tx.commit().await.unwrap();
    database.close().await.unwrap();
    let send = async |query: &str, id: &str| -> Value {
        let request = shop.client.post(format!("{}/graphql", shop.address())).bearer_auth(&shop.admin);
        let body = json!({ "query": query, "variables": { "id": campaign } });
        request.header("x-request-id", id).json(&body).send().await.unwrap().json().await.unwrap()
    };
    let refused = send(DELETE, "refused-1").await;
    assert_eq!(refused["data"]["deleteCampaign"]["userErrors"], json!([{ "code": "ILLEGAL_TRANSITION" }]));
    let failed = send("mutation($id: ID!) { pauseCampaign(id: $id) { campaign { id } } }", "failed-1").await;
    let correlation_id = text(&failed["errors"][0]["extensions"]["correlationId"]).to_owned();
    assert!(shop.server.terminate().success());
    let mut log = String::new();
    stderr.unwrap().read_to_string(&mut log).unwrap();
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {log}"));
    let missing = line("a refused attempt is missing in the trail");
    for part in ["refused-1", "deleteCampaign", "eve", "admin", "ILLEGAL_TRANSITION", "campaign_id="] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    let failure = line("a request failed");
    assert!(failure.contains("failed-1") && failure.contains(&correlation_id), "{failure}");
}
