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
