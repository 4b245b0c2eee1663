//! What the brokers say about topics, for `windfall doctor`. The Kafka client is a feature of the build; what is asked and what follows
//! from it is not.

use std::collections::HashMap;

use crate::app::model::IngestPosition;
use crate::config;
use crate::engine::time::Instant;

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Facts are read from it.
    Facts,
    /// Events are sent to it.
    Events,
    /// It has the latest balance of each customer.
    Balances,
}

/// The offset from which each partition is read, by topic and partition.
pub type Positions = HashMap<(String, i32), i64>;

/// Returns where each partition is read from, by the positions in the database.
pub fn next_offsets(positions: HashMap<(String, i32), IngestPosition>) -> Positions {
    let next = |position: IngestPosition| position.last_offset.map(|last| last.saturating_add(1));
    positions.into_iter().filter_map(|(at, position)| Some((at, next(position)?))).collect()
}

/// A cluster, as its brokers describe it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    pub brokers: usize,
    /// Whether a broker makes a topic that somebody names. `None` if the user may not know.
    pub makes_topics: Option<bool>,
    pub topics: Vec<Topic>,
}

/// A topic of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: String,
    pub role: Role,
    /// `None` if it does not exist, or if the user may not see it.
    pub layout: Option<Layout>,
}

/// The partitions and settings of a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The smallest number of copies of a partition.
    pub replicas: usize,
    /// `None` if the user may not know them.
    pub settings: Option<Settings>,
    pub partitions: Vec<Partition>,
}

/// The settings of a topic, whether they are its own or those of the brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub min_insync_replicas: usize,
    pub elects_unclean_leaders: bool,
    pub is_compacted: bool,
    /// `None` if messages are kept for ever.
    pub retention_ms: Option<u64>,
    /// `None` if the size is not limited.
    pub retention_bytes: Option<u64>,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub id: i32,
    pub has_leader: bool,
    /// `None` if the partition has no leader, or if nothing is read from the topic.
    pub content: Option<Content>,
}

/// What a partition of facts has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The first offset that is left.
    pub low: i64,
    /// The offset of the next message that is sent.
    pub high: i64,
    /// The offset from which it is read.
    pub next: i64,
    /// When the first message that is left was sent.
    pub first_at: Option<Instant>,
    /// When the message at `next` was sent.
    pub unread_at: Option<Instant>,
    /// The first offset of the period in which arrivals are counted, and the beginning of the period.
    pub counted_from: Option<(i64, Instant)>,
}

impl Content {
    /// The number of messages that are not read yet.
    pub fn unread(&self) -> i64 {
        self.high.saturating_sub(self.next).max(0)
    }
}

/// Asks the brokers about topics. It joins no group, and commits nothing. Without `positions`, each partition counts as read. Fails with
/// what hinders the client, such as a wrong password.
pub async fn examine(
    config: &config::Kafka,
    topics: Vec<(String, Role)>,
    positions: Option<Positions>,
    now: Instant,
) -> Result<Cluster, String> {
    super::topics::check_build(Some(config), super::topics::HAS_CLIENT).map_err(|error| error.to_string())?;
    ask(config.clone(), topics, positions, now).await
}

#[cfg(feature = "kafka")]
async fn ask(
    config: config::Kafka,
    topics: Vec<(String, Role)>,
    positions: Option<Positions>,
    now: Instant,
) -> Result<Cluster, String> {
    let asked = tokio::task::spawn_blocking(move || super::kafka::examine(&config, &topics, positions.as_ref(), now));
    asked.await.map_err(|panic| panic.to_string())?
}

#[cfg(not(feature = "kafka"))]
async fn ask(_: config::Kafka, _: Vec<(String, Role)>, _: Option<Positions>, _: Instant) -> Result<Cluster, String> {
    Err("this program was built without the Kafka client".to_owned())
}
