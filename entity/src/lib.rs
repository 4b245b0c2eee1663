//! One entity for each table, named after what a row holds, with typed ids and stored enums. This crate contains no rules.
//!
//! Instants are in microseconds since 1970 (UTC), amounts in minor units of the currency, and points are whole numbers.
//! All are 64-bit integers, so that both databases compare, sum and round them in the same way.

pub mod award;
pub mod budget;
pub mod budget_decision;
pub mod campaign;
pub mod campaign_stat;
pub mod checkpoint;
pub mod customer;
pub mod dead_letter;
pub mod erased_name;
pub mod export_chunk;
pub mod idempotency_key;
pub mod ingest_position;
pub mod installation;
pub mod job;
pub mod ledger_entry;
pub mod lot;
pub mod node;
pub mod outbox;
pub mod purchase;
pub mod purchase_revision;
pub mod raised_revision;
pub mod redemption;
pub mod refund;
pub mod reward;
pub mod reward_code;
pub mod stock;
pub mod taking;
pub mod trail_entry;
pub mod waiting_fact;
pub mod write_probe;

mod id;
mod stored;

pub use id::{CampaignId, CustomerId, RewardId};
pub use stored::{AwardStatus, BudgetDecisionKind, JobKind, JobState, LedgerEntryKind, RedemptionState};
