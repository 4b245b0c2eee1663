//! Windfall awards points for purchases. The modules in reading order:
//!
//! 1. [`engine`] is the pure core. It computes awards from purchases and a campaign's rule.
//! 2. [`app`] holds the use cases and the database. Everything that changes points goes through its single write path.
//! 3. [`cache`] holds the entries that reads are served from, and [`live`] knows which subscriber follows which customer.
//! 4. [`gate`] checks every GraphQL request before it runs.
//! 5. [`graphql`] defines the API that clients see, with one file per noun.
//! 6. [`http`] contains the router, the authentication and the GraphQL endpoint.
//! 7. [`ingest`] records facts that come in files.
//! 8. [`redis_servers`] finds Redis for [`cache`] and [`live`].
//! 9. [`config`], [`cli`] and [`metrics`] contain the configuration, the subcommands and the names of the metrics.

pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod engine;
pub mod gate;
pub mod graphql;
pub mod http;
pub mod ingest;
pub mod live;
pub mod metrics;
pub mod redis_servers;
