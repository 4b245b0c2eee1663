//! What the Kafka client reports to this program: assignments, statistics, and the causes of failures.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// Why no broker can be used. `None`: one can, or nothing is known.
    pub(super) problem: Arc<Mutex<Option<String>>>,
}

pub(super) fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

impl ConsumerContext for Listener {
    /// Notes what the group has assigned: the positions must be looked up before the client may read. Gives up at once what the group has
    /// revoked: what is under way is idempotent, and only the database decides where the next consumer begins.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions = partitions(list);
        if event == Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned.lock().get_or_insert_default().extend(partitions);
            return;
        }
        // While the assignment is looked up, the client has none of these.
        if let Some(assigned) = &mut *self.assigned.lock() {
            assigned.retain(|assigned| !partitions.contains(assigned));
        }
        self.revoked.lock().extend(partitions);
        if let Err(error) = consumer.incremental_unassign(list) {
            tracing::warn!(error = %error, "revoked partitions could not be given up");
        }
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
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(facility, "{message}");
            }
            _ => tracing::debug!(facility, "{message}"),
        }
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
        if code == Cause::AllBrokersDown && known.is_some() {
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
    pub(super) fn works(&self) {
        if self.problem.lock().take().is_some() {
            tracing::info!("Kafka can be used again");
        }
    }
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
            "the user may not read a topic, or may not join the group: check the access rules of the brokers".to_owned()
        }
        Cause::UnknownTopicOrPartition | Cause::UnknownTopic => {
            "a topic of `kafka.facts_topics` does not exist".to_owned()
        }
        _ => return None,
    })
}
