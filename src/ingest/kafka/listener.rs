//! What a consumer reports to this program: assignments, and the ends of partitions. What hinders it, its [`Trouble`] knows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::time::Instant as Monotonic;

use super::trouble::Trouble;

/// How long a single question to the brokers may take. After each, the client says why it cannot connect.
const QUESTION: Duration = Duration::from_secs(1);

/// A topic and one of its partitions.
pub(super) type TopicPartition = (String, i32);

/// Collects what the client reports between two polls. The callbacks run during a poll, or in a thread of the client.
#[derive(Default)]
pub(super) struct Listener {
    /// Partitions that the group has assigned, and that the client waits to be told to read.
    pub(super) assigned: Mutex<Option<Vec<TopicPartition>>>,
    /// Partitions that the group has taken away.
    pub(super) revoked: Mutex<Vec<TopicPartition>>,
    /// The offset after the last message of each partition.
    pub(super) ends: Mutex<HashMap<TopicPartition, i64>>,
    /// Whether the client is being closed, so that nobody looks up positions any more.
    pub(super) closing: AtomicBool,
    pub(super) trouble: Trouble,
}

/// Logs that the client refuses what it was told.
pub(super) fn told(result: Result<(), KafkaError>, what: &str) {
    if let Err(error) = result {
        tracing::warn!(error = %error, "a partition could not be {what}");
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

impl ConsumerContext for Listener {
    /// Notes what the group has assigned: the positions must be looked up before the client may read. Gives up at once what the group has
    /// revoked: what is under way is idempotent, and only the database decides where the next consumer begins.
    ///
    /// The client waits for an answer to each event, in which it must be told to read, or to give up, exactly what it reads or does not
    /// read. An answer that it refuses, or that never comes, would keep this consumer out of the group for ever.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if event == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if self.closing.load(Ordering::SeqCst) {
                // A client that is being closed gives them up itself.
                told(consumer.incremental_assign(list), "assigned");
            } else {
                self.assigned.lock().get_or_insert_default().extend(partitions(list));
            }
            return;
        }
        // The client does not read yet what is being looked up.
        let mut read = TopicPartitionList::new();
        let mut assigned = self.assigned.lock();
        for at in partitions(list) {
            match assigned.as_mut().and_then(|assigned| assigned.iter().position(|waiting| *waiting == at)) {
                Some(waiting) => drop(assigned.as_mut().map(|assigned| assigned.swap_remove(waiting))),
                None => drop(read.add_partition(&at.0, at.1)),
            }
            self.revoked.lock().push(at);
        }
        drop(assigned);
        told(consumer.incremental_unassign(&read), "given up");
    }

    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        // Another consumer may have the partitions. The position in the database is what counts.
        if let Err(error) = result {
            tracing::debug!(error = %error, "an offset was not committed to Kafka");
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.trouble.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.trouble.note_brokers(&statistics);
        let mut ends = self.ends.lock();
        for (topic, statistics) in statistics.topics {
            for (partition, statistics) in statistics.partitions {
                // What is in an open transaction cannot be read yet.
                let end = if statistics.ls_offset >= 0 { statistics.ls_offset } else { statistics.hi_offset };
                if partition >= 0 && end >= 0 {
                    ends.insert((topic.clone(), partition), end);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.error(error, reason);
    }
}

/// Asks until the brokers answer. The client itself says only that it cannot connect. So the cause is taken from what it reports, which
/// arrives during a poll. No message can: the caller has no partition yet.
pub(super) fn until_answered<T>(
    client: &BaseConsumer<Listener>,
    late: Monotonic,
    ask: impl Fn(Duration) -> Result<T, KafkaError>,
) -> Result<T, String> {
    loop {
        let error = match ask(QUESTION) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        while client.poll(Duration::ZERO).is_some() {}
        if Monotonic::now() >= late {
            return Err(client.context().trouble.problem().unwrap_or_else(|| error.to_string()));
        }
    }
}
