//! What tests stand on: throwaway databases.

pub(crate) mod app;
pub(crate) mod postgres;
pub(crate) mod sqlite;

mod tests;
