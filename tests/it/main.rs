//! Integration tests: one binary, because each links the whole server.

mod convergence;
mod engine;
mod oracle;
mod recorder;
mod source;
mod support;
mod transitions;
