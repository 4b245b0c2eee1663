//! What the programs of this package share. `scripts/bench` runs them; each can also be run by itself.
//!
//! - `load` sends requests and follows subscriptions, and prints what it measured as one line of JSON.
//! - `bare` serves one fixed response with axum: what HTTP alone costs.
//! - `engine` evaluates purchases without any input or output.
//! - `cache` reads through the first tier of the cache, with the trace of `peers/caffeine`.
//!
//! The load generator shares its cores with the server, so it does little for each request: it writes the request into a
//! buffer that it keeps, and reads the response only as far as it must to tell success from failure. Each failure is
//! counted, and the first one is printed.

pub mod clock;
pub mod closed;
pub mod cpu;
pub mod http;
pub mod latency;
pub mod live;
pub mod open;
pub mod operation;
pub mod purchase;
pub mod report;
pub mod websocket;
