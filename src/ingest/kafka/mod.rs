//! Facts from topics of Kafka, and events to topics.
//!
//! The modules: `settings` configures the client, `listener` hears what a consumer reports, and `trouble` what hinders any client. `start`
//! decides where a partition begins, `consumer` reads, `again` reads one message, `excerpt` reads a part of a topic without joining the
//! group, and `examine` asks about topics. `publisher` publishes events, which `outgoing` makes messages of.

mod again;
mod consumer;
mod examine;
mod excerpt;
mod listener;
mod outgoing;
mod publisher;
mod settings;
mod start;
mod trouble;

use std::sync::Arc;

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

pub use self::again::read_again;
use self::consumer::Consumer;
pub use self::examine::examine;
pub(super) use self::excerpt::Reader;
use self::listener::Listener;
pub(super) use self::publisher::sink;
use super::json::JsonMap;
use crate::app::App;
use crate::config;

/// Why a client cannot be made, for example because a file is missing.
const UNUSABLE: &str = "the section `kafka` of the configuration cannot be used";

/// Begins to read the topics of facts. Returns a handle of the thread, which ends after the server was told to stop.
pub fn start(
    app: &Arc<App>,
    config: &config::Kafka,
    map: Option<Arc<JsonMap>>,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let client: BaseConsumer<Listener> =
        settings::consumer(config).create_with_context(Listener::default()).context(UNUSABLE)?;
    let topics: Vec<&str> = config.facts_topics.iter().map(String::as_str).collect();
    client.subscribe(&topics).context("`kafka.facts_topics`")?;
    let consumer = Consumer::new(Arc::clone(app), config.clone(), map, client, tokio::runtime::Handle::current());
    Ok(std::thread::Builder::new().name("kafka".to_owned()).spawn(move || consumer.run())?)
}
