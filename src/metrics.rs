//! The names of the metrics at `/metrics`. `docs/operations` explains each metric to operators.
//!
//! Each module records its figures where they arise, and `http` serves them all. Only `windfall serve` and `windfall demo`
//! install a recorder. In other subcommands, recording does nothing.

/// Root fields that were answered, by `operation`, `field` and `outcome`: `ok`, `error` (the fault of the server) or `refused`
/// (the fault of the caller, or too much load). A subscription counts when it begins, and again as `error` if it ends with one.
pub const REQUESTS: &str = "windfall_requests_total";
/// Time to run the query or mutation of a root field, by `operation` and `field`.
pub const REQUEST_SECONDS: &str = "windfall_request_seconds";

/// Facts in a committed batch.
pub const WRITE_BATCH_ITEMS: &str = "windfall_write_batch_items";
/// Time that a committed batch took.
pub const WRITE_BATCH_SECONDS: &str = "windfall_write_batch_seconds";
/// The sum of the squares of the facts in each committed batch. With the next two, the time of a batch follows from its size.
pub const WRITE_BATCH_ITEMS_SQUARED: &str = "windfall_write_batch_items_squared_total";
/// The time in which at least one batch was being written that was committed, in microseconds.
pub const WRITE_BUSY_MICROSECONDS: &str = "windfall_write_busy_microseconds_total";
/// The part of each committed batch in [`WRITE_BUSY_MICROSECONDS`], times its facts.
pub const WRITE_BUSY_ITEM_MICROSECONDS: &str = "windfall_write_busy_item_microseconds_total";
/// Batches by `outcome`: `committed`, `repeated`, `split`, `prepared` (a long change is folded first, nothing was written) or
/// `failed`.
pub const WRITE_BATCHES: &str = "windfall_write_batches_total";
/// Facts that wait to be written or are being written.
pub const WRITE_QUEUE_ITEMS: &str = "windfall_write_queue_items";
/// Memory in bytes of the facts that [`WRITE_QUEUE_ITEMS`] counts.
pub const WRITE_QUEUE_BYTES: &str = "windfall_write_queue_bytes";
/// Facts that were refused because the queue was full.
pub const WRITE_REFUSED: &str = "windfall_write_refused_total";

/// Unfinished jobs in the whole database, by `kind` (`evaluation`, `settlement`, `outbox`, `retention`, `audit`, `export`) and `state` (`waiting`,
/// `running`, `dead`).
pub const JOBS: &str = "windfall_jobs";
/// Time since the oldest due job became due.
pub const JOB_WAIT_SECONDS: &str = "windfall_job_wait_seconds";
/// Attempts of this node to run a job, by `kind`.
pub const JOB_ATTEMPTS: &str = "windfall_job_attempts_total";
/// Failed attempts of this node to run a job, by `kind`.
pub const JOB_FAILURES: &str = "windfall_job_failures_total";

/// Messages of topics that this node has processed, by `topic` and `outcome`: `recorded`, `replayed`, `left_out`, `waiting` or `dead`.
pub const INGEST_MESSAGES: &str = "windfall_ingest_messages_total";
/// Messages that were recorded together.
pub const INGEST_BATCH_MESSAGES: &str = "windfall_ingest_batch_messages";
/// Fields of messages without a meaning, by `topic`. They are ignored.
pub const INGEST_UNKNOWN_FIELDS: &str = "windfall_ingest_unknown_fields_total";
/// Attempts to record messages that failed because of the database. They are tried again.
pub const INGEST_RETRIES: &str = "windfall_ingest_retries_total";
/// Number of times that a partition was paused because its messages took too much memory.
pub const INGEST_PAUSES: &str = "windfall_ingest_pauses_total";
/// Number of times that the consumer group assigned partitions to this node, or took some away.
pub const INGEST_REBALANCES: &str = "windfall_ingest_rebalances_total";
/// Messages of a partition that are not done yet, by `topic` and `partition`, on the node that reads it.
pub const INGEST_LAG_MESSAGES: &str = "windfall_ingest_lag_messages";
/// Time since the message was sent that was taken last, by `topic` and `partition`. 0 if no message is behind it.
pub const INGEST_LAG_SECONDS: &str = "windfall_ingest_lag_seconds";
/// 1 if the partition is not read until `windfall ingest resume`, by `topic` and `partition`. The value must stay 0.
pub const INGEST_STOPPED: &str = "windfall_ingest_stopped";
/// Dead letters of all nodes, by `topic`.
pub const DEAD_LETTERS: &str = "windfall_dead_letters";
/// Refunds from topics that wait for their purchase.
pub const WAITING_FACTS: &str = "windfall_waiting_facts";

/// Events that this node has published.
pub const EVENTS_PUBLISHED: &str = "windfall_events_published_total";
/// Number of times that this node could not read, publish or mark events. They are tried again.
pub const EVENT_FAILURES: &str = "windfall_event_failures_total";
/// Time since the commit of the oldest event of the buckets of this node that is not published.
pub const EVENT_WAIT_SECONDS: &str = "windfall_event_wait_seconds";

/// Customers that jobs of this node have audited.
pub const AUDIT_CUSTOMERS: &str = "windfall_audit_customers_total";
/// Differences that these audits have found. The value must stay 0.
pub const AUDIT_DIFFERENCES: &str = "windfall_audit_differences_total";

/// Snapshots that were read, by `tier`: `l1` (memory), `l2` (Redis) or `sql` (the database).
pub const CACHE_READS: &str = "windfall_cache_reads_total";
/// Size in bytes of the cache entries in this process.
pub const CACHE_BYTES: &str = "windfall_cache_bytes";
/// Number of cache entries in this process.
pub const CACHE_ENTRIES: &str = "windfall_cache_entries";
/// Cache entries in this process that were evicted to make room.
pub const CACHE_EVICTIONS: &str = "windfall_cache_evictions_total";
/// Time of a load from the database.
pub const CACHE_LOAD_SECONDS: &str = "windfall_cache_load_seconds";
/// Customers in one merged look-up of versions.
pub const CACHE_LOOKUP_NAMES: &str = "windfall_cache_lookup_names";
/// Cache hits that were compared with the same version in the database.
pub const CACHE_DRIFT_CHECKS: &str = "windfall_cache_drift_checks_total";
/// Compared cache hits that differed from the database. The value must stay 0.
pub const CACHE_DRIFT: &str = "windfall_cache_drift_total";

/// 1 if Redis is used, 0 if its circuit breaker is open.
pub const REDIS_UP: &str = "windfall_redis_up";
/// Failed Redis operations by `kind`: `timeout`, `connection`, `reply` or `garbage` (data that cannot be read).
pub const REDIS_FAILURES: &str = "windfall_redis_failures_total";
/// Number of times that the circuit breaker of Redis opened.
pub const REDIS_BREAKER_OPENED: &str = "windfall_redis_breaker_opened_total";

/// Running subscriptions to customers' points.
pub const LIVE_SUBSCRIBERS: &str = "windfall_live_subscribers";
/// Updates for subscribers by `source`: `hub` (directly from the commit) or `sql` (read from the ledger).
pub const LIVE_UPDATES: &str = "windfall_live_updates_total";
/// Hints between nodes, by `direction`: `sent`, `received` or `dropped`.
pub const LIVE_HINTS: &str = "windfall_live_hints_total";
/// 1 if the node receives hints of other nodes, 0 if only sweeps find the commits of other nodes.
pub const LIVE_LISTENING: &str = "windfall_live_listening";
/// Time from the wake-up of a subscriber to the hand-over of an update. A commit on this node, another node's hint or a sweep
/// wakes subscribers.
pub const LIVE_LAG_SECONDS: &str = "windfall_live_lag_seconds";
/// Sweeps for changes that no hint announced.
pub const LIVE_SWEEPS: &str = "windfall_live_sweeps_total";

/// Open connections of the pools, by `state`: `idle` or `used`.
pub const DATABASE_CONNECTIONS: &str = "windfall_database_connections";
/// The maximum number of open connections.
pub const DATABASE_MAX_CONNECTIONS: &str = "windfall_database_max_connections";
/// 1 if the database accepts writes, 0 if it refused the last write, for example because it is read-only or its disk is full.
pub const DATABASE_WRITABLE: &str = "windfall_database_writable";
/// Statements sent to the database.
pub const DATABASE_STATEMENTS: &str = "windfall_database_statements_total";

/// Lead of the node's clock over the database's clock. PostgreSQL only.
pub const CLOCK_SKEW_SECONDS: &str = "windfall_clock_skew_seconds";
/// Number of versions of the time zone database among the programs that use this database.
pub const ZONE_DATA_VERSIONS: &str = "windfall_zone_data_versions";
