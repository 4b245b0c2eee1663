//! Integration tests: one binary, because each links the whole server.

mod convergence;
mod crash;
mod engine;
mod graphql;
mod migration;
mod oracle;
mod recorder;
mod schema;
mod source;
mod support;
mod transitions;
