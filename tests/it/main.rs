//! Integration tests: one binary, because each links the whole server.

mod source;
mod support;
