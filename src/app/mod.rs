//! Use cases over the database: lock and load → the engine decides → persist → commit.
//!
//! Points change in [`recorder`] alone, campaigns in [`campaign`] alone. A use case that needs a right takes it as a
//! value ([`viewer`]). SQL lives here and nowhere else.

pub mod adjustment;
pub mod award;
pub mod campaigns;
pub mod clock;
pub mod database;
pub mod error;
pub mod purchase;
pub mod recorder;
pub mod refund;
pub mod rows;
pub mod running;
pub mod viewer;
