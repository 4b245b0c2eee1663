//! One movement of points. Never updated or deleted; the balance is their sum.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{CustomerId, LedgerEntryKind};

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "ledger_entry")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// 1, 2, 3 … for each customer, without gaps.
    #[sea_orm(primary_key, auto_increment = false)]
    pub sequence: i64,
    /// What it is.
    pub kind: LedgerEntryKind,
    /// Signed.
    pub points: i64,
    /// Running sum.
    pub balance_after: i64,
    /// AWARD, REVERSAL: which of the customer's awards.
    pub award_number: Option<i64>,
    /// AWARD, REVERSAL: the purchase that reached the award at that time.
    #[sea_orm(column_type = "Text", nullable)]
    pub purchase_external_id: Option<String>,
    /// For people.
    #[sea_orm(column_type = "Text", nullable)]
    pub reason: Option<String>,
    /// µs.
    pub created_at: i64,
    /// The customer's version that its commit made.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
