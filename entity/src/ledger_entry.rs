//! One movement of points. Ledger entries are never updated or deleted. The balance is their sum.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{CustomerId, LedgerEntryKind};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "ledger_entry")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// Numbered 1, 2, 3 … for each customer, without gaps.
    #[sea_orm(primary_key, auto_increment = false)]
    pub sequence: i64,
    pub kind: LedgerEntryKind,
    /// Below zero if the entry takes points away.
    pub points: i64,
    /// The balance of the customer after this entry.
    pub balance_after: i64,
    /// The number of the customer's award. `None` for an adjustment or an expiry.
    pub award_number: Option<i64>,
    /// The purchase that reached the award when this entry was posted. `None` for an adjustment or an expiry.
    #[sea_orm(column_type = "Text", nullable)]
    pub purchase_external_id: Option<String>,
    /// The reason of an adjustment, or a note that a repair posted the entry.
    #[sea_orm(column_type = "Text", nullable)]
    pub reason: Option<String>,
    /// When the points of an `AWARD` become available. `None`: when they are posted.
    pub available_at: Option<i64>,
    /// When the points of an `AWARD` or an `ADJUSTMENT` expire, or when the lot of an `EXPIRY` did. `None`: never.
    pub expires_at: Option<i64>,
    pub created_at: i64,
    /// The customer's version after the commit that posted this entry.
    pub version: i64,
    /// The number of the customer's redemption that the entry spends points for or gives points back of.
    pub redemption_number: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
