//! What the Kafka client reports to this program: assignments, statistics, and the causes of failures.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode, RDKafkaErrorCode as Cause};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

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
    /// Why no broker can be used. `None`: one can, or nothing is known.
    pub(super) problem: Mutex<Option<String>>,
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
        log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        // A broker without a number is one of the configuration, to which the client need not stay connected.
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.works();
        }
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
        let Some(code) = error.rdkafka_error_code() else { return };
        let Some(problem) = problem(code, reason) else {
            tracing::debug!(error = %error, reason, "the Kafka client reports an error");
            return;
        };
        let mut known = self.problem.lock();
        // That no broker is left follows from the cause that was reported before.
        if is_consequence(&error) && known.is_some() {
            return;
        }
        // The client tries again for ever, and reports each try.
        if known.as_deref() != Some(&*problem) {
            tracing::error!(reason, "Kafka: {problem}");
            *known = Some(problem);
        }
    }
}

impl Listener {
    fn works(&self) {
        if self.problem.lock().take().is_some() {
            tracing::info!("Kafka can be used again");
        }
    }
}

/// Logs what the client writes. Its warnings are about what it mends itself.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(facility, "{message}");
        }
        _ => tracing::debug!(facility, "{message}"),
    }
}

/// Whether the error says no more than that no broker is left.
pub(super) fn is_consequence(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(Cause::AllBrokersDown)
}

/// Says what is wrong, so that an operator knows what to change. The client itself says only that it cannot connect.
pub(super) fn problem(code: RDKafkaErrorCode, reason: &str) -> Option<String> {
    let says = |what: &str| reason.to_ascii_lowercase().contains(what);
    Some(match code {
        Cause::Authentication | Cause::SaslAuthenticationFailed => {
            "the brokers refuse the login: check `kafka.username`, `kafka.password` and `kafka.sasl_mechanism`".to_owned()
        }
        Cause::SSL => "the certificate of a broker is not accepted: check `kafka.ca_file`, and that its host name is the one in \
            `kafka.brokers` and in the broker's advertised address"
            .to_owned(),
        Cause::BrokerTransportFailure if says("certificate") || says("ssl") => {
            "the brokers do not accept the certificate of this client: check `kafka.client_cert_file` and `kafka.client_key_file`"
                .to_owned()
        }
        Cause::Resolve => "the host name of a broker is not known: check `kafka.brokers` and the broker's advertised address".to_owned(),
        Cause::AllBrokersDown => "no broker can be reached: check `kafka.brokers`, and whether they expect `kafka.tls` or a login".to_owned(),
        Cause::TopicAuthorizationFailed | Cause::GroupAuthorizationFailed | Cause::ClusterAuthorizationFailed => {
            "the user may not use a topic, or may not join the group: check the access rules of the brokers".to_owned()
        }
        Cause::UnknownTopicOrPartition | Cause::UnknownTopic => {
            "a topic of the section `kafka` does not exist".to_owned()
        }
        _ => return None,
    })
}
