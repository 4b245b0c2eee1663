//! Starts the ingestion of topics, and replays dead letters. The Kafka client is a feature of the build; everything else is not.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use futures_util::FutureExt as _;

use super::batch;
use super::json::JsonMap;
use crate::app::App;
use crate::app::dead_letter::is_whole;
use crate::app::error::Error;
use crate::app::message::{self, Message};
use crate::app::model::DeadLetter;
use crate::app::replay::Failed;
use crate::app::waiting_fact;
use crate::config;

/// What the Kafka client fetches ahead, in bytes, beside `kafka.buffer_bytes`.
pub const CLIENT_BUFFER_BYTES: u64 = 8 << 20;

/// Whether this program was built with the Kafka client.
pub const HAS_CLIENT: bool = cfg!(feature = "kafka");

/// Fails if Kafka is configured and the program was built without its client.
pub fn check_build(config: Option<&config::Kafka>, has_client: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.is_none() || has_client,
        "`kafka.brokers` (WINDFALL__KAFKA__BROKERS) is set, but this program was built without the Kafka client: build it with \
         `cargo build --release --features kafka` (Debian needs the package libssl-dev), or use the container image"
    );
    Ok(())
}

/// Begins to read the topics of the configuration, if there are any. Returns a handle of the thread that reads, which ends after the
/// server was told to stop.
pub fn start(app: &Arc<App>, config: Option<&config::Kafka>) -> anyhow::Result<Option<JoinHandle<()>>> {
    check_build(config, HAS_CLIENT)?;
    let map = config.and_then(|config| config.facts_map.as_deref()).map(JsonMap::read).transpose()?.map(Arc::new);
    let (again, replayed_by) = (config.cloned(), map.clone());
    // The application has this function, so the function must not keep the application alive.
    let weak = Arc::downgrade(app);
    let replay = move |letter| replay(weak.clone(), again.clone(), replayed_by.clone(), letter).boxed();
    // Set for the first time here.
    let _ = app.replay.set(Box::new(replay));
    let config = config.filter(|config| !config.facts_topics.is_empty());
    config.map(|config| read(app, config, map)).transpose()
}

#[cfg(feature = "kafka")]
fn read(app: &Arc<App>, config: &config::Kafka, map: Option<Arc<JsonMap>>) -> anyhow::Result<JoinHandle<()>> {
    super::kafka::start(app, config, map)
}

#[cfg(not(feature = "kafka"))]
fn read(_: &Arc<App>, _: &config::Kafka, _: Option<Arc<JsonMap>>) -> anyhow::Result<JoinHandle<()>> {
    anyhow::bail!("this program was built without the Kafka client")
}

/// Records the message of a dead letter.
async fn replay(
    app: Weak<App>,
    config: Option<config::Kafka>,
    map: Option<Arc<JsonMap>>,
    letter: DeadLetter,
) -> Result<(), Failed> {
    let app = app.upgrade().ok_or(Failed::Now(Error::Unavailable))?;
    let message = if is_whole(&letter) { of_letter(letter) } else { read_again(config, letter).await? };
    let outcomes = batch::record(&app, map.as_deref(), std::slice::from_ref(&message)).await.map_err(Failed::Now)?;
    for outcome in outcomes {
        if let Some(fault) = outcome.fault {
            return Err(Failed::Message(fault));
        }
        waiting_fact::keep(&app, &outcome.waiting).await.map_err(Failed::Now)?;
    }
    Ok(())
}

fn of_letter(letter: DeadLetter) -> Message {
    Message {
        topic: letter.topic.into(),
        partition: i32::try_from(letter.partition).unwrap_or(i32::MAX),
        offset: letter.message_offset,
        key: letter.key,
        headers: message::headers(&letter.headers),
        value: letter.size.map(|_| letter.payload),
        sent_at: None,
    }
}

/// Reads a message again of which only the beginning was kept.
#[cfg(feature = "kafka")]
async fn read_again(config: Option<config::Kafka>, letter: DeadLetter) -> Result<Message, Failed> {
    let Some(config) = config else { return Err(too_long()) };
    let read = tokio::task::spawn_blocking(move || super::kafka::read_again(&config, &letter)).await;
    read.map_err(|panic| Failed::Now(Error::Internal(panic.to_string())))?
}

#[cfg(not(feature = "kafka"))]
async fn read_again(_: Option<config::Kafka>, _: DeadLetter) -> Result<Message, Failed> {
    Err(too_long())
}

fn too_long() -> Failed {
    Failed::Message("only the first 64 KiB are kept, and this node does not read topics".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_build_without_the_client_refuses_brokers() {
        let mut config = Config::defaults().unwrap();
        assert!(check_build(config.kafka.as_ref(), false).is_ok());
        config.kafka = Some(config::Kafka::for_tests("127.0.0.1:9092", "orders"));
        assert!(check_build(config.kafka.as_ref(), true).is_ok());
        let told = check_build(config.kafka.as_ref(), false).unwrap_err().to_string();
        assert!(told.contains("--features kafka") && told.contains("kafka.brokers"), "{told}");
    }
}
