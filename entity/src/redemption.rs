//! Points that a customer spent on a reward, or set aside for one.

use sea_orm::entity::prelude::*;

use crate::{CustomerId, RedemptionState, RewardId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "redemption")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// Numbered 1, 2, 3 … for each customer.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    pub reward_id: RewardId,
    pub quantity: i64,
    /// The cost times the quantity when it was made.
    pub points: i64,
    /// A reservation that is over is stored as `Reserved` until the next write of the customer.
    pub state: RedemptionState,
    pub created_at: i64,
    /// The customer's version after the commit that made it.
    pub created_version: i64,
    /// The sequence of the last ledger entry when it was made. Together with the version, it says what came before.
    pub created_sequence: i64,
    /// When the reservation ends, or would have ended. `None`: it was redeemed at once.
    pub reserved_until: Option<i64>,
    pub redeemed_at: Option<i64>,
    /// When it was cancelled or was over.
    pub ended_at: Option<i64>,
    /// The customer's version after the commit that cancelled it.
    pub ended_version: Option<i64>,
    /// The sequence of the last ledger entry when it was cancelled.
    pub ended_sequence: Option<i64>,
    /// Why it was cancelled.
    #[sea_orm(column_type = "Text", nullable)]
    pub reason: Option<String>,
    /// The customer's version that last changed this row.
    pub version: i64,
}

impl ActiveModelBehavior for ActiveModel {}
