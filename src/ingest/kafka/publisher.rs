//! Publishes events to topics, in order.
//!
//! Each bucket has a client of its own, which publishes in transactions. What a transaction has not sent in time is given up as a whole. The
//! brokers accept nothing more of an earlier client of the bucket, on whatever node: what a node that was frozen still sends is refused.
//!
//! Without transactions (`kafka.events_transactional`), one client tries for ever: with a time limit, a later event of a customer could
//! overtake one that failed. If one fails for good, the client gives up all that it has (`enable.gapless.guarantee`).
//!
//! A client that has failed, or whose publication was given up, is dropped with everything that it has not sent. The events are read again
//! from the first one that is not marked.
//!
//! Before the first event, the topics are examined: one that does not exist is not created with the brokers' defaults, and one that does
//! not accept the largest event is not used.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use tokio::time::{Instant, timeout_at};

use super::outgoing::{Outgoing, Topics};
use super::settings;
use super::trouble::Trouble;
use crate::app::App;
use crate::app::event::MAX_EVENT_BYTES;
use crate::app::model::OutboxRow;
use crate::app::sink::{Published, Sink};
use crate::config;

/// How long the brokers may take to answer, unless they commit a transaction.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a publication that waits for the brokers tells why.
const REPORT_PERIOD: Duration = Duration::from_secs(1);
/// How long the brokers may take to commit a transaction.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The setting of a topic for the size of its largest message.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Returns where events go. Fails if the configuration cannot be used.
pub(in crate::ingest) fn sink(app: &Arc<App>, config: &config::Kafka, installation: &str) -> anyhow::Result<Sink> {
    let topics = Topics::of(config, installation);
    let publisher =
        Publisher { app: Arc::downgrade(app), config: config.clone(), topics, clients: Mutex::new(HashMap::new()) };
    // Fails here, and not with the first event, if a file is missing.
    publisher.connect(None)?;
    let publisher = Arc::new(publisher);
    Ok(Box::new(move |rows| {
        let publisher = Arc::clone(&publisher);
        async move { publisher.publish(rows).await }.boxed()
    }))
}

/// A producer, and what it reports.
#[derive(Clone)]
struct Client {
    producer: FutureProducer<Trouble>,
    trouble: Trouble,
}

/// What a client publishes: one bucket, in transactions, or all buckets without.
type Lane = Option<i32>;

struct Publisher {
    app: Weak<App>,
    config: config::Kafka,
    topics: Topics,
    /// The clients that publish nothing just now.
    clients: Mutex<HashMap<Lane, Client>>,
}

impl Publisher {
    fn connect(&self, lane: Lane) -> Result<Client, KafkaError> {
        let trouble = Trouble::default();
        let transactions = lane.map(|bucket| self.topics.transactional_id(bucket));
        let settings = settings::producer(&self.config, transactions.as_deref());
        Ok(Client { producer: settings.create_with_context(trouble.clone())?, trouble })
    }

    async fn publish(&self, rows: Vec<OutboxRow>) -> Published {
        let mut lanes: BTreeMap<Lane, Vec<OutboxRow>> = BTreeMap::new();
        for row in rows {
            lanes.entry(self.config.events_transactional.then_some(row.bucket)).or_default().push(row);
        }
        let each = lanes.into_iter().map(async |(lane, rows)| self.publish_in(lane, &rows).await);
        let mut all = Published::default();
        for Published { ids, problem } in join_all(each).await {
            all.ids.extend(ids);
            all.problem = all.problem.or(problem);
        }
        all
    }

    async fn publish_in(&self, lane: Lane, rows: &[OutboxRow]) -> Published {
        let failed = |problem| Published { ids: Vec::new(), problem: Some(problem) };
        // If this future is dropped, the client is too.
        let client = match self.client(lane).await {
            Ok(client) => client,
            Err(problem) => return failed(problem),
        };
        let published = match lane {
            Some(_) => self.publish_whole(&client, rows).await.unwrap_or_else(failed),
            None => self.publish_each(&client, rows).await,
        };
        if published.problem.is_none() {
            self.clients.lock().insert(lane, client);
        }
        published
    }

    /// Takes the client of a lane, or makes one, which examines the topics.
    async fn client(&self, lane: Lane) -> Result<Client, String> {
        if let Some(client) = self.clients.lock().remove(&lane) {
            return Ok(client);
        }
        let client = self.connect(lane).map_err(|error| error.to_string())?;
        self.examine(&client).await?;
        if lane.is_some() {
            // From now on, the brokers refuse earlier clients of the bucket.
            wait_for(&client, |producer| producer.init_transactions(ANSWER_TIMEOUT)).await?;
        }
        Ok(client)
    }

    async fn examine(&self, client: &Client) -> Result<(), String> {
        // Asking for all topics creates none.
        let metadata = wait_for(client, |producer| producer.client().fetch_metadata(None, ANSWER_TIMEOUT)).await?;
        let exists = |name: &str| metadata.topics().iter().any(|topic| topic.name() == name);
        if let Some(missing) = self.topics.names().find(|name| !exists(name)) {
            return Err(format!("the topic `{missing}` does not exist"));
        }
        let admin: AdminClient<DefaultClientContext> =
            settings::base(&self.config).create().map_err(|error: KafkaError| error.to_string())?;
        let resources: Vec<ResourceSpecifier<'_>> = self.topics.names().map(ResourceSpecifier::Topic).collect();
        let options = AdminOptions::new().request_timeout(Some(ANSWER_TIMEOUT));
        let described = admin.describe_configs(&resources, &options).await;
        // A user may be allowed to write and not to read settings.
        let Ok(described) = described else { return Ok(()) };
        for settings in described.into_iter().flatten() {
            let OwnedResourceSpecifier::Topic(topic) = &settings.specifier else { continue };
            let limit = settings.get(MAX_MESSAGE_BYTES).and_then(|limit| limit.value.as_deref());
            if limit.and_then(|limit| limit.parse().ok()).is_some_and(|limit: usize| limit < MAX_EVENT_BYTES) {
                return Err(format!(
                    "the topic `{topic}` must accept messages of {MAX_EVENT_BYTES} bytes: raise {MAX_MESSAGE_BYTES}"
                ));
            }
        }
        Ok(())
    }

    /// Publishes all events in a transaction, or none.
    async fn publish_whole(&self, client: &Client, rows: &[OutboxRow]) -> Result<Published, String> {
        client.producer.begin_transaction().map_err(|error| error.to_string())?;
        if let Err(problem) = self.send(client, rows).await {
            // The client may keep a message that was on its way when another one failed, and would wait for its result.
            client.producer.purge(PurgeConfig::default().queue().inflight());
            // Consumers wait until the transaction has ended, and without this until it times out.
            let aborted = wait_for(client, |producer| producer.abort_transaction(ANSWER_TIMEOUT)).await;
            if let Err(error) = aborted {
                tracing::debug!(error, "a transaction could not be aborted");
            }
            return Err(problem);
        }
        wait_for(client, |producer| producer.commit_transaction(COMMIT_TIMEOUT)).await?;
        Ok(Published { ids: rows.iter().map(|row| row.id).collect(), problem: None })
    }

    /// Sends the messages of all events and waits until the brokers have them, or until one has failed.
    async fn send(&self, client: &Client, rows: &[OutboxRow]) -> Result<(), String> {
        let queued = rows.iter().map(|row| self.queue_messages(client, row)).collect::<Result<Vec<_>, _>>();
        let deliveries = queued.map_err(|error| error.to_string())?.into_iter().flatten();
        self.reporting(client, try_join_all(deliveries.map(delivered))).await.map(drop)
    }

    /// Publishes the events up to the first one that the client refuses. An event that fails holds up the later ones of its customer.
    async fn publish_each(&self, client: &Client, rows: &[OutboxRow]) -> Published {
        let mut problem = None;
        // Of each row that the client takes, the number of messages that the brokers do not have yet.
        let mut missing = Vec::with_capacity(rows.len());
        let mut deliveries = FuturesUnordered::new();
        for row in rows {
            match self.queue_messages(client, row) {
                Ok(queued) => {
                    let index = missing.len();
                    missing.push(queued.len());
                    deliveries
                        .extend(queued.into_iter().map(|delivery| delivered(delivery).map(move |it| (index, it))));
                }
                Err(error) => {
                    problem = Some(error.to_string());
                    break;
                }
            }
        }
        let collect = async {
            let mut deadline = None;
            loop {
                let next = match deadline {
                    None => deliveries.next().await,
                    // The client may never report the result of a message that was on its way when another one failed.
                    Some(deadline) => timeout_at(deadline, deliveries.next()).await.unwrap_or(None),
                };
                match next {
                    None => return,
                    Some((index, Ok(()))) => missing[index] -= 1,
                    Some((_, Err(error))) => {
                        problem.get_or_insert(error);
                        deadline.get_or_insert_with(|| Instant::now() + ANSWER_TIMEOUT);
                    }
                }
            }
        };
        self.reporting(client, collect).await;
        Published { ids: complete(rows, &missing), problem }
    }

    /// Gives the messages of an event to the client.
    fn queue_messages(&self, client: &Client, row: &OutboxRow) -> Result<Vec<DeliveryFuture>, KafkaError> {
        self.topics.messages(row).iter().map(|message| queue(client, message)).collect()
    }

    /// Waits for results, and notes meanwhile what hinders the client.
    async fn reporting<T>(&self, client: &Client, results: impl Future<Output = T>) -> T {
        let mut results = std::pin::pin!(results);
        loop {
            tokio::select! {
                results = &mut results => return results,
                () = tokio::time::sleep(REPORT_PERIOD) => {
                    if let Some(app) = self.app.upgrade() {
                        app.publishing.note(client.trouble.problem());
                    }
                }
            }
        }
    }
}

/// Returns the ids of the events of which no message is missing, and none of an earlier event of the customer.
fn complete(rows: &[OutboxRow], missing: &[usize]) -> Vec<i64> {
    let mut held = HashSet::new();
    let mut ids = Vec::with_capacity(rows.len());
    for (row, missing) in rows.iter().zip(missing) {
        if *missing > 0 {
            held.insert(row.customer_id);
        } else if !held.contains(&row.customer_id) {
            ids.push(row.id);
        }
    }
    ids
}

/// Waits for the result of a message.
async fn delivered(delivery: DeliveryFuture) -> Result<(), String> {
    match delivery.await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err((error, _))) => Err(error.to_string()),
        Err(_) => Err("the client was closed".to_owned()),
    }
}

/// Runs a question that blocks its thread. Fails with what hinders the client, if it knows.
async fn wait_for<T: Send + 'static>(
    client: &Client,
    ask: impl FnOnce(&FutureProducer<Trouble>) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, String> {
    let producer = client.producer.clone();
    let answer = tokio::task::spawn_blocking(move || ask(&producer)).await.map_err(|panic| panic.to_string())?;
    answer.map_err(|error| client.trouble.problem().unwrap_or_else(|| error.to_string()))
}

fn queue(client: &Client, message: &Outgoing<'_>) -> Result<DeliveryFuture, KafkaError> {
    let add = |headers: OwnedHeaders, (key, value): &(&str, String)| headers.insert(Header { key, value: Some(value) });
    let headers = message.headers.iter().fold(OwnedHeaders::new(), add);
    let record = FutureRecord { payload: message.value, ..FutureRecord::<str, str>::to(message.topic) };
    client.producer.send_result(record.key(message.key).headers(headers)).map_err(|(error, _)| error)
}

#[cfg(test)]
mod tests {
    use super::super::outgoing::tests::row;
    use super::*;
    use crate::app::model::CustomerId;

    #[test]
    fn an_event_holds_up_the_later_ones_of_its_customer() {
        let of = |id, customer| OutboxRow { id, customer_id: CustomerId(customer), ..row() };
        let rows = [of(1, 7), of(2, 7), of(3, 8), of(4, 7)];
        assert_eq!(complete(&rows, &[0, 0, 0, 0]), [1, 2, 3, 4]);
        assert_eq!(complete(&rows, &[0, 1, 0, 0]), [1, 3]);
        // The client took no more.
        assert_eq!(complete(&rows, &[0, 0]), [1, 2]);
    }
}
