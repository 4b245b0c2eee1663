//! Wake-ups between the nodes on one database, through Redis's pub/sub.
//!
//! They are hints: Redis may drop any of them, bring them late, twice, or not at all, and nobody notices but the clock. So
//! sending never waits, what does not fit is dropped, and whenever a connection is there again `resumed` asks for a look at
//! what was missed meanwhile. A hint says which customer is at which version; what changed comes with it, unread until
//! somebody follows that customer.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::gauge;
use futures_util::StreamExt as _;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{Client, RedisError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics;

/// Hints that wait to be sent.
const MAX_WAITING: usize = 4_096;
/// Hints that are sent at once.
const MAX_SENT_AT_ONCE: usize = 256;
/// Bytes of a hint: a larger one is sent without what changed.
const MAX_HINT_BYTES: usize = 64 << 10;
/// How long connecting, sending and a sign of life may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before another connection is tried; to listen, it doubles up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Between two signs of life: a network that swallows everything closes no connection.
const PING_PERIOD: Duration = Duration::from_secs(3);

/// A wake-up of whoever follows a customer.
#[derive(Serialize, Deserialize)]
pub struct Hint<'a> {
    /// Which process sent it: its own are no news to it.
    node: u64,
    /// External id.
    pub topic: String,
    /// The version that was committed.
    pub version: i64,
    /// What changed, as JSON.
    #[serde(borrow)]
    pub news: Option<&'a RawValue>,
}

/// Sends hints to the other nodes, and hears theirs until it is dropped.
pub struct Hints {
    node: u64,
    queue: mpsc::Sender<String>,
    /// Asks for a look at what may have been missed.
    pub resumed: Arc<Notify>,
    _stop: DropGuard,
}

impl Hints {
    /// Over the Redis at this URL, whether it is there or not. `channel`: the same for all nodes of a database, and for no
    /// other. `hear` is called for each hint of another node; it must not block.
    pub fn start(
        url: &str,
        channel: &str,
        hear: impl Fn(Hint<'_>) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let client = Client::open(url)?;
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (node, stop, resumed) = (rand::random(), CancellationToken::new(), Arc::new(Notify::new()));
        tokio::spawn(send(client.clone(), channel.to_owned(), waiting));
        let listening = listen(client, channel.to_owned(), node, Arc::clone(&resumed), hear);
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped => {}
                () = listening => {}
            }
        });
        Ok(Self { node, queue, resumed, _stop: stop.drop_guard() })
    }

    /// Tells the other nodes, some time from now.
    pub fn send(&self, topic: &str, version: i64, news: &impl Serialize) {
        let news = serde_json::value::to_raw_value(news).ok().filter(|news| news.get().len() <= MAX_HINT_BYTES);
        let hint = Hint { node: self.node, topic: topic.to_owned(), version, news: news.as_deref() };
        let sent = serde_json::to_string(&hint).is_ok_and(|hint| self.queue.try_send(hint).is_ok());
        if !sent {
            count("dropped", 1);
        }
    }
}

async fn send(client: Client, channel: String, mut waiting: mpsc::Receiver<String>) {
    let mut connection: Option<MultiplexedConnection> = None;
    let mut hints = Vec::new();
    while waiting.recv_many(&mut hints, MAX_SENT_AT_ONCE).await > 0 {
        let mut pipeline = redis::pipe();
        for hint in &hints {
            pipeline.cmd("PUBLISH").arg(&channel).arg(hint).ignore();
        }
        let sending = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => client.get_multiplexed_async_connection().await?,
            };
            pipeline.exec_async(&mut open).await?;
            Ok::<_, RedisError>(open)
        };
        match timeout(TIMEOUT, sending).await {
            Ok(Ok(open)) => {
                connection = Some(open);
                count("sent", hints.len());
            }
            _ => {
                count("dropped", hints.len());
                tokio::time::sleep(PAUSE).await;
            }
        }
        hints.clear();
    }
}

async fn listen(client: Client, channel: String, node: u64, resumed: Arc<Notify>, hear: impl Fn(Hint<'_>)) {
    gauge!(metrics::LIVE_LISTENING).set(0.0);
    let (mut complained, mut pause) = (false, PAUSE);
    loop {
        let began = Instant::now();
        let failure = match timeout(TIMEOUT, subscribe(&client, &channel)).await {
            Ok(Ok(connection)) => {
                gauge!(metrics::LIVE_LISTENING).set(1.0);
                resumed.notify_one();
                let failure = hear_all(connection, node, &hear).await;
                gauge!(metrics::LIVE_LISTENING).set(0.0);
                failure
            }
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        // One that lasts as long as this was well for a while.
        if began.elapsed() > PING_PERIOD {
            (complained, pause) = (false, PAUSE);
        }
        if !complained {
            tracing::warn!(error = failure, "hints of other nodes are not heard: what they commit is found by sweeps");
            complained = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

async fn subscribe(client: &Client, channel: &str) -> Result<PubSub, RedisError> {
    let mut connection = client.get_async_pubsub().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

/// Until the connection ends or gives no sign of life; why.
async fn hear_all(connection: PubSub, node: u64, hear: &impl Fn(Hint<'_>)) -> String {
    let (mut sink, mut messages) = connection.split();
    let hearing = async {
        while let Some(message) = messages.next().await {
            match serde_json::from_slice::<Hint<'_>>(message.get_payload_bytes()) {
                Ok(hint) if hint.node == node => {}
                Ok(hint) => {
                    count("received", 1);
                    hear(hint);
                }
                Err(_) => count("dropped", 1),
            }
        }
        "the connection has ended".to_owned()
    };
    let pinging = async {
        loop {
            tokio::time::sleep(PING_PERIOD).await;
            match timeout(TIMEOUT, sink.ping::<redis::Value>()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(late) => return late.to_string(),
            }
        }
    };
    tokio::select! {
        failure = hearing => failure,
        failure = pinging => failure,
    }
}

fn count(direction: &'static str, hints: usize) {
    ::metrics::counter!(metrics::LIVE_HINTS, "direction" => direction).increment(hints as u64);
}
