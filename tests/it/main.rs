//! Integration tests. They are one binary because each binary links the whole server.
//!
//! # What each module proves, in reading order
//!
//! - [`support`]: the throwaway servers, clients and faults of all tests below work as described.
//!
//! The rules:
//! - [`oracle`]: a second implementation of `docs/semantics.md`, with examples worked out by hand.
//! - [`engine`]: the engine agrees with the oracle on random cases, and reads no more than a change can affect.
//!
//! The write path:
//! - [`recorder`]: duplicates, budgets, late facts and overload are handled as promised, at a bounded cost.
//! - [`convergence`]: any order of arrival leads to the awards of the oracle, on real databases.
//! - [`transitions`]: activations, pauses and ends that race writers leave every award as it must be.
//! - [`life`]: campaigns over time: backfill, settlement, budgets that change, several servers.
//! - [`jobs`]: background jobs evaluate long histories in bounded commits, survive dead workers, run each tick once, and let
//!   purchases pass.
//! - [`audit`]: the audit finds each kind of tampering, and `--repair` fixes what can be recomputed.
//! - [`ingest`]: messages of topics are recorded once, wait or become dead letters, on real databases and without a broker.
//! - [`outbox`]: commits write events, and relays publish each of them, whatever dies or freezes, without a broker.
//! - [`kafka`]: the same with real brokers, and everything that can happen to brokers, topics and consumers.
//! - [`simulation`]: `windfall simulate ingest` predicts what a real run did, and refuses what it cannot predict.
//!
//! Reads:
//! - [`cache`]: no read is stale, and each costs what was promised.
//! - [`live`]: a subscriber receives each ledger entry once and in order, whatever is interrupted.
//!
//! The API:
//! - [`graphql`]: behaviour, rights, pages and errors of every operation.
//! - [`schema`]: `schema.graphql` equals the schema of the code and keeps the public contract.
//! - [`websocket`]: the protocol graphql-transport-ws, message by message.
//! - [`abuse`]: hostile requests are refused at a price that the server can afford.
//! - [`clients`]: third-party clients and tools work with a running server.
//!
//! Faults:
//! - [`crash`]: killed processes and restarted databases lose nothing that was acknowledged.
//! - [`frozen`]: a frozen node or database delays others only briefly.
//! - [`failover`]: a PostgreSQL standby takes over under load.
//! - [`disk`]: full and failing disks, and databases that are read-only.
//! - [`clocks`]: clocks that are wrong.
//! - [`parts`]: the parts around a server as production has them: TLS, poolers, clusters, fail-over, and secrets that change.
//!
//! Upgrades:
//! - [`migration`]: the schema migrates up and down, while others read and write.
//! - [`upgrade`]: programs of different versions share one database.
//!
//! Operation:
//! - [`cli`], [`import`], [`demo`]: the subcommands, run as users run them.
//! - [`doctor`]: each finding on a bad configuration, and none on the configurations of the demo and of compose.yaml.
//! - [`readme`]: the commands of the README print what it shows, and paths in the documents exist.
//! - [`operations`]: the files for operators work and match the server.
//! - [`metrics`], [`telemetry`]: each request is counted once; traces reach a collector.
//! - [`source`]: rules of the source that no lint can check, such as which layer may use which.
//!
//! # What tests run on
//!
//! - Engines: [`support::sqlite`] makes a database file in a temporary directory. [`support::postgres`] starts a throwaway
//!   PostgreSQL cluster. Most tests share one cluster per test process and create an empty database in it. Tests that
//!   kill, freeze or replicate a server start their own. Tests for both engines loop over [`support::app::ENGINES`] or
//!   use the macro `on_both`.
//! - Applications: [`support::app`] runs use cases in the test process, [`support::graphql`] runs GraphQL requests there.
//!   [`support::server`] starts a real `windfall serve` process on a free port. [`support::shop`] is a client of such a
//!   server. The environment variable `WINDFALL_BINARY` names another build of the program to start.
//! - Brokers: [`support::redis`] starts a throwaway Redis, cluster or Sentinel, [`support::pgbouncer`] a PgBouncer. The
//!   environment variable `WINDFALL_REDIS_SERVER` names a program to start in place of `redis-server`. [`support::kafka`] starts real
//!   brokers of Kafka. [`support::proxy`] stands
//!   in front of Redis or PostgreSQL and breaks connections on demand.
//! - Clocks: the clock of an application in the test process stands still until the test moves it. [`support::faketime`]
//!   shifts the clock of a server process.
//!
//! No server outlives the test process, even if that is killed. A test fails if a program that it needs is missing;
//! `scripts/test` installs all of them.
//!
//! # How to run them
//!
//! ```sh
//! cargo test --test it                  # all
//! cargo test --test it cache::          # one module
//! cargo test --test it frozen::sessions_of_nodes_that_are_gone_are_ended -- --exact --nocapture   # one test
//! cargo test --features otel --test it telemetry                                                  # traces
//! cargo test --features kafka --test it kafka::                                                   # topics
//! ```
//!
//! `WINDFALL_TEST_SIZE=full` raises the number of cases, rounds or rows. [`engine`] runs fifty times as many random cases;
//! elsewhere, the second argument of [`support::app::cases`] is the number. With this variable, `scripts/test` also runs
//! the tests that are marked `#[ignore]` because they take minutes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
mod audit;
mod cache;
mod cli;
mod clients;
mod clocks;
mod convergence;
mod crash;
mod demo;
mod disk;
mod doctor;
mod engine;
mod failover;
mod frozen;
mod graphql;
mod import;
mod ingest;
mod jobs;
#[cfg(feature = "kafka")]
mod kafka;
mod life;
mod live;
mod metrics;
mod migration;
mod operations;
mod oracle;
mod outbox;
mod parts;
mod readme;
mod recorder;
mod rows;
mod schema;
mod simulation;
mod source;
mod support;
#[cfg(feature = "otel")]
mod telemetry;
mod transitions;
mod upgrade;
mod websocket;
