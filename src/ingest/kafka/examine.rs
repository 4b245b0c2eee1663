//! Asks the brokers about topics, for `windfall doctor`. It joins no group and commits nothing: the partitions are assigned by hand, and
//! of each only two messages are read, for their timestamps.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::metadata::{Metadata, MetadataBroker, MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::time::Instant as Monotonic;

use super::listener::{Listener, TopicPartition, until_answered};
use super::{UNUSABLE, settings};
use crate::config;
use crate::engine::time::Instant;
use crate::ingest::cluster::{Cluster, Content, Layout, Partition, Positions, Role, Settings, Topic};

/// How long the brokers may take to respond for the first time.
const REACH_TIMEOUT: Duration = Duration::from_secs(6);
/// How long the brokers may take to respond to a question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all questions together may take.
const EXAMINE_TIMEOUT: Duration = Duration::from_secs(60);
/// The period in which arrivals are counted, in µs.
const COUNTED: i64 = 24 * 3_600 * 1_000_000;
/// The memory for messages that are fetched for their timestamps, in KiB. A message that is larger is fetched nevertheless.
const FETCHED_KIB: &str = "1024";

/// The clients, and when they give up.
struct Examiner {
    client: BaseConsumer<Listener>,
    admin: AdminClient<Listener>,
    late: Monotonic,
}

/// Asks about these topics.
pub fn examine(
    config: &config::Kafka,
    topics: &[(String, Role)],
    positions: Option<&Positions>,
    now: Instant,
) -> Result<Cluster, String> {
    let examiner = Examiner::new(config).map_err(|error| format!("{UNUSABLE}: {error}"))?;
    let metadata = examiner.reach()?;
    let cluster = examiner.cluster(&metadata, topics, positions, now);
    cluster.map_err(|error| examiner.problem().unwrap_or_else(|| error.to_string()))
}

impl Examiner {
    fn new(config: &config::Kafka) -> Result<Self, KafkaError> {
        let base = settings::base(config);
        let mut reading = base.clone();
        reading
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("queued.max.messages.kbytes", FETCHED_KIB)
            .set("queued.min.messages", "1")
            .set("fetch.queue.backoff.ms", "10");
        Ok(Self {
            client: reading.create_with_context(Listener::default())?,
            admin: base.create_with_context(Listener::default())?,
            late: Monotonic::now() + EXAMINE_TIMEOUT,
        })
    }

    /// What the client has reported, if that says what to change.
    fn problem(&self) -> Option<String> {
        while self.client.poll(Duration::ZERO).is_some() {}
        self.client.context().trouble.problem()
    }

    /// Waits for the first response of a broker. Fails with what hinders the client.
    fn reach(&self) -> Result<Metadata, String> {
        let late = Monotonic::now() + REACH_TIMEOUT;
        until_answered(&self.client, late, |timeout| self.client.fetch_metadata(None, timeout))
    }

    /// How long the next question may take.
    fn timeout(&self) -> Duration {
        self.late.saturating_duration_since(Monotonic::now()).min(QUESTION_TIMEOUT)
    }

    fn cluster(
        &self,
        metadata: &Metadata,
        topics: &[(String, Role)],
        positions: Option<&Positions>,
        now: Instant,
    ) -> Result<Cluster, KafkaError> {
        let mut described = Vec::new();
        for (name, role) in topics {
            // A topic that does not exist is left out, or has an error.
            let known = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
            let layout = known.map(|topic| self.layout(topic, *role, positions, now)).transpose()?;
            described.push(Topic { name: name.clone(), role: *role, layout });
        }
        let brokers = metadata.brokers().iter().map(MetadataBroker::id);
        let makes_topics = brokers.map(|id| self.makes_topics(id)).reduce(|a, b| a.zip(b).map(|(a, b)| a || b));
        Ok(Cluster { brokers: metadata.brokers().len(), makes_topics: makes_topics.flatten(), topics: described })
    }

    fn layout(
        &self,
        topic: &MetadataTopic,
        role: Role,
        positions: Option<&Positions>,
        now: Instant,
    ) -> Result<Layout, KafkaError> {
        let has_leader = |partition: &&MetadataPartition| partition.leader() >= 0;
        let asked = topic.partitions().iter().filter(has_leader).filter(|_| role == Role::Facts);
        let asked: Vec<TopicPartition> = asked.map(|partition| (topic.name().to_owned(), partition.id())).collect();
        let mut contents = self.contents(&asked, positions, now)?;
        let partition = |partition: &MetadataPartition| {
            let id = partition.id();
            let has_leader = partition.leader() >= 0;
            Partition { id, has_leader, content: contents.remove(&(topic.name().to_owned(), id)) }
        };
        Ok(Layout {
            replicas: topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
            settings: self.described(&ResourceSpecifier::Topic(topic.name())).as_ref().and_then(settings_of),
            partitions: topic.partitions().iter().map(partition).collect(),
        })
    }

    /// Whether a broker makes a topic that somebody names. `None` if the user may not know.
    fn makes_topics(&self, broker: i32) -> Option<bool> {
        let settings = self.described(&ResourceSpecifier::Broker(broker))?;
        Some(settings.get("auto.create.topics.enable")?.value.as_deref()? == "true")
    }

    /// Reads the settings of a topic or a broker. `None` if the user may not know them.
    fn described(&self, resource: &ResourceSpecifier<'_>) -> Option<ConfigResource> {
        let options = AdminOptions::new().request_timeout(Some(self.timeout()));
        let described = Handle::current().block_on(self.admin.describe_configs([resource], &options));
        let described = described.inspect_err(|error| tracing::debug!(error = %error, "no settings")).ok()?;
        described.into_iter().next()?.ok()
    }

    /// Reads what these partitions have.
    fn contents(
        &self,
        partitions: &[TopicPartition],
        positions: Option<&Positions>,
        now: Instant,
    ) -> Result<HashMap<TopicPartition, Content>, KafkaError> {
        if partitions.is_empty() {
            // The client refuses questions about nothing.
            return Ok(HashMap::new());
        }
        let counted_from = now.minus(COUNTED);
        let starts = self.first_since(partitions, counted_from)?;
        let mut contents = HashMap::new();
        for at in partitions {
            let (low, high) = self.client.fetch_watermarks(&at.0, at.1, self.timeout())?;
            let next = positions.map_or(high, |positions| positions.get(at).copied().unwrap_or(low)).clamp(low, high);
            let content = Content { low, high, next, first_at: None, unread_at: None, counted_from: None };
            contents.insert(at.clone(), content);
        }
        let read_from = |of: fn(&Content) -> i64| -> Vec<(TopicPartition, i64)> {
            let offsets = contents.iter().map(|(at, content)| (at.clone(), of(content), content.high));
            offsets.filter(|(_, offset, high)| offset < high).map(|(at, offset, _)| (at, offset)).collect()
        };
        let first = self.sent_at(&read_from(|content| content.low))?;
        let unread = self.sent_at(&read_from(|content| content.next))?;
        for (at, content) in &mut contents {
            content.first_at = first.get(at).copied();
            content.unread_at = unread.get(at).copied();
            // If all messages that are left are of the period, it begins with the first of them.
            content.counted_from = match starts.get(at) {
                Some(&offset) if offset > content.low => Some((offset, counted_from)),
                _ => content.first_at.map(|first_at| (content.low, first_at.max(counted_from))),
            };
        }
        Ok(contents)
    }

    /// Finds the first offset of each partition that was sent at this instant or later. A partition without one has its end.
    fn first_since(
        &self,
        partitions: &[TopicPartition],
        since: Instant,
    ) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
        let list = list(partitions.iter().map(|at| (at, since.0 / 1_000)))?;
        let found = self.client.offsets_for_times(list, self.timeout())?;
        let offset = |offset| match offset {
            Offset::Offset(offset) => offset,
            _ => i64::MAX,
        };
        Ok(found.to_topic_map().into_iter().map(|(at, found)| (at, offset(found))).collect())
    }

    /// Reads one message of each partition, and returns when it was sent. A message that does not come in time is left out.
    fn sent_at(&self, offsets: &[(TopicPartition, i64)]) -> Result<HashMap<TopicPartition, Instant>, KafkaError> {
        let assigned = list(offsets.iter().map(|(at, offset)| (at, *offset)))?;
        self.client.assign(&assigned)?;
        // A partition that was paused stays so.
        self.client.resume(&assigned)?;
        let late = Monotonic::now() + self.timeout();
        let mut sent_at = HashMap::new();
        while sent_at.len() < offsets.len() && Monotonic::now() < late {
            let Some(Ok(message)) = self.client.poll(late.saturating_duration_since(Monotonic::now())) else {
                continue;
            };
            if let Entry::Vacant(first) = sent_at.entry((message.topic().to_owned(), message.partition())) {
                self.client.pause(&list([(first.key(), 0)])?)?;
                first.insert(message.timestamp().to_millis());
            }
        }
        self.client.unassign()?;
        let known = sent_at.into_iter().filter_map(|(at, millis)| Some((at, Instant(millis?.saturating_mul(1_000)))));
        Ok(known.collect())
    }
}

fn list<'a>(offsets: impl IntoIterator<Item = (&'a TopicPartition, i64)>) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

/// `None` if the broker has left out a setting that every broker has.
fn settings_of(described: &ConfigResource) -> Option<Settings> {
    let value = |name: &str| described.get(name)?.value.as_deref();
    Some(Settings {
        min_insync_replicas: value("min.insync.replicas")?.parse().ok()?,
        elects_unclean_leaders: value("unclean.leader.election.enable")? == "true",
        is_compacted: value("cleanup.policy")?.split(',').any(|policy| policy == "compact"),
        // -1 means that there is no limit.
        retention_ms: value("retention.ms")?.parse().ok(),
        retention_bytes: value("retention.bytes")?.parse().ok(),
    })
}
