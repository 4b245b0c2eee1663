//! Facts from topics of real brokers: what is recorded, whatever happens to brokers, topics, consumers and the database.
//!
//! Tests that do not harm the broker share one. Each test has a topic and a consumer group of its own.

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::ingest::{purchase, refund_of};
use crate::support::app::{ENGINES, Engine, scratch};
use crate::support::kafka::Kafka;
use crate::support::server::command;
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

mod check;
mod events;
mod facts;
mod faults;
mod journey;
mod mocks;
mod positions;
mod security;

/// A broker that no test kills, freezes or changes.
async fn shared() -> &'static Kafka {
    static SHARED: OnceCell<Kafka> = OnceCell::const_new();
    SHARED.get_or_init(Kafka::start).await
}

/// A topic of a test.
struct Topic {
    brokers: String,
    name: String,
    producer: BaseProducer,
}

fn admin_of(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

impl Topic {
    /// Makes a topic with this number of partitions, and one replica on each of up to three nodes.
    async fn make(brokers: &str, partitions: i32, replicas: i32) -> Self {
        let name = format!("orders-{}", rand::random::<u32>());
        make_topic(brokers, &name, partitions, replicas).await;
        Self { brokers: brokers.to_owned(), producer: producer(brokers), name }
    }

    async fn shared(partitions: i32) -> Self {
        Self::make(&shared().await.brokers(), partitions, 1).await
    }

    /// Sends messages with the key of their customer, and waits until the brokers have them.
    fn send<'a>(&self, messages: impl IntoIterator<Item = (&'a str, String)>) {
        for (key, value) in messages {
            let mut record = BaseRecord::to(&self.name).key(key).payload(&value);
            while let Err((_, again)) = self.producer.send(record) {
                record = again;
                self.producer.poll(Duration::from_millis(10));
            }
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Sends a message that is larger than producers may send by default.
    fn send_large(&self, value: &str) {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("message.max.bytes", "4000000")
            .set("compression.type", "lz4");
        let producer: BaseProducer = config.create().unwrap();
        producer.send(BaseRecord::to(&self.name).key("ada").payload(value)).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    }

    /// Sends a message without a key and a value.
    fn send_tombstone(&self) {
        self.producer.send(BaseRecord::<(), ()>::to(&self.name)).map_err(|(error, _)| error).unwrap();
        self.producer.flush(PATIENCE).unwrap();
    }

    /// A command that runs the program on a database and lets it read this topic.
    fn command(&self, database: &str) -> Command {
        let mut command = command(database);
        command
            .env("WINDFALL__KAFKA__BROKERS", &self.brokers)
            .env("WINDFALL__KAFKA__FACTS_TOPICS", &self.name)
            .env("WINDFALL__KAFKA__GROUP", &self.name)
            .env("WINDFALL__KAFKA__SESSION_TIMEOUT_MS", "6000");
        command
    }

    /// Starts a server that reads the topic.
    async fn read(&self, database: &str) -> Shop {
        Shop::open_with(&mut self.command(database)).await
    }
}

pub(crate) async fn make_topic(brokers: &str, name: &str, partitions: i32, replicas: i32) {
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    // A topic that was just deleted takes a moment to be gone.
    let made = async {
        loop {
            let made = admin_of(brokers).create_topics([&topic], &AdminOptions::new()).await.unwrap();
            if made.iter().all(Result::is_ok) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("a topic is made");
}

fn producer(brokers: &str) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "0")
        .set("linger.ms", "1")
        .create()
        .unwrap()
}

/// Purchases `from..to` of ten customers, with their keys.
fn purchases(from: usize, to: usize) -> Vec<(&'static str, String)> {
    const CUSTOMERS: [&str; 10] = ["ada", "bob", "cyd", "dan", "eve", "fay", "gil", "hal", "ida", "joy"];
    (from..to).map(|n| (CUSTOMERS[n % 10], purchase(&format!("p{n}"), CUSTOMERS[n % 10]))).collect()
}

/// The points of all customers together, each of whose purchases is worth 10.
async fn points(shop: &Shop) -> i64 {
    let query = "{ customers(first: 100) { nodes { balance { lifetime } } } }";
    let answer = shop.data(&shop.admin, query, json!({})).await;
    answer["customers"]["nodes"].as_array().unwrap().iter().map(|it| it["balance"]["lifetime"].as_i64().unwrap()).sum()
}

/// Waits until exactly these purchases have their points. A refund among them may come after all purchases.
async fn have_points(shop: &Shop, purchases: usize) {
    let expected = 10 * i64::try_from(purchases).unwrap();
    wait(async || points(shop).await == expected, "all purchases are recorded, each of them once").await;
}

/// Waits until the condition holds.
async fn wait(holds: impl AsyncFn() -> bool, what: &str) {
    wait_for(PATIENCE * 2, holds, what).await;
}

/// Waits until the condition holds, at most for so long.
async fn wait_for(patience: Duration, holds: impl AsyncFn() -> bool, what: &str) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(patience, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

async fn fetched(shop: &Shop, path: &str) -> String {
    shop.client.get(format!("{}{path}", shop.address())).send().await.unwrap().text().await.unwrap()
}

/// The sum of a metric over all of its labels.
async fn metric(shop: &Shop, name: &str) -> f64 {
    let text = fetched(shop, "/metrics").await;
    let values = text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

async fn stopped(shop: &Shop) -> bool {
    metric(shop, "windfall_ingest_stopped").await > 0.0
}

/// Runs `windfall audit` on a database: it must find nothing.
fn audit_is_clean(database: &str) {
    let ran = crate::support::server::run(command(database).arg("audit"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

/// Runs `windfall ingest resume` for the first partition of the topic.
fn resume(topic: &Topic, database: &str, arguments: &[&str]) -> crate::support::server::Ran {
    let mut command = topic.command(database);
    crate::support::server::run(command.args(["ingest", "resume", &topic.name, "0"]).args(arguments))
}
