//! Windfall: purchases in, points out. A tour in reading order.
//!
//! 1. [`engine`]: the pure core. Purchases and a campaign's rule in, awards out.
//! 2. [`app`]: use cases over the database. Everything that changes points goes through its one write path.
//! 3. [`cache`], [`live`]: what reads are answered from; who follows whom.
//! 4. [`gate`]: every GraphQL request passes here first.
//! 5. [`graphql`]: what clients see, one noun a file.
//! 6. [`http`]: router, authentication, the GraphQL endpoint.
//! 7. [`config`], [`cli`] and [`metrics`]: how it is started, and what it tells its operators.

pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod engine;
pub mod gate;
pub mod graphql;
pub mod http;
pub mod live;
pub mod metrics;
