//! Integration tests: one binary, because each links the whole server.

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
mod engine;
mod failover;
mod frozen;
mod graphql;
mod import;
mod jobs;
mod life;
mod live;
mod metrics;
mod migration;
mod operations;
mod oracle;
mod readme;
mod recorder;
mod schema;
mod source;
mod support;
mod telemetry;
mod transitions;
mod upgrade;
mod websocket;
