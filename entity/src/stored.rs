//! Enums stored as text: a new variant needs no change of the schema.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Whether an award's points stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum AwardStatus {
    /// Its points are in the ledger.
    Standing,
    /// No longer reached.
    Reversed,
    /// Reached, but the budget had no room.
    Declined,
}

/// What a ledger entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Serialize, Deserialize)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum LedgerEntryKind {
    /// Points of an award.
    Award,
    /// Points of an award taken back.
    Reversal,
    /// By hand.
    Adjustment,
}

/// What moved a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum BudgetDecisionKind {
    /// An award fitted.
    Standing,
    /// An award did not fit.
    Declined,
    /// A standing award's points, or part of them, were given back.
    Released,
    /// The limit was set.
    Limit,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum JobKind {
    /// Evaluates what was deferred: a campaign's past, or one customer's history.
    Evaluation,
    /// Settles the campaigns that are due.
    Settlement,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum JobState {
    /// To be run, once its instant has come.
    Waiting,
    /// Somebody runs it, as long as the lease holds.
    Running,
    /// Done.
    Done,
    /// Given up after too many attempts.
    Dead,
}
