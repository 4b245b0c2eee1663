//! Integration tests: one binary, because each links the whole server.

mod engine;
mod oracle;
mod source;
mod support;
