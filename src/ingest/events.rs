//! Says where events go. The Kafka client is a feature of the build.

use std::sync::Arc;

use crate::app::App;
use crate::config;

/// What the Kafka clients keep of events that they have not sent yet, in bytes.
pub const CLIENT_BUFFER_BYTES: u64 = 32 << 20;

/// Whether events are published.
pub fn are_published(config: &config::Kafka) -> bool {
    config.events_topic.is_some() || config.balances_topic.is_some()
}

/// Says where events go, if the configuration names a topic for them. Must be called before the relay begins.
pub async fn prepare(app: &Arc<App>, config: Option<&config::Kafka>) -> anyhow::Result<()> {
    let Some(config) = config.filter(|config| are_published(config)) else { return Ok(()) };
    let installation = app.database.identity().await?;
    publish(app, config, &installation)
}

#[cfg(feature = "kafka")]
fn publish(app: &Arc<App>, config: &config::Kafka, installation: &str) -> anyhow::Result<()> {
    // Set for the first time here.
    let _ = app.sink.set(super::kafka::sink(app, config, installation)?);
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn publish(_: &Arc<App>, _: &config::Kafka, _: &str) -> anyhow::Result<()> {
    anyhow::bail!("this program was built without the Kafka client")
}
