//! The row types that the layers above may use. Those layers read columns and run no queries.

pub use entity::award::Model as Award;
pub use entity::customer::Model as Customer;
pub use entity::dead_letter::Model as DeadLetter;
pub use entity::ingest_position::Model as IngestPosition;
pub use entity::job::Model as Job;
pub use entity::ledger_entry::Model as LedgerEntry;
pub use entity::outbox::Model as OutboxRow;
pub use entity::purchase::Model as Purchase;
pub use entity::redemption::Model as Redemption;
pub use entity::refund::Model as Refund;
pub use entity::reward::Model as Reward;
pub use entity::trail_entry::Model as TrailEntry;
pub use entity::waiting_fact::Model as WaitingFact;
pub use entity::{AwardStatus, CampaignId, CustomerId, JobKind, JobState, LedgerEntryKind, RewardId};
