//! Where events go. `ingest` gives this to the application, because it knows Kafka. A webhook would be another sink.

use entity::outbox;
use futures_util::future::BoxFuture;

/// Publishes events, in order.
pub type Sink = Box<dyn Fn(Vec<outbox::Model>) -> BoxFuture<'static, Published> + Send + Sync>;

/// What became of events that were to be published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The ids of those that were published. An event whose customer has an earlier one that was not is not among them.
    pub ids: Vec<i64>,
    /// Why not all of them were published.
    pub problem: Option<String>,
}
