//! The names of what `/metrics` tells; `docs/operations` explains each to operators.
//!
//! Whoever knows a figure records it where it arises; `http` hands all of them out. Without a `serve` nothing listens, and
//! recording does nothing.

/// Root fields that were answered. By `operation`, `field`, `outcome` (`ok`, `error`: the server's fault, `refused`: the
/// caller's, or too much load). Subscriptions count when they begin, and again as `error` if they end with one.
pub const REQUESTS: &str = "windfall_requests_total";
/// How long it took to run them, by `operation` and `field`.
pub const REQUEST_SECONDS: &str = "windfall_request_seconds";

/// Facts of a batch.
pub const WRITE_BATCH_ITEMS: &str = "windfall_write_batch_items";
/// How long a batch took.
pub const WRITE_BATCH_SECONDS: &str = "windfall_write_batch_seconds";
/// Batches by `outcome`: `committed`, `repeated`, `split`, `prepared` (nothing was written: a long change is folded first), `failed`.
pub const WRITE_BATCHES: &str = "windfall_write_batches_total";
/// Facts that wait.
pub const WRITE_QUEUE_ITEMS: &str = "windfall_write_queue_items";
/// And their bytes.
pub const WRITE_QUEUE_BYTES: &str = "windfall_write_queue_bytes";
/// Facts that found no room in the queue.
pub const WRITE_REFUSED: &str = "windfall_write_refused_total";

/// Jobs of the whole database that are not done, by `kind` (`evaluation`, `settlement`) and `state` (`waiting`, `running`, `dead`).
pub const JOBS: &str = "windfall_jobs";
/// How long the oldest job that is due has been waiting.
pub const JOB_WAIT_SECONDS: &str = "windfall_job_wait_seconds";
/// Attempts that failed on this node.
pub const JOB_FAILURES: &str = "windfall_job_failures_total";

/// Snapshots that were read, by `tier`: `l1`, `l2`, `sql`.
pub const CACHE_READS: &str = "windfall_cache_reads_total";
/// What the entries of this process weigh.
pub const CACHE_BYTES: &str = "windfall_cache_bytes";
/// How many there are.
pub const CACHE_ENTRIES: &str = "windfall_cache_entries";
/// Entries that had to go.
pub const CACHE_EVICTIONS: &str = "windfall_cache_evictions_total";
/// How long loads from SQL took.
pub const CACHE_LOAD_SECONDS: &str = "windfall_cache_load_seconds";
/// Customers of one merged look-up.
pub const CACHE_LOOKUP_NAMES: &str = "windfall_cache_lookup_names";
/// Hits that were loaded again and compared.
pub const CACHE_DRIFT_CHECKS: &str = "windfall_cache_drift_checks_total";
/// Those that were not what the database has: must stay 0.
pub const CACHE_DRIFT: &str = "windfall_cache_drift_total";

/// 1: Redis is used; 0: its breaker is open.
pub const REDIS_UP: &str = "windfall_redis_up";
/// What Redis did wrong, by `kind`: `timeout`, `connection`, `reply`, `garbage`.
pub const REDIS_FAILURES: &str = "windfall_redis_failures_total";
/// How often the breaker opened.
pub const REDIS_BREAKER_OPENED: &str = "windfall_redis_breaker_opened_total";

/// Subscriptions to customers' points.
pub const LIVE_SUBSCRIBERS: &str = "windfall_live_subscribers";
/// What they were told, by `source`: `hub`, `sql`.
pub const LIVE_UPDATES: &str = "windfall_live_updates_total";
/// Hints between nodes, by `direction`: `sent`, `received`, `dropped`.
pub const LIVE_HINTS: &str = "windfall_live_hints_total";
/// 1: hints of other nodes are heard; 0: what they commit is found by sweeps.
pub const LIVE_LISTENING: &str = "windfall_live_listening";
/// From a commit on this node, another node's hint or the sweep that found it, to the hand-over to a subscriber.
pub const LIVE_LAG_SECONDS: &str = "windfall_live_lag_seconds";
/// Looks for what no hint told.
pub const LIVE_SWEEPS: &str = "windfall_live_sweeps_total";

/// Connections of the pools, by `state`: `idle`, `used`.
pub const DATABASE_CONNECTIONS: &str = "windfall_database_connections";
/// As many as may be open.
pub const DATABASE_MAX_CONNECTIONS: &str = "windfall_database_max_connections";
/// 1: the database takes writes; 0: the last one met that it takes none.
pub const DATABASE_WRITABLE: &str = "windfall_database_writable";
/// Statements that were sent.
pub const DATABASE_STATEMENTS: &str = "windfall_database_statements_total";

/// By how much the node's own clock is ahead of the database's (PostgreSQL).
pub const CLOCK_SKEW_SECONDS: &str = "windfall_clock_skew_seconds";
/// Versions of the time zone database among the programs on this database.
pub const ZONE_DATA_VERSIONS: &str = "windfall_zone_data_versions";
