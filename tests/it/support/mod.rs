//! What the tests run on: throwaway servers, applications over them, clients and faults.

pub(crate) mod alloc;
pub(crate) mod app;
pub(crate) mod certificates;
pub(crate) mod daemon;
pub(crate) mod events;
pub(crate) mod faketime;
pub(crate) mod graphql;
#[cfg(feature = "kafka")]
pub(crate) mod kafka;
pub(crate) mod keeper;
pub(crate) mod node;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod reads;
pub(crate) mod redis;
pub(crate) mod rows;
pub(crate) mod server;
pub(crate) mod shop;
pub(crate) mod sqlite;
pub(crate) mod stall;
pub(crate) mod websocket;

mod faults_tests;
mod tests;
