//! Integration tests: one binary, because each links the whole server.

mod engine;
mod graphql;
mod oracle;
mod schema;
mod source;
mod support;
