//! The counters of a reward. Writers lock them last, as they lock budgets.
//!
//! The units of a reservation that is over are free at its end, although they are counted here until the next write of that customer.

use sea_orm::entity::prelude::*;

use crate::RewardId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "stock")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub reward_id: RewardId,
    /// Units that are redeemed, and cancelled ones whose codes were shown.
    pub redeemed: i64,
    /// Units that are reserved.
    pub reserved: i64,
    /// Codes that were not given yet.
    pub codes_unused: i64,
    pub codes_given: i64,
}

impl ActiveModelBehavior for ActiveModel {}
