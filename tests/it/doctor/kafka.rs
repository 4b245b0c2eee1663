//! Real brokers: how they are reached, how topics are made, and whether a server keeps up.

use std::time::Duration;

use entity::ingest_position;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sea_orm::EntityTrait as _;
use windfall::app::clock::Clock;

use super::*;
use crate::ingest::purchase;
use crate::support::app::{Engine, open, scratch};
use crate::support::kafka::{Kafka, Options, PASSWORD, Security, USER};
use crate::support::server::Server;
use crate::support::websocket::PATIENCE;

/// The consumer group of all of these tests.
const GROUP: &str = "examined";
const SECOND_MS: i64 = 1_000;
const HOUR_MS: i64 = 3_600 * SECOND_MS;

/// A topic with settings of its own.
pub(super) async fn make(kafka: &Kafka, name: &str, partitions: i32, replicas: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// Sends purchases, each with the time at which it was sent, in ms before now.
fn send(kafka: &Kafka, topic: &str, ages_ms: impl IntoIterator<Item = i64>) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
    let now = Clock::System.now().0 / 1_000;
    for (number, age) in ages_ms.into_iter().enumerate() {
        let value = purchase(&format!("{topic}-{number}"), "ada");
        let record = BaseRecord::to(topic).key("ada").payload(&value).timestamp(now - age);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn doctor(database: &str, brokers: &str, topics: &str) -> Command {
    let mut command = command(database);
    command
        .env("WINDFALL__KAFKA__BROKERS", brokers)
        .env("WINDFALL__KAFKA__FACTS_TOPICS", topics)
        .env("WINDFALL__KAFKA__GROUP", GROUP);
    command
}

/// Runs doctor on a database that does not exist yet.
fn report(kafka: &Kafka, topics: &str, arguments: &[&str]) -> Report {
    report_at(&kafka.brokers(), topics, arguments, &[])
}

fn report_at(brokers: &str, topics: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Report {
    let sqlite = crate::support::sqlite::Sqlite::new();
    let mut command = doctor(&sqlite.url(), brokers, topics);
    command.envs(variables.iter().copied());
    Report::read(run(command.args(["doctor", "--json"]).args(arguments)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_broker_with_its_defaults_is_told() {
    let kafka = Kafka::with(Options { properties: &["auto.create.topics.enable=true"], ..Options::default() }).await;
    make(&kafka, "orders", 2, 1, &[]).await;
    let of_brokers = report(&kafka, "orders", &[]);
    assert_eq!(of_brokers.has("advice", "kafka-replication"), "the cluster has 1 broker");
    of_brokers.has("advice", "kafka-auto-create-topics");
    assert_eq!(of_brokers.findings().len(), 2, "{:#}", of_brokers.document);

    let missing = report(&kafka, "orders,oders", &[]);
    missing.has("problem", "kafka-topic-missing");
    assert!(missing.findings().iter().any(|finding| finding["subject"] == "oders"), "{:#}", missing.document);
    report(&kafka, "oders", &[]).has("problem", "kafka-topic-missing");

    make(&kafka, "narrow", 1, 1, &[]).await;
    report(&kafka, "narrow", &[]).has("advice", "kafka-partitions");
    make(&kafka, "compacted", 2, 1, &[("cleanup.policy", "compact")]).await;
    report(&kafka, "compacted", &[]).has("problem", "kafka-compaction");
    make(&kafka, "unclean", 2, 1, &[("unclean.leader.election.enable", "true")]).await;
    report(&kafka, "unclean", &[]).has("problem", "kafka-unclean-leader-election");

    let hour = HOUR_MS.to_string();
    make(&kafka, "short", 2, 1, &[("retention.ms", &hour)]).await;
    let measured = "after 6 h without a node, they need 0 ms; retention keeps messages for 60 min";
    assert_eq!(report(&kafka, "short", &[]).has("problem", "kafka-retention"), measured);
    let day = (24 * HOUR_MS).to_string();
    make(&kafka, "day", 2, 1, &[("retention.ms", &day)]).await;
    report(&kafka, "day", &[]).has("advice", "kafka-retention");
    of_brokers.lacks("kafka-retention");
    joined_by_nobody(&kafka);
}

/// doctor is no member of the group, and has committed nothing in its name.
fn joined_by_nobody(kafka: &Kafka) {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
    let groups = client.fetch_group_list(None, PATIENCE).unwrap();
    let names: Vec<&str> = groups.groups().iter().map(rdkafka::groups::GroupInfo::name).collect();
    assert!(!names.contains(&GROUP), "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_keep_up_is_told() {
    let kafka = Kafka::start().await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let opened = open(&database).await;
    opened.migrate().await.unwrap();
    make(&kafka, "late", 2, 1, &[]).await;
    // A message every ten seconds for two hours. The last one is a minute old.
    send(&kafka, "late", (0..720).rev().map(|number| (number + 7) * 10 * SECOND_MS));
    let late = || Report::of(&mut doctor(&database, &kafka.brokers(), "late"));
    let lag = late();
    assert_eq!(lag.has("problem", "kafka-lag"), "720 messages not recorded, the first for 2 h");
    let brokers = kafka.brokers();
    let rate = |rate: &str| report_at(&brokers, "late", &["--rate", rate], &[]);
    rate("1").lacks("kafka-catch-up");
    make(&kafka, "busy", 2, 1, &[("retention.ms", &(7 * HOUR_MS).to_string())]).await;
    // Five a second for 40 minutes, so that it does not matter when doctor counts them.
    send(&kafka, "busy", (0..12_000).rev().map(|number| number * 200));
    let busy = |rate: &str| report_at(&brokers, "busy", &["--rate", rate], &[]);
    let assumed = busy("4");
    assert!(
        assumed.has("advice", "kafka-catch-up").starts_with("5 messages a second arrive"),
        "{:#}",
        assumed.document
    );
    assert!(assumed.has("advice", "kafka-retention").contains("never catch up"), "{:#}", assumed.document);
    let slow = busy("6");
    slow.lacks("kafka-catch-up");
    assert!(slow.has("problem", "kafka-retention").contains("they need "), "{:#}", slow.document);
    busy("600").has("advice", "kafka-retention");

    let server = Server::start_with(&mut doctor(&database, &kafka.brokers(), "late")).await.0;
    are_done(&opened, 720).await;
    late().lacks("kafka-lag");
    drop(server);
}

/// Waits until the positions of all partitions together have reached this number of messages.
async fn are_done(database: &windfall::app::database::Database, messages: i64) {
    let done = async {
        loop {
            let positions = ingest_position::Entity::find().all(database.read()).await.unwrap();
            if positions.iter().filter_map(|position| Some(position.last_offset? + 1)).sum::<i64>() == messages {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.expect("all messages are done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_brokers_are_well_until_a_topic_is_not() {
    let mut kafka = Kafka::cluster(3).await;
    make(&kafka, "orders", 4, 3, &[]).await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let server = Server::start_with(&mut doctor(&database, &kafka.brokers(), "orders")).await.0;
    send(&kafka, "orders", [0; 100]);
    are_done(&open(&database).await, 100).await;
    Report::of(&mut doctor(&database, &kafka.brokers(), "orders")).is_empty();
    drop(server);

    make(&kafka, "one", 3, 1, &[("min.insync.replicas", "1")]).await;
    assert_eq!(report(&kafka, "one", &[]).has("problem", "kafka-replication"), "the topic has 1 replica on 3 brokers");
    make(&kafka, "two", 2, 2, &[]).await;
    report(&kafka, "two", &[]).has("advice", "kafka-replication");
    for least in ["1", "3"] {
        let name = format!("least-{least}");
        make(&kafka, &name, 2, 3, &[("min.insync.replicas", least)]).await;
        let measured = format!("`min.insync.replicas` is {least}, with 3 replicas");
        assert_eq!(report(&kafka, &name, &[]).has("problem", "kafka-min-insync-replicas"), measured);
    }
    // Each node has one of the three partitions.
    kafka.kill(2).await;
    let offline = async {
        loop {
            let report = report(&kafka, "one", &[]);
            if report.findings().iter().any(|finding| finding["code"] == "kafka-partition-offline") {
                return report;
            }
        }
    };
    let offline = tokio::time::timeout(PATIENCE, offline).await.expect("the partition has no leader");
    assert_eq!(offline.has("problem", "kafka-partition-offline"), "1 of 3 partitions have no leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_login_or_authority_is_told_apart() {
    let nobody = report_at(&nobody(), "orders", &[], &[]);
    assert!(nobody.has("problem", "kafka-unreachable").contains("no broker can be reached"), "{:#}", nobody.document);
    let kafka = Kafka::with(Options { security: Security::SaslTls, ..Options::default() }).await;
    let (ca, other_ca, brokers) = (kafka.ca(), kafka.other_ca(), kafka.brokers());
    let login = |password: &str, ca: &Path| {
        let variables = [
            ("WINDFALL__KAFKA__TLS", "true"),
            ("WINDFALL__KAFKA__CA_FILE", ca.to_str().unwrap()),
            ("WINDFALL__KAFKA__SASL_MECHANISM", "PLAIN"),
            ("WINDFALL__KAFKA__USERNAME", USER),
            ("WINDFALL__KAFKA__PASSWORD", password),
        ];
        report_at(&brokers, "orders", &[], &variables)
    };
    login(PASSWORD, &ca).lacks("kafka-unreachable");
    for (wrong, told) in [(login("wrong", &ca), "`kafka.password`"), (login(PASSWORD, &other_ca), "`kafka.ca_file`")] {
        assert!(wrong.has("problem", "kafka-unreachable").contains(told), "{:#}", wrong.document);
        assert!(!wrong.ran.stdout.contains(PASSWORD), "{:?}", wrong.ran);
    }
    let missing = login(PASSWORD, Path::new("/no/such/file"));
    assert!(missing.has("problem", "kafka-unreachable").contains("cannot be used"), "{:#}", missing.document);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_client_certificate_is_told() {
    let kafka = Kafka::with(Options { security: Security::MutualTls, ..Options::default() }).await;
    let ca = kafka.ca();
    let without = [("WINDFALL__KAFKA__TLS", "true"), ("WINDFALL__KAFKA__CA_FILE", ca.to_str().unwrap())];
    let report = report_at(&kafka.brokers(), "orders", &[], &without);
    assert!(report.has("problem", "kafka-unreachable").contains("`kafka.client_cert_file`"), "{:#}", report.document);
}
