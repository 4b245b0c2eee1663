//! Enums that are stored as text, so that a new variant needs no change of the schema.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Whether an award's points stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum AwardStatus {
    /// The points are in the ledger.
    Standing,
    /// The goal is no longer reached.
    Reversed,
    /// The goal is reached, but the budget had no room.
    Declined,
}

/// Why a ledger entry moves points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum LedgerEntryKind {
    /// Posts points of an award.
    Award,
    /// Takes back points of an award.
    Reversal,
    /// Changes the balance by hand.
    Adjustment,
    /// Takes what is left of a lot that expired, or gives expired points back before a reversal takes them.
    Expiry,
    /// Spends points on a reward.
    Redemption,
    /// Gives spent points back.
    Cancellation,
}

/// What became of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum RedemptionState {
    /// The points are set aside.
    Reserved,
    /// The points are spent.
    Redeemed,
    /// The points were given back.
    Cancelled,
    /// The reservation was over before it was committed.
    Lapsed,
}

/// What a budget decision records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum BudgetDecisionKind {
    /// An award fits into the budget.
    Standing,
    /// An award does not fit into the budget.
    Declined,
    /// All or some points of a standing award become free.
    Released,
    /// A standing award gains points.
    Grown,
    /// The limit is set or removed, or a repair corrects the points that the budget has given.
    Limit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum JobKind {
    /// Evaluates what was deferred: the past of a campaign, or the history of one customer.
    Evaluation,
    /// Settles the campaigns that are due.
    Settlement,
    /// Posts expiries and the ends of reservations that are due.
    Expiry,
    /// Publishes the events of one bucket, as long as a server runs.
    Outbox,
    /// Deletes what nobody needs any more.
    Retention,
    /// Audits a sample of the customers.
    Audit,
    /// Writes down everything that is recorded of a customer.
    Export,
    /// Removes what names a customer, and its purchases.
    Erasure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum JobState {
    /// The job runs once its `run_at` has come.
    Waiting,
    /// A node runs the job. If its lease expires, another node takes over.
    Running,
    Done,
    /// The job was given up after too many attempts without progress.
    Dead,
    /// An admin has cancelled the job, or a later tick has done the work of a periodic one that was given up.
    Cancelled,
}
