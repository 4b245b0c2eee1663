//! What tests stand on: throwaway databases, and an application over them.

pub(crate) mod app;
pub(crate) mod direct;
pub(crate) mod postgres;
pub(crate) mod server;
pub(crate) mod sqlite;

mod tests;
