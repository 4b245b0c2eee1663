//! The settings of the Kafka client: each default that is changed, and why. The others are left to the client, which has good ones.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{GroupProtocol, Kafka, KafkaSecurity, Sasl};
use crate::ingest::events;
use crate::ingest::topics::CLIENT_BUFFER_BYTES;

/// The settings of the consumer of facts.
const CONSUMER: [(&str, &str); 9] = [
    // An offset is committed only after its effects are.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // By default, a new group skips everything that was sent before, and messages that retention has taken are skipped silently.
    ("auto.offset.reset", "error"),
    // How long this program may take between two polls. It does nothing else in between that could take long.
    ("max.poll.interval.ms", "60000"),
    // New partitions are noticed within this time. The default is five minutes.
    ("topic.metadata.refresh.interval.ms", "5000"),
    ("queued.min.messages", "1000"),
    // How soon the client fetches again if its queue was full. With the default of one second, a small queue is a hundred times slower.
    ("fetch.queue.backoff.ms", "10"),
    // How often the client reports lag and the state of its connections.
    ("statistics.interval.ms", "5000"),
    // A damaged message is not recorded.
    ("check.crcs", "true"),
];

/// The settings of the producer of events.
const PRODUCER: [(&str, &str); 7] = [
    // A message that is sent again after a broken connection is not stored twice, and none overtakes another.
    ("enable.idempotence", "true"),
    // If a message fails for good, no later one is stored. So the events of a customer have no gap.
    ("enable.gapless.guarantee", "true"),
    // How long the client waits for more messages to send together.
    ("linger.ms", "5"),
    ("batch.size", "262144"),
    ("compression.type", "lz4"),
    // Customers are in the same partitions as with producers that are based on Java.
    ("partitioner", "murmur2_random"),
    ("statistics.interval.ms", "5000"),
];

/// Returns the settings of the producer of events, which publishes them in transactions if it gets a name for that.
pub(super) fn producer(config: &Kafka, transactional_id: Option<&str>) -> ClientConfig {
    let mut settings = base(config);
    for (key, value) in PRODUCER {
        settings.set(key, value);
    }
    match transactional_id {
        // A transaction that takes too long is given up as a whole, and sent again.
        Some(id) => settings.set("transactional.id", id),
        // No limit. With the default of five minutes, a message could be dropped, and a later one of the same customer be stored.
        None => settings.set("message.timeout.ms", "0"),
    };
    // The default is 1 GiB.
    settings.set("queue.buffering.max.kbytes", (events::CLIENT_BUFFER_BYTES / 1024).to_string());
    settings
}

/// The settings of a client that reads a part of a topic.
const EXCERPT: [(&str, &str); 6] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Retention may take the beginning of what is read. Then what is left is read.
    ("auto.offset.reset", "earliest"),
    // The last offsets of a partition may have no message. Only this event tells that its end is reached.
    ("enable.partition.eof", "true"),
    // What the client fetches ahead, and how soon it fetches again if its queue was full.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.queue.backoff.ms", "10"),
];

/// Returns the settings of the consumer of facts.
pub(super) fn consumer(config: &Kafka) -> ClientConfig {
    let mut settings = base(config);
    for (key, value) in CONSUMER {
        settings.set(key, value);
    }
    // What the client fetches ahead, beside what this program keeps. The default is 64 MiB.
    settings.set("queued.max.messages.kbytes", (CLIENT_BUFFER_BYTES / 1024).to_string());
    settings.set("group.id", &config.group);
    if let Some(instance) = &config.instance_id {
        settings.set("group.instance.id", instance);
    }
    match config.group_protocol {
        // Only partitions that move are revoked.
        GroupProtocol::Classic => {
            let session = config.session_timeout.as_millis();
            settings.set("session.timeout.ms", session.to_string());
            settings.set("heartbeat.interval.ms", (session / 3).min(3_000).to_string());
            settings.set("partition.assignment.strategy", "cooperative-sticky")
        }
        // The broker decides about sessions, heartbeats and the assignment.
        GroupProtocol::Consumer => settings.set("group.protocol", "consumer"),
    };
    settings
}

/// Returns the settings of a client that reads a part of a topic without joining the group.
pub(super) fn excerpt(config: &Kafka) -> ClientConfig {
    let mut settings = base(config);
    for (key, value) in EXCERPT {
        settings.set(key, value);
    }
    // The client wants a group, and access rules may allow only this one. Nothing joins it.
    settings.set("group.id", &config.group);
    settings
}

/// Returns the settings of every client: the brokers, and how to prove who it is.
pub(super) fn base(config: &Kafka) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set_log_level(RDKafkaLogLevel::Warning);
    settings.set("bootstrap.servers", &config.brokers).set("client.id", "windfall");
    let KafkaSecurity { tls, sasl } = &config.security;
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    settings.set("security.protocol", protocol);
    if let Some(Sasl { mechanism, username, password }) = sasl {
        settings.set("sasl.mechanism", mechanism.name());
        settings.set("sasl.username", username).set("sasl.password", password.expose());
    }
    if let Some(tls) = tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.client_cert_file),
            ("ssl.key.location", &tls.client_key_file),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                settings.set(key, file.to_string_lossy());
            }
        }
    }
    settings
}
