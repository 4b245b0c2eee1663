//! Wake-ups between the nodes on one database, through the pub/sub of Redis.
//!
//! Wake-ups are only hints: Redis may drop, delay or repeat them. A lost hint delays an update but loses nothing. So
//! sending never waits, and hints that do not fit into the queue are dropped. After each reconnection, `resumed` asks for
//! a sweep, which finds the commits whose hints were missed. A hint contains a customer and its new version. It may also
//! contain what changed, which is parsed only if the customer has subscribers on this node.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::gauge;
use futures_util::StreamExt as _;
use redis::RedisError;
use redis::aio::{MultiplexedConnection, PubSub};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant as Monotonic, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::metrics;
use crate::redis_servers::{CONNECT_TIMEOUT, RedisServers};

/// The largest number of hints that wait to be sent.
const MAX_WAITING: usize = 4_096;
/// The largest number of hints that are sent in one pipeline.
const MAX_SENT_AT_ONCE: usize = 256;
/// The largest description of what changed in a hint, in bytes. A larger one is left out of the hint.
const MAX_HINT_BYTES: usize = 64 << 10;
/// How long sending a pipeline, a subscription and the response to a ping may take. Connecting may take [`CONNECT_TIMEOUT`] more.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a connection failed. The pauses of the listener double, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How often the listener sends a ping. Without pings, it would not notice a network that silently drops all packets.
const PING_PERIOD: Duration = Duration::from_secs(3);

/// A wake-up for the subscribers of a topic.
#[derive(Serialize, Deserialize)]
pub struct Hint<'a> {
    /// The random number of the sending process, which ignores its own hints.
    node: u64,
    /// The external id of the customer.
    pub topic: String,
    /// The version that was committed.
    pub version: i64,
    /// Describes what changed, as MessagePack.
    #[serde(borrow, with = "serde_bytes")]
    pub news: Option<&'a [u8]>,
}

/// Sends hints to the other nodes, and receives their hints until it is dropped.
pub struct Hints {
    node: u64,
    queue: mpsc::Sender<Vec<u8>>,
    /// Notified after each connection of the listener, because earlier hints may have been missed.
    pub resumed: Arc<Notify>,
    _stop: DropGuard,
}

impl Hints {
    /// Starts sending and receiving through Redis, which need not be reachable. All nodes on one database use the same
    /// `channel`, and no other nodes use it. `hear` is called for each hint of another node and must not block.
    pub fn start(servers: RedisServers, channel: &str, hear: impl Fn(Hint<'_>) + Send + Sync + 'static) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let (node, stop, resumed) = (rand::random(), CancellationToken::new(), Arc::new(Notify::new()));
        tokio::spawn(send(servers.clone(), channel.to_owned(), waiting));
        let listening = listen(servers, channel.to_owned(), node, Arc::clone(&resumed), hear);
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped => {}
                () = listening => {}
            }
        });
        Self { node, queue, resumed, _stop: stop.drop_guard() }
    }

    /// Queues a hint for the other nodes. Drops the hint if the queue is full.
    pub fn send(&self, topic: &str, version: i64, news: &impl Serialize) {
        let news = rmp_serde::to_vec(news).ok().filter(|news| news.len() <= MAX_HINT_BYTES);
        let hint = Hint { node: self.node, topic: topic.to_owned(), version, news: news.as_deref() };
        let sent = rmp_serde::to_vec(&hint).is_ok_and(|hint| self.queue.try_send(hint).is_ok());
        if !sent {
            count("dropped", 1);
        }
    }
}

async fn send(servers: RedisServers, channel: String, mut waiting: mpsc::Receiver<Vec<u8>>) {
    let mut connection: Option<MultiplexedConnection> = None;
    let mut hints = Vec::new();
    while waiting.recv_many(&mut hints, MAX_SENT_AT_ONCE).await > 0 {
        let mut pipeline = redis::pipe();
        for hint in &hints {
            pipeline.cmd("PUBLISH").arg(&channel).arg(hint.as_slice()).ignore();
        }
        let sending = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => servers.connect_to_one().await?,
            };
            pipeline.exec_async(&mut open).await?;
            Ok::<_, RedisError>(open)
        };
        match timeout(CONNECT_TIMEOUT + TIMEOUT, sending).await {
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

async fn listen(servers: RedisServers, channel: String, node: u64, resumed: Arc<Notify>, hear: impl Fn(Hint<'_>)) {
    gauge!(metrics::LIVE_LISTENING).set(0.0);
    let (mut complained, mut pause) = (false, PAUSE);
    loop {
        let began = Monotonic::now();
        let failure = match timeout(CONNECT_TIMEOUT + TIMEOUT, subscribe(&servers, &channel)).await {
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
        // A connection that lasted this long was healthy, so its failure is a new one.
        if began.elapsed() > PING_PERIOD {
            (complained, pause) = (false, PAUSE);
        }
        if !complained {
            tracing::warn!(error = failure, "hints of other nodes are not received: sweeps find their commits");
            complained = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

async fn subscribe(servers: &RedisServers, channel: &str) -> Result<PubSub, RedisError> {
    let mut connection = servers.connect_for_messages().await?;
    connection.subscribe(channel).await?;
    Ok(connection)
}

/// Receives hints until the connection ends or does not respond to a ping. Returns the reason.
async fn hear_all(connection: PubSub, node: u64, hear: &impl Fn(Hint<'_>)) -> String {
    let (mut sink, mut messages) = connection.split();
    let hearing = async {
        while let Some(message) = messages.next().await {
            match rmp_serde::from_slice::<Hint<'_>>(message.get_payload_bytes()) {
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
