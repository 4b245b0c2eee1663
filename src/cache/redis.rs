//! Redis as the tier that nodes share. It can be absent, slow, full, empty or wrong: nobody notices but the clock.
//!
//! Every operation has a deadline. After a few failures in a row, or one that shows that the connection cannot be trusted, the
//! breaker opens: the connection is given up and nothing is asked any more, until one that answers is there again, which a
//! task of its own looks for. No operation ever waits for a connection.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, RedisError};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics;

/// Failures in a row after which the breaker opens.
const MAX_FAILURES: u32 = 3;
/// How long a connection may take, its first answer included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before another connection is tried; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long Redis keeps an entry. A customer that nobody asks for takes no memory for longer.
const TIME_TO_LIVE: Duration = Duration::from_hours(1);
/// Bytes on their way into Redis. What does not fit is not sent.
const MAX_SENDING_BYTES: usize = 4 << 20;

/// A handle on one Redis; clones share it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    client: Client,
    deadline: Duration,
    /// None: the breaker is open.
    link: Mutex<Option<Arc<Link>>>,
    connecting: AtomicBool,
    /// Its limits were looked at.
    inspected: AtomicBool,
    sending: Arc<Semaphore>,
}

/// A connection, and how it does.
struct Link {
    connection: MultiplexedConnection,
    /// In a row.
    failures: AtomicU32,
    /// That it refuses something was said.
    complained: AtomicBool,
}

impl Redis {
    /// The Redis at this URL, whether it is there or not. `deadline`: of one operation.
    pub fn open(url: &str, deadline: Duration) -> Result<Self, RedisError> {
        let redis = Self(Arc::new(Inner {
            client: Client::open(url)?,
            deadline,
            link: Mutex::default(),
            connecting: AtomicBool::new(false),
            inspected: AtomicBool::new(false),
            sending: Arc::new(Semaphore::new(MAX_SENDING_BYTES)),
        }));
        redis.connect(Duration::ZERO);
        Ok(redis)
    }

    /// Whether it is used.
    pub fn is_up(&self) -> bool {
        self.0.lock().is_some()
    }

    /// The values of these keys, in order; none: it cannot be asked now.
    pub(super) async fn get(&self, keys: &[&str]) -> Option<Vec<Option<Vec<u8>>>> {
        let link = self.0.link()?;
        let values: Vec<Option<Vec<u8>>> = self.ask(&link, redis::cmd("MGET").arg(keys)).await?;
        if values.len() == keys.len() {
            return Some(values);
        }
        self.failed(&link, "garbage", true);
        None
    }

    /// Sets a key, some time from now, if there is room for it on the way.
    pub(super) fn set_later(&self, key: String, value: Vec<u8>) {
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.0.sending).try_acquire_many_owned(bytes) else { return };
        let redis = self.clone();
        tokio::spawn(async move {
            let mut set = redis::cmd("SET");
            set.arg(key).arg(value).arg("EX").arg(TIME_TO_LIVE.as_secs());
            if let Some(link) = redis.0.link() {
                redis.ask::<redis::Value>(&link, &set).await;
            }
            drop(room);
        });
    }

    async fn ask<T: FromRedisValue>(&self, link: &Arc<Link>, command: &redis::Cmd) -> Option<T> {
        let mut connection = link.connection.clone();
        match timeout(self.0.deadline, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => {
                link.failures.store(0, Ordering::Relaxed);
                return Some(answer);
            }
            Ok(Err(error)) => match error.kind() {
                // It answers, if only that it cannot: that it is full, that it is loading, that we may not.
                ErrorKind::Server(_) | ErrorKind::Extension => {
                    ::metrics::counter!(metrics::REDIS_FAILURES, "kind" => "reply").increment(1);
                    if !link.complained.swap(true, Ordering::Relaxed) {
                        tracing::warn!(error = %error, "Redis refuses what it is asked");
                    }
                }
                ErrorKind::Io if error.is_timeout() => self.failed(link, "timeout", false),
                ErrorKind::Io => self.failed(link, "connection", true),
                _ => self.failed(link, "garbage", true),
            },
            Err(_) => self.failed(link, "timeout", false),
        }
        None
    }

    /// `for_good`: nothing that follows on this connection can be trusted.
    fn failed(&self, link: &Arc<Link>, kind: &'static str, for_good: bool) {
        ::metrics::counter!(metrics::REDIS_FAILURES, "kind" => kind).increment(1);
        let failures = link.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if !for_good && failures < MAX_FAILURES {
            return;
        }
        // Not if another connection has taken its place.
        if self.0.lock().take_if(|current| Arc::ptr_eq(current, link)).is_some() {
            ::metrics::counter!(metrics::REDIS_BREAKER_OPENED).increment(1);
            tracing::warn!(failure = kind, "Redis is not used until it answers as it should: reads go to the database");
            self.connect(FIRST_PAUSE);
        }
    }

    /// Looks for a connection, in a task that ends with the last handle.
    fn connect(&self, pause: Duration) {
        if self.0.connecting.swap(true, Ordering::SeqCst) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            connect(&inner, pause).await;
            if let Some(inner) = inner.upgrade() {
                inner.connecting.store(false, Ordering::SeqCst);
                let redis = Self(inner);
                // It may have failed again while this task still counted as looking.
                if !redis.is_up() {
                    redis.connect(FIRST_PAUSE);
                }
            }
        });
    }
}

async fn connect(inner: &Weak<Inner>, mut pause: Duration) {
    let mut complained = false;
    loop {
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        let failure = match timeout(CONNECT_TIMEOUT, inner.dial()).await {
            Ok(Ok(connection)) => {
                let (failures, complained) = (AtomicU32::new(0), AtomicBool::new(false));
                *inner.lock() = Some(Arc::new(Link { connection, failures, complained }));
                tracing::info!("Redis is used");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        if !complained {
            tracing::warn!(error = failure, "Redis is not there: reads go to the database");
            complained = true;
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock()
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.lock().clone()
    }

    /// A connection on which an answer has come.
    async fn dial(&self) -> Result<MultiplexedConnection, RedisError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
        if pong != "PONG" {
            return Err((ErrorKind::UnexpectedReturnType, "the answer to PING is not PONG").into());
        }
        if !self.inspected.load(Ordering::Relaxed) {
            self.inspected.store(inspect(&mut connection).await, Ordering::Relaxed);
        }
        Ok(connection)
    }
}

/// Warns of a Redis that would grow without end, or refuse entries once it is full. Whether it could be asked.
async fn inspect(connection: &mut MultiplexedConnection) -> bool {
    let memory: Result<String, _> = redis::cmd("INFO").arg("memory").query_async(connection).await;
    let Ok(memory) = memory else { return false };
    let field = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    if field("maxmemory") == Some("0") {
        tracing::warn!("Redis has no memory limit: set `maxmemory`, or it grows until the machine has none left");
    }
    if field("maxmemory_policy") == Some("noeviction") {
        tracing::warn!(
            "Redis evicts nothing: set `maxmemory-policy` to allkeys-lru, or it takes no entries once it is full"
        );
    }
    true
}
