//! Converts between database rows and values of the engine. No other module knows the stored form of these values.

pub mod award;
pub mod budget;
pub mod campaign_stat;
pub mod checkpoint;
pub mod customer;
pub mod erased_name;
pub mod history;
pub mod ledger_entry;
pub mod lot;
pub mod purchase;
pub mod purchase_revision;
pub mod redemption;
pub mod refund;
pub mod reward;
pub mod running;
pub mod stretches;
