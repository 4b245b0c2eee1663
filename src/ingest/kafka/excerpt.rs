//! Reads a part of a topic without joining the group. The partitions are chosen by this program, and nothing is committed.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Cause};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant as Monotonic;

use super::consumer::owned;
use super::listener::{Listener, until_answered};
use super::settings;
use crate::app::message::Message;
use crate::config;
use crate::engine::time::Instant;
use crate::ingest::excerpt::{ANSWER_TIMEOUT, End, Extent, Limits, READ_TIMEOUT, Read, Unread};

/// The longest wait for a message.
const POLL: Duration = Duration::from_secs(1);

/// Reads one topic.
pub(in crate::ingest) struct Reader {
    client: BaseConsumer<Listener>,
    topic: String,
    partitions: Vec<i32>,
    /// Until then, questions must be answered.
    late: Monotonic,
}

impl Reader {
    /// Connects, and asks which partitions the topic has.
    pub(in crate::ingest) fn open(config: &config::Kafka, topic: &str) -> Result<Self, Unread> {
        let client: BaseConsumer<Listener> =
            settings::excerpt(config).create_with_context(Listener::default()).map_err(|error| client_error(&error))?;
        let late = Monotonic::now() + ANSWER_TIMEOUT;
        let metadata =
            until_answered(&client, late, |timeout| client.fetch_metadata(Some(topic), timeout)).map_err(silent)?;
        let found = metadata.topics().first();
        if let Some(code) = found.and_then(MetadataTopic::error) {
            return Err(match Cause::from(code) {
                Cause::UnknownTopicOrPartition | Cause::UnknownTopic => Unread::NoTopic(topic.to_owned()),
                code => Unread::Client(format!("the topic `{topic}`: {code}")),
            });
        }
        let partitions: Vec<i32> =
            found.map(|found| found.partitions().iter().map(MetadataPartition::id).collect()).unwrap_or_default();
        if partitions.is_empty() {
            return Err(Unread::NoTopic(topic.to_owned()));
        }
        Ok(Self { client, topic: topic.to_owned(), partitions, late })
    }

    /// Asks what each partition has.
    pub(in crate::ingest) fn extents(&self) -> Result<Vec<Extent>, Unread> {
        let extent = |partition: &i32| {
            let partition = *partition;
            let ask = |timeout| self.client.fetch_watermarks(&self.topic, partition, timeout);
            let (low, high) = until_answered(&self.client, self.late, ask).map_err(silent)?;
            Ok(Extent { partition, low, high })
        };
        self.partitions.iter().map(extent).collect()
    }

    /// Asks from where on each partition has messages that were sent since an instant.
    pub(in crate::ingest) fn since(&self, extents: &[Extent], since: Instant) -> Result<Vec<Extent>, Unread> {
        let mut times = TopicPartitionList::new();
        for extent in extents {
            let millis = Offset::Offset(since.0.div_euclid(1_000).max(0));
            times.add_partition_offset(&self.topic, extent.partition, millis).map_err(|error| client_error(&error))?;
        }
        let found =
            until_answered(&self.client, self.late, |timeout| self.client.offsets_for_times(times.clone(), timeout))
                .map_err(silent)?;
        let range = |extent: &Extent| match found.find_partition(&self.topic, extent.partition)?.offset() {
            Offset::Offset(offset) => Some(Extent { low: offset.max(extent.low), ..*extent }),
            // All of its messages are older.
            _ => None,
        };
        Ok(extents.iter().filter_map(range).filter(|range| range.low < range.high).collect())
    }

    /// Reads these ranges of the partitions, and hands the messages to `note`. Messages that come in later are left out.
    pub(in crate::ingest) fn read(
        &self,
        extents: Vec<Extent>,
        ranges: &[Extent],
        limits: Limits,
        mut note: impl FnMut(&Message),
    ) -> Result<Read, Unread> {
        let mut list = TopicPartitionList::new();
        for Extent { partition, low, .. } in ranges {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*low))
                .map_err(|error| client_error(&error))?;
        }
        self.client.assign(&list).map_err(|error| client_error(&error))?;
        let mut ends: HashMap<i32, i64> = ranges.iter().map(|range| (range.partition, range.high)).collect();
        let late = Monotonic::now() + READ_TIMEOUT;
        let mut read = Read { extents, messages: 0, bytes: 0, end: End::Whole };
        while !ends.is_empty() {
            read.end = match () {
                () if read.messages >= limits.messages => End::Messages,
                () if read.bytes >= limits.bytes => End::Bytes,
                () if Monotonic::now() >= late => End::Time,
                () => End::Whole,
            };
            if read.end != End::Whole {
                break;
            }
            match self.client.poll(POLL.min(late.saturating_duration_since(Monotonic::now()))) {
                Some(Ok(message)) => {
                    let message = owned(&message);
                    let Some(end) = ends.get(&message.partition).copied() else { continue };
                    if message.offset < end {
                        read.messages += 1;
                        read.bytes += message.bytes() as u64;
                        note(&message);
                    }
                    if message.offset + 1 >= end {
                        ends.remove(&message.partition);
                    }
                }
                // The last offsets of a partition need not have a message.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
                Some(Err(_)) | None => {}
            }
        }
        Ok(read)
    }
}

fn silent(problem: String) -> Unread {
    Unread::Silent { problem }
}

fn client_error(error: &KafkaError) -> Unread {
    Unread::Client(error.to_string())
}
