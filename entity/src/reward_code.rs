//! A coupon code of a reward. A code that was given is never given again.

use sea_orm::entity::prelude::*;

use crate::RewardId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "reward_code")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub reward_id: RewardId,
    /// The position in the order in which codes are given.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    #[sea_orm(column_type = "Text")]
    pub code: String,
    /// The customer that got the code.
    pub customer_id: Option<i64>,
    /// The redemption of that customer.
    pub redemption_number: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
