//! One entity per table, named like the noun it holds. Typed ids and stored enums; no rules.
//!
//! Instants are microseconds since 1970 (UTC), amounts minor units, points whole numbers: 64-bit integers all, so that
//! both databases compare, sum and round alike.

pub mod award;
pub mod budget;
pub mod budget_decision;
pub mod campaign;
pub mod campaign_stat;
pub mod checkpoint;
pub mod customer;
pub mod idempotency_key;
pub mod installation;
pub mod job;
pub mod ledger_entry;
pub mod node;
pub mod purchase;
pub mod refund;
pub mod write_probe;

mod id;
mod stored;

pub use id::{CampaignId, CustomerId};
pub use stored::{AwardStatus, BudgetDecisionKind, JobKind, JobState, LedgerEntryKind};
