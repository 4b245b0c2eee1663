//! Converts budgets and their decisions between the engine and their tables.

use entity::{AwardStatus, BudgetDecisionKind, budget};

use crate::engine::budget::{Budget, DecisionKind};

/// Returns the budget for the engine, or `None` if the campaign has no limit.
pub fn from_row(row: &budget::Model) -> Option<Budget> {
    Some(Budget { limit: row.points_limit?, used: row.points_used })
}

pub fn stored_kind(kind: DecisionKind) -> BudgetDecisionKind {
    match kind {
        DecisionKind::Standing => BudgetDecisionKind::Standing,
        DecisionKind::Declined => BudgetDecisionKind::Declined,
        DecisionKind::Released => BudgetDecisionKind::Released,
        DecisionKind::Grown => BudgetDecisionKind::Grown,
    }
}

/// Returns the decision of a row, or `None` if the row sets the limit of the budget.
pub fn decision_kind(kind: BudgetDecisionKind) -> Option<DecisionKind> {
    match kind {
        BudgetDecisionKind::Standing => Some(DecisionKind::Standing),
        BudgetDecisionKind::Declined => Some(DecisionKind::Declined),
        BudgetDecisionKind::Released => Some(DecisionKind::Released),
        BudgetDecisionKind::Grown => Some(DecisionKind::Grown),
        BudgetDecisionKind::Limit => None,
    }
}

/// Returns the status that a decision gave to its award, if it gave one.
pub fn decided_status(kind: BudgetDecisionKind) -> Option<AwardStatus> {
    match decision_kind(kind)? {
        DecisionKind::Standing => Some(AwardStatus::Standing),
        DecisionKind::Declined => Some(AwardStatus::Declined),
        DecisionKind::Released | DecisionKind::Grown => None,
    }
}
