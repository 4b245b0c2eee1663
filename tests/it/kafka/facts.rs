//! What the messages of a topic do.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn facts_are_recorded_from_the_beginning_and_only_once() {
    for engine in ENGINES {
        let topic = Topic::shared(4).await;
        topic.send(purchases(0, 300));
        let (database, _kept) = scratch(engine).await;
        let shop = topic.read(&database).await;
        shop.campaign(json!({})).await;
        topic.send(purchases(300, 500));
        topic.send([("ada", refund_of("p0", "r0").replace("4.00", "10.00"))]);
        have_points(&shop, 499).await;
        assert_eq!(shop.server.terminate().code(), Some(0));
        // What was read is not read again.
        topic.send(purchases(400, 600));
        let shop = topic.read(&database).await;
        have_points(&shop, 599).await;
        // Messages are counted after their commit.
        wait(async || metric(&shop, "windfall_ingest_messages_total").await >= 200.0, "all messages are counted").await;
        wait(async || metric(&shop, "windfall_ingest_lag_messages").await == 0.0, "there is no lag").await;
        let taken = metric(&shop, "windfall_ingest_messages_total").await;
        assert!((200.0..250.0).contains(&taken), "{taken}");
        drop(shop);
        audit_is_clean(&database);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_and_the_api_and_an_import_record_the_same_purchases_once() {
    let topic = Topic::shared(3).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: Vec<String> = purchases(0, 600).into_iter().map(|(_, value)| value).collect();
    std::fs::write(file.path(), lines.join("\n")).unwrap();
    let import = std::thread::spawn({
        let (database, file) = (database.clone(), file.path().to_owned());
        move || crate::support::server::run(command(&database).args(["import", "--format", "ndjson"]).arg(file))
    });
    topic.send(purchases(0, 600));
    let query =
        "mutation($inputs: [RecordPurchaseInput!]!) { recordPurchases(inputs: $inputs) { userErrors { code } } }";
    for chunk in lines.chunks(100) {
        let inputs: Vec<Value> = chunk.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let answer = shop.data(&shop.storefront, query, json!({ "inputs": inputs })).await;
        assert!(answer["recordPurchases"].as_array().unwrap().iter().all(|it| it["userErrors"] == json!([])));
    }
    assert_eq!(import.join().unwrap().code, Some(0));
    wait(async || metric(&shop, "windfall_ingest_messages_total").await >= 600.0, "the topic is read").await;
    have_points(&shop, 600).await;
    audit_is_clean(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_becomes_dead_letters_that_can_be_replayed() {
    let topic = Topic::shared(1).await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    let mut large: Value = serde_json::from_str(&purchase("large", "ada")).unwrap();
    large["note"] = json!("x".repeat(100_000));
    // A schema registry's mark, a field that is not known, and two messages that cannot be recorded.
    topic.send([
        ("ada", format!("\0\0\0\0\x05{}", purchase("p1", "ada"))),
        ("ada", large.to_string()),
        ("ada", large.to_string().replace("\"EUR\"", "\"XXY\"")),
        ("ada", "{".to_owned()),
        ("ada", purchase("p2", "ada")),
    ]);
    have_points(&shop, 3).await;
    let letters = "{ deadLetters { nodes { id size reason } } }";
    wait(async || metric(&shop, "windfall_dead_letters").await == 2.0, "dead letters are counted").await;
    let answer = shop.data(&shop.admin, letters, json!({})).await;
    let [broken, large] = &answer["deadLetters"]["nodes"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!((&broken["size"], large["size"].as_i64() > Some(100_000)), (&json!(1), true));
    // The whole message is read again: its reason is still the currency, and not that only a part of it was kept.
    let replay = "mutation($id: ID!) { replayDeadLetter(id: $id) { userErrors { message } } }";
    let answer = shop.data(&shop.admin, replay, json!({ "id": large["id"] })).await;
    let told = answer["replayDeadLetter"]["userErrors"][0]["message"].as_str().unwrap();
    assert!(told.contains("currency"), "{told}");
    assert_eq!(metric(&shop, "windfall_ingest_unknown_fields_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_the_shops_own_form_need_a_map() {
    let topic = Topic::shared(2).await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let map = tempfile::NamedTempFile::new().unwrap();
    let columns = "currency = \"EUR\"\n[columns]\n\"order.no\" = \"externalId\"\n\"order.buyer\" = \"customerExternalId\"\n\
        \"order.at\" = \"purchasedAt\"\n\"order.sum\" = \"total\"\n\"items[].sku\" = \"lines.sku\"\n\"items[].eur\" = \"lines.amount\"\n";
    std::fs::write(map.path(), columns).unwrap();
    let shop = Shop::open_with(topic.command(&database).env("WINDFALL__KAFKA__FACTS_MAP", map.path())).await;
    shop.campaign(json!({})).await;
    let order = |n: usize| json!({ "order": { "no": n, "buyer": "ada", "at": "2026-11-01T10:00:00Z", "sum": 12.5 }, "items": [{ "sku": "tea", "eur": 12.5 }] });
    topic.send((0..20).map(|n| ("ada", order(n).to_string())));
    have_points(&shop, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_may_come_before_its_purchase() {
    let topic = Topic::shared(1).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    topic.send((0..50).map(|n| ("ada", refund_of(&format!("p{n}"), &format!("r{n}")).replace("4.00", "10.00"))));
    wait(async || metric(&shop, "windfall_waiting_facts").await == 50.0, "refunds wait").await;
    topic.send(purchases(0, 50));
    wait(async || metric(&shop, "windfall_waiting_facts").await == 0.0, "no refund waits").await;
    have_points(&shop, 0).await;
    audit_is_clean(&database);
}
