//! Windfall: purchases in, points out. A tour in reading order.
//!
//! 1. [`engine`]: the pure core. Purchases and a campaign's rule in, awards out.
//! 2. [`app`]: use cases over the database. Everything that changes points goes through its one write path.
//! 3. [`gate`]: every GraphQL request passes here first.
//! 4. [`graphql`]: what clients see, one noun a file.
//! 5. [`http`]: router, authentication, the GraphQL endpoint.
//! 6. [`config`] and [`cli`]: how it is started.

pub mod app;
pub mod cli;
pub mod config;
pub mod engine;
pub mod gate;
pub mod graphql;
pub mod http;
pub mod live;
