//! Redis as the cache tier that nodes share. If Redis is absent, slow, full, empty or wrong, reads take longer but return
//! the same results.
//!
//! Every operation has a deadline. The circuit breaker opens after several failures in a row, or after one failure that
//! shows that the connection cannot be trusted. While the breaker is open, no command is sent, and a separate task tries
//! to connect again. The breaker closes when a new connection responds. No operation waits for a connection.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use redis::{ErrorKind, FromRedisValue, RedisError, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics;
use crate::redis_servers::{CONNECT_TIMEOUT, Connection, RedisServers};

/// Failures in a row after which the breaker opens.
const MAX_FAILURES: u32 = 3;
/// How long a new connection may take to respond to its first commands.
const FIRST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before the first attempt to reconnect. It doubles with each attempt, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How long Redis keeps an entry. After this time, a customer that nobody reads takes no memory.
const TIME_TO_LIVE: Duration = Duration::from_hours(1);
/// The largest number of bytes that are being sent to Redis at a time. An entry that exceeds this bound is not sent.
pub const MAX_SENDING_BYTES: usize = 4 << 20;

/// A handle on one Redis; clones share it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    servers: RedisServers,
    deadline: Duration,
    /// The current connection, or `None` while the breaker is open.
    link: Mutex<Option<Arc<Link>>>,
    connecting: AtomicBool,
    /// Whether the memory settings of Redis have been checked.
    inspected: AtomicBool,
    sending: Arc<Semaphore>,
}

/// A connection and the state of its failures.
struct Link {
    connection: Connection,
    /// The number of failures since the last success.
    failures: AtomicU32,
    /// Whether an error reply of Redis has been logged.
    complained: AtomicBool,
}

impl Redis {
    /// Opens Redis, which need not be reachable: a task connects in the background. `deadline` bounds each operation.
    pub fn open(servers: RedisServers, deadline: Duration) -> Self {
        let redis = Self(Arc::new(Inner {
            servers,
            deadline,
            link: Mutex::default(),
            connecting: AtomicBool::new(false),
            inspected: AtomicBool::new(false),
            sending: Arc::new(Semaphore::new(MAX_SENDING_BYTES)),
        }));
        redis.connect(Duration::ZERO);
        redis
    }

    /// Whether Redis is in use. If not, the breaker is open or no connection has been made yet.
    pub fn is_up(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Returns the values of these keys, in order. Returns `None` if Redis is not in use or the operation fails.
    pub(super) async fn get(&self, keys: &[&str]) -> Option<Vec<Option<Vec<u8>>>> {
        let link = self.0.link()?;
        let values: Vec<Option<Vec<u8>>> = self.ask(&link, redis::cmd("MGET").arg(keys)).await?;
        if values.len() == keys.len() {
            return Some(values);
        }
        self.failed(&link, "garbage", true);
        None
    }

    /// Sets a key in the background. Does nothing if too many bytes are being sent already.
    pub(super) fn set_later(&self, key: String, value: Arc<[u8]>) {
        let bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.0.sending).try_acquire_many_owned(bytes) else { return };
        let redis = self.clone();
        tokio::spawn(async move {
            let mut set = redis::cmd("SET");
            set.arg(key).arg(&*value).arg("EX").arg(TIME_TO_LIVE.as_secs());
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
                // Redis responds, but with an error: it is full or still loading, or the user lacks a permission.
                ErrorKind::Server(_) | ErrorKind::Extension => {
                    ::metrics::counter!(metrics::REDIS_FAILURES, "kind" => "reply").increment(1);
                    if !link.complained.swap(true, Ordering::Relaxed) {
                        tracing::warn!(error = %error, "Redis responds with errors");
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

    /// Counts a failure and opens the breaker if necessary. `for_good` means that nothing later on this connection can be
    /// trusted.
    fn failed(&self, link: &Arc<Link>, kind: &'static str, for_good: bool) {
        ::metrics::counter!(metrics::REDIS_FAILURES, "kind" => kind).increment(1);
        let failures = link.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if !for_good && failures < MAX_FAILURES {
            return;
        }
        // A late failure of an old connection does not affect the connection that replaced it.
        if self.0.lock().take_if(|current| Arc::ptr_eq(current, link)).is_some() {
            ::metrics::counter!(metrics::REDIS_BREAKER_OPENED).increment(1);
            tracing::warn!(failure = kind, "Redis is not used until it responds correctly: reads go to the database");
            self.connect(FIRST_PAUSE);
        }
    }

    /// Starts a task that tries to connect, unless one is running. The task ends when the last handle is dropped.
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
                // The new connection may have failed while this task still counted as connecting.
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
        let failure = match timeout(CONNECT_TIMEOUT + FIRST_RESPONSE_TIMEOUT, inner.dial()).await {
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
            tracing::warn!(error = failure, "Redis cannot be reached: reads go to the database");
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

    /// Connects, and checks the memory settings once.
    async fn dial(&self) -> Result<Connection, RedisError> {
        let mut connection = dial(&self.servers, self.deadline).await?;
        if !self.inspected.load(Ordering::Relaxed) {
            self.inspected.store(inspect(&mut connection).await, Ordering::Relaxed);
        }
        Ok(connection)
    }
}

/// Connects, and checks that Redis responds to a PING. Of a cluster, all masters must respond.
async fn dial(servers: &RedisServers, deadline: Duration) -> Result<Connection, RedisError> {
    let mut connection = servers.connect(deadline).await?;
    let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
    if pong != "PONG" {
        return Err((ErrorKind::UnexpectedReturnType, "the response to PING is not PONG").into());
    }
    Ok(connection)
}

/// How a server limits its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemorySettings {
    /// The setting `maxmemory`. 0: there is no limit.
    pub max_bytes: u64,
    /// The setting `maxmemory-policy`: what is evicted when the limit is reached.
    pub policy: String,
}

impl MemorySettings {
    /// Reads the settings from the response to `INFO memory`.
    fn parse(text: &str) -> Option<Self> {
        let of = |name: &str| {
            let value = |line: &'_ str| line.trim_end().strip_prefix(name)?.strip_prefix(':').map(str::to_owned);
            text.lines().find_map(value)
        };
        Some(Self { max_bytes: of("maxmemory")?.parse().ok()?, policy: of("maxmemory_policy")? })
    }

    /// Whether the server grows until the machine runs out of memory.
    pub fn is_unlimited(&self) -> bool {
        self.max_bytes == 0
    }

    /// Whether the server rejects entries once it is full.
    pub fn evicts_nothing(&self) -> bool {
        self.policy == "noeviction"
    }

    /// Whether the server keeps the entries that are used most.
    pub fn keeps_what_is_used(&self) -> bool {
        ["allkeys-lru", "allkeys-lfu"].contains(&self.policy.as_str())
    }
}

/// Connects, and reads the memory settings of the servers. They are `None` if the user may not read them.
pub async fn memory_settings(
    servers: &RedisServers,
    deadline: Duration,
) -> Result<Option<Vec<MemorySettings>>, String> {
    let read = async {
        let mut connection = dial(servers, deadline).await?;
        Ok::<_, RedisError>(settings(&mut connection).await)
    };
    match timeout(CONNECT_TIMEOUT + FIRST_RESPONSE_TIMEOUT, read).await {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(late) => Err(late.to_string()),
    }
}

async fn settings(connection: &mut Connection) -> Option<Vec<MemorySettings>> {
    let memory: Result<Value, _> = redis::cmd("INFO").arg("memory").query_async(connection).await;
    // A cluster responds with a text for each node.
    let texts: Result<Vec<String>, _> = match memory {
        Ok(Value::Map(nodes)) => nodes.into_iter().map(|(_, text)| redis::from_redis_value(text)).collect(),
        Ok(text) => redis::from_redis_value(text).map(|text| vec![text]),
        Err(_) => return None,
    };
    texts.ok()?.iter().map(|text| MemorySettings::parse(text)).collect()
}

/// Warns if a server has no memory limit, or would reject entries once it is full. Returns whether the settings could be
/// read.
async fn inspect(connection: &mut Connection) -> bool {
    let Some(servers) = settings(connection).await else { return false };
    if servers.iter().any(MemorySettings::is_unlimited) {
        tracing::warn!("Redis has no memory limit: set `maxmemory`, or it grows until the machine runs out of memory");
    }
    if servers.iter().any(MemorySettings::evicts_nothing) {
        tracing::warn!(
            "Redis evicts nothing: set `maxmemory-policy` to allkeys-lru, or it rejects entries once it is full"
        );
    }
    true
}
