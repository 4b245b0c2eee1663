//! Events that are published to topics of real brokers: their form, their order, and what happens if brokers or servers die.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rdkafka::admin::{AlterConfig, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use windfall::app::App;
use windfall::app::model::{CustomerId, OutboxRow};
use windfall::app::sink::Published;
use windfall::config::{GroupProtocol, Kafka, KafkaSecurity};
use windfall::ingest::events::prepare;

use super::*;
use crate::outbox::Consumer;
use crate::support::app::TestApp;
use crate::support::kafka::Kafka as Brokers;

/// The topics that a server publishes to.
struct Topics {
    brokers: String,
    events: String,
    balances: String,
}

/// A message of a topic.
#[derive(Clone, Debug)]
struct Message {
    key: String,
    value: Option<String>,
    headers: BTreeMap<String, String>,
}

impl Topics {
    async fn make(brokers: String, replicas: i32) -> Self {
        let number = rand::random::<u32>();
        let topics = Self { brokers, events: format!("events-{number}"), balances: format!("balances-{number}") };
        make_topic(&topics.brokers, &topics.events, 3, replicas).await;
        make_topic(&topics.brokers, &topics.balances, 3, replicas).await;
        topics
    }

    /// A command that runs the program on a database and lets it publish to these topics.
    fn command(&self, database: &str) -> Command {
        let mut command = command(database);
        command
            .env("WINDFALL__KAFKA__BROKERS", &self.brokers)
            .env("WINDFALL__KAFKA__EVENTS_TOPIC", &self.events)
            .env("WINDFALL__KAFKA__BALANCES_TOPIC", &self.balances);
        command
    }

    async fn publish(&self, database: &str) -> Shop {
        Shop::open_with(&mut self.command(database)).await
    }

    /// Like [`Self::publish`], without transactions of Kafka.
    async fn publish_plainly(&self, database: &str) -> Shop {
        Shop::open_with(self.command(database).env("WINDFALL__KAFKA__EVENTS_TRANSACTIONAL", "false")).await
    }

    /// Everything that is in a topic now, in the order of each partition.
    fn all(&self, topic: &str) -> Vec<Message> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            // The markers of transactions take offsets, so the last message need not be the last offset.
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..3 {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut found, mut ended) = (Vec::new(), 0);
        while ended < 3 {
            let message = match consumer.poll(PATIENCE).expect("a message, or an end") {
                Ok(message) => message,
                Err(KafkaError::PartitionEOF(_)) => {
                    ended += 1;
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            found.push(Message {
                key: text(message.key().unwrap()),
                value: message.payload().map(text),
                headers: headers.map(|header| (header.key.to_owned(), text(header.value.unwrap()))).collect(),
            });
        }
        found
    }

    /// Whether consumers of events wait for the end of a transaction.
    fn has_open_transaction(&self) -> bool {
        let ends = |isolation: &str| -> Vec<i64> {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &self.brokers)
                .set("isolation.level", isolation)
                .create()
                .unwrap();
            (0..3).map(|partition| consumer.fetch_watermarks(&self.events, partition, PATIENCE).unwrap().1).collect()
        };
        ends("read_committed") != ends("read_uncommitted")
    }

    /// Follows the events as `docs/events.md` says.
    fn consumer(&self) -> Consumer {
        let mut consumer = Consumer::default();
        for event in self.all(&self.events) {
            consumer.take(event.value.as_deref().unwrap(), None);
        }
        consumer
    }
}

async fn all_are_published(shop: &Shop, events: f64) {
    wait(async || metric(shop, "windfall_events_published_total").await >= events, "events are published").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_balances_are_published_in_order() {
    for engine in ENGINES {
        let topics = Topics::make(shared().await.brokers(), 1).await;
        let (database, _kept) = scratch(engine).await;
        let shop = match engine {
            Engine::Postgres => topics.publish(&database).await,
            Engine::Sqlite => topics.publish_plainly(&database).await,
        };
        shop.campaign(json!({})).await;
        for customer in ["ada", "bob"] {
            shop.buy_many(customer, 0..30).await;
        }
        all_are_published(&shop, 2.0).await;
        wait(async || metric(&shop, "windfall_event_wait_seconds").await == 0.0, "nothing waits").await;
        wait(
            async || topics.consumer().points("ada") == 300 && topics.consumer().points("bob") == 300,
            "all events are there",
        )
        .await;
        let event = topics.all(&topics.events).into_iter().find(|event| event.key == "ada").unwrap();
        for (name, value) in
            [("ce_type", "windfall.points.changed.v1"), ("ce_subject", "ada"), ("content-type", "application/json")]
        {
            assert_eq!(event.headers[name], value);
        }
        // The last balance of each customer is its current one.
        let balances = topics.all(&topics.balances);
        let last = |name: &str| balances.iter().rfind(|balance| balance.key == name).unwrap();
        let balance: Value = serde_json::from_str(last("ada").value.as_deref().unwrap()).unwrap();
        assert_eq!((&balance["available"], &balance["lifetime"]), (&json!(300), &json!(300)), "{engine:?}");
        // A cursor of an event is one of the API.
        let cursor =
            &topics.all(&topics.events).iter().rfind(|event| event.key == "ada").unwrap().headers["ce_id"].clone();
        let query = "query($id: String!) { customer(by: { externalId: $id }) { balance { cursor } } }";
        let answer = shop.data(&shop.admin, query, json!({ "id": "ada" })).await;
        assert_eq!(answer["customer"]["balance"]["cursor"], json!(cursor));

        let erase = "mutation($id: String!) { eraseCustomer(externalId: $id, confirmExternalId: $id) { userErrors { message } } }";
        shop.data(&shop.admin, erase, json!({ "id": "ada" })).await;
        wait(
            async || topics.all(&topics.balances).iter().any(|it| it.key == "ada" && it.value.is_none()),
            "the tombstone",
        )
        .await;
        let told = topics.all(&topics.events).into_iter().rfind(|event| event.key == "ada").unwrap();
        assert_eq!(told.headers["ce_type"], "windfall.customer.erased.v1");
        assert_eq!(shop.server.terminate().code(), Some(0));
        audit_is_clean(&database);
    }
}

/// Runs a Python program with the packages that the tests install.
fn python(arguments: &[&str]) -> crate::support::server::Ran {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("tests/clients/.venv/bin/python"));
    crate::support::server::run(command.current_dir(root).args(arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consumer_of_the_documentation_has_the_ledgers() {
    let topics = Topics::make(shared().await.brokers(), 1).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topics.publish(&database).await;
    shop.campaign(json!({})).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledgers.db").display().to_string();
    let ledgers = async || {
        let expected = shop.balance("ada").await["available"].as_i64().unwrap();
        wait(async || topics.consumer().points("ada") == expected, "all events are published").await;
        let ran = python(&["docs/examples/consume_events.py", &topics.brokers, &topics.events, &file, "--once"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
        let read = "import sqlite3,sys; print(*sqlite3.connect(sys.argv[1]).execute('SELECT name, points, must_be_loaded FROM customer'))";
        assert_eq!(python(&["-c", read, &file]).stdout, format!("('ada', {expected}, 0)\n"));
    };
    shop.buy_many("ada", 0..30).await;
    shop.refund("ada", 3).await;
    ledgers().await;
    // It goes on where it stopped.
    shop.buy_many("ada", 30..40).await;
    ledgers().await;

    // Every message is as asyncapi.json describes it.
    let lines = folder.path().join("lines");
    let line = |name: &str, message: &Message| {
        let value: Value = message.value.as_deref().map_or(Value::Null, |value| serde_json::from_str(value).unwrap());
        format!("{}\n", json!([name, value]))
    };
    let (events, balances) = (topics.all(&topics.events), topics.all(&topics.balances));
    let mut text: String = events.iter().map(|event| line("pointsChanged", event)).collect();
    text.extend(balances.iter().map(|balance| line("balance", balance)));
    let facts = [("purchase", purchase("p", "ada")), ("refund", refund_of("p", "r"))];
    text.extend(facts.map(|(name, fact)| format!("[\"{name}\",{fact}]\n")));
    std::fs::write(&lines, &text).unwrap();
    let ran = python(&["tests/clients/validate.py", "asyncapi.json", &lines.display().to_string()]);
    assert_eq!((ran.code, ran.stdout), (Some(0), format!("{}\n", text.lines().count())), "{}", ran.stderr);
}

/// The only broker is killed twice, and the server as well, while purchases come in.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_is_lost_if_the_broker_and_the_server_are_killed() {
    let mut kafka = Brokers::start().await;
    let topics = Topics::make(kafka.brokers(), 1).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topics.publish(&database).await;
    shop.campaign(json!({})).await;
    for round in 0..2 {
        shop.buy_many("ada", round * 40..round * 40 + 20).await;
        kafka.kill(0).await;
        shop.buy_many("ada", round * 40 + 20..round * 40 + 40).await;
        kafka.restart(0).await;
    }
    shop.server.kill9();
    let shop = topics.publish(&database).await;
    shop.buy_many("ada", 80..100).await;
    wait(async || topics.consumer().points("ada") == 1_000, "all events are published").await;
    drop(shop);
    audit_is_clean(&database);
}

/// A node is frozen while its events are on their way. Another one takes over, and the first one comes back: each topic is in order, and the
/// last balance is the current one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_over_from_a_frozen_one() {
    let kafka = Brokers::start().await;
    let topics = Topics::make(kafka.brokers(), 1).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let frozen = topics.publish(&database).await;
    frozen.campaign(json!({})).await;
    frozen.buy_many("ada", 0..20).await;
    wait(async || topics.consumer().points("ada") == 200, "the first events are published").await;
    // Its transaction cannot end.
    kafka.freeze(0);
    frozen.buy_many("ada", 20..40).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    frozen.server.signal("STOP");
    kafka.thaw(0);
    let shop = topics.publish(&database).await;
    wait(async || topics.consumer().points("ada") == 400, "another node has taken over").await;
    shop.buy_many("ada", 40..60).await;
    wait(async || topics.consumer().points("ada") == 600, "it goes on").await;
    frozen.server.signal("CONT");
    wait(async || fetched(&frozen, "/readyz").await == "ok", "the frozen node goes on").await;
    shop.buy_many("ada", 60..80).await;
    wait(async || topics.consumer().points("ada") == 800, "one of them goes on").await;
    assert_eq!(topics.consumer().ignored, 0, "nothing was published twice or late");
    let versions: Vec<i64> = topics
        .all(&topics.balances)
        .iter()
        .map(|it| {
            let balance: Value = serde_json::from_str(it.value.as_deref().unwrap()).unwrap();
            balance["version"].as_i64().unwrap()
        })
        .collect();
    assert!(versions.is_sorted(), "{versions:?}");
    drop((frozen, shop));
    audit_is_clean(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_used_is_named() {
    let brokers = shared().await.brokers();
    let topics = Topics::make(brokers.clone(), 1).await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let missing = Topics {
        events: format!("{}-missing", topics.events),
        ..Topics { brokers: brokers.clone(), events: topics.events.clone(), balances: topics.balances.clone() }
    };
    let shop = missing.publish(&database).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    let told = format!("the topic `{}` does not exist", missing.events);
    wait(async || fetched(&shop, "/readyz").await.contains(&told), "the topic is named").await;
    make_topic(&brokers, &missing.events, 3, 1).await;
    wait(async || fetched(&shop, "/readyz").await == "ok", "it is used once it exists").await;
    assert_eq!(missing.consumer().points("ada"), 10);
    drop(shop);

    let limit = AlterConfig::new(ResourceSpecifier::Topic(&topics.events)).set("max.message.bytes", "2000");
    admin_of(&brokers).alter_configs([&limit], &AdminOptions::new()).await.unwrap();
    let shop = topics.publish(&database).await;
    shop.buy("ada", 1).await;
    wait(async || fetched(&shop, "/readyz").await.contains("raise max.message.bytes"), "the limit is named").await;
    assert!(topics.all(&topics.events).is_empty());
}

/// The sink of an application, which publishes to these topics.
async fn sink_of(test: &TestApp, topics: &Topics, transactional: bool) -> Arc<App> {
    let app = test.another().await;
    let config = Kafka {
        brokers: topics.brokers.clone(),
        security: KafkaSecurity { tls: None, sasl: None },
        facts_topics: Vec::new(),
        facts_map: None,
        group: "windfall".to_owned(),
        instance_id: None,
        group_protocol: GroupProtocol::Classic,
        session_timeout: Duration::from_secs(6),
        buffer_bytes: 1 << 20,
        events_topic: Some(topics.events.clone()),
        balances_topic: None,
        events_transactional: transactional,
    };
    prepare(&app, Some(&config)).await.unwrap();
    app
}

/// The event of a version of a customer.
fn event(customer: &str, version: i64, content: &str) -> OutboxRow {
    OutboxRow {
        id: version,
        segment: 0,
        bucket: 0,
        customer_id: CustomerId(1),
        version,
        part: 1,
        key: customer.to_owned(),
        event_id: version.to_string(),
        event: json!({ "version": version, "content": content }).to_string(),
        balance: None,
        erases: 0,
        committed_at: 0,
        published: 0,
    }
}

async fn publish(app: &Arc<App>, rows: Vec<OutboxRow>) -> Published {
    app.sink.get().unwrap()(rows).await
}

/// The versions of a customer that a topic has.
fn versions(topics: &Topics, customer: &str) -> Vec<i64> {
    let version = |message: &Message| {
        let value: Value = serde_json::from_str(message.value.as_deref().unwrap()).unwrap();
        value["version"].as_i64().unwrap()
    };
    topics.all(&topics.events).iter().filter(|message| message.key == customer).map(version).collect()
}

/// What a node that was frozen sends after another one has begun to publish its bucket.
#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_refuse_what_an_earlier_client_of_a_bucket_sends() {
    let topics = Topics::make(shared().await.brokers(), 1).await;
    let test = TestApp::start(Engine::Sqlite).await;
    let (first, second) = (sink_of(&test, &topics, true).await, sink_of(&test, &topics, true).await);
    assert_eq!(publish(&first, vec![event("ada", 1, "")]).await, Published { ids: vec![1], problem: None });
    assert_eq!(publish(&second, vec![event("ada", 2, "")]).await, Published { ids: vec![2], problem: None });
    let late = publish(&first, vec![event("ada", 1, "")]).await;
    assert!(late.ids.is_empty() && late.problem.is_some(), "{late:?}");
    assert_eq!(publish(&second, vec![event("ada", 3, "")]).await, Published { ids: vec![3], problem: None });
    assert_eq!(versions(&topics, "ada"), [1, 2, 3]);
}

/// The first of two events is too large for its topic. The second one comes in a batch of its own. Consumers of other events do not wait.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_is_not_overtaken() {
    for transactional in [true, false] {
        let topics = Topics::make(shared().await.brokers(), 1).await;
        let test = TestApp::start(Engine::Sqlite).await;
        let app = sink_of(&test, &topics, transactional).await;
        assert_eq!(publish(&app, vec![event("ada", 1, "")]).await.ids, [1]);
        let limit = AlterConfig::new(ResourceSpecifier::Topic(&topics.events)).set("max.message.bytes", "300000");
        admin_of(&topics.brokers).alter_configs([&limit], &AdminOptions::new()).await.unwrap();
        // Not to be compressed.
        let bytes: Vec<u8> = std::iter::repeat_with(rand::random).take(450_000).collect();
        let large = event("ada", 2, &BASE64_STANDARD.encode(bytes));
        // They are in other partitions too, where the brokers accept them.
        let others =
            (0..8).map(|n| OutboxRow { id: 100, customer_id: CustomerId(2), ..event(&format!("other-{n}"), 1, "") });
        let refused = publish(&app, others.chain([large, event("ada", 3, "")]).collect()).await;
        assert!(refused.ids.iter().all(|id| *id == 100) && refused.problem.is_some(), "{refused:?}");
        // By themselves, the brokers would end the transaction after 60 seconds.
        wait_for(Duration::from_secs(20), async || !topics.has_open_transaction(), "no consumer waits").await;
        assert_eq!(versions(&topics, "ada"), [1], "{transactional}");
        // A new client goes on.
        assert_eq!(publish(&app, vec![event("ada", 2, ""), event("ada", 3, "")]).await.ids, [2, 3]);
        assert_eq!(versions(&topics, "ada"), [1, 2, 3], "{transactional}");
    }
}

/// A failure holds up its customer, and no others.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_holds_up_no_other_customer() {
    let topics = Topics::make(shared().await.brokers(), 1).await;
    let test = TestApp::start(Engine::Sqlite).await;
    let app = sink_of(&test, &topics, false).await;
    // The client itself refuses it, before anything is sent of those behind it.
    let large = event("ada", 2, &"x".repeat(1_100_000));
    let published = publish(&app, vec![event("bob", 1, ""), large, event("ada", 3, "")]).await;
    assert_eq!(published.ids, [1]);
    assert!(published.problem.is_some());
    assert_eq!(versions(&topics, "bob"), [1]);
}
