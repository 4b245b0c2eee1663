//! Reads one message of a topic again: that of a dead letter of which only the beginning was kept.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use tokio::time::Instant as Monotonic;

use super::consumer::owned;
use super::listener::Listener;
use super::settings;
use crate::app::error::Error;
use crate::app::message::Message;
use crate::app::model::DeadLetter;
use crate::app::replay::Failed;
use crate::config;

/// How long the brokers may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the message of the dead letter. It does not join the group.
pub fn read_again(config: &config::Kafka, letter: &DeadLetter) -> Result<Message, Failed> {
    let failed = |error: KafkaError| {
        tracing::warn!(error = %error, "a message could not be read again");
        Failed::Now(Error::Unavailable)
    };
    let mut settings = settings::base(config);
    settings.set("group.id", &config.group).set("enable.auto.commit", "false").set("auto.offset.reset", "error");
    let client: BaseConsumer<Listener> = settings.create_with_context(Listener::default()).map_err(failed)?;
    let partition = i32::try_from(letter.partition).unwrap_or(i32::MAX);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&letter.topic, partition, Offset::Offset(letter.message_offset)).map_err(failed)?;
    client.assign(&list).map_err(failed)?;
    let gone =
        || Failed::Message("only the first 64 KiB are kept, and the message is no longer in its topic".to_owned());
    let late = Monotonic::now() + TIMEOUT;
    while Monotonic::now() < late {
        match client.poll(late.saturating_duration_since(Monotonic::now())) {
            Some(Ok(message)) => {
                let message = owned(&message);
                let is_it = message.offset == letter.message_offset && message.hash() == letter.hash;
                return if is_it { Ok(message) } else { Err(gone()) };
            }
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ))) => return Err(gone()),
            Some(Err(_)) | None => {}
        }
    }
    Err(Failed::Now(Error::Unavailable))
}
