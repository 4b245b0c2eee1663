//! Something that customers redeem points for. Its counters are in `stock`.

use sea_orm::entity::prelude::*;

use crate::RewardId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "reward")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: RewardId,
    #[sea_orm(column_type = "Text")]
    pub name: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub description: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub image_url: Option<String>,
    /// The points of one unit, at least 1.
    pub cost: i64,
    /// How many units there are in all. `None`: unlimited.
    pub stock: Option<i64>,
    /// How many units a customer may have redeemed or reserved at a time.
    pub max_per_customer: Option<i64>,
    pub starts_at: Option<i64>,
    pub ends_at: Option<i64>,
    pub active: bool,
    /// A customer may redeem it for itself.
    pub self_service: bool,
    /// The number of edits, from 1.
    pub revision: i64,
    pub created_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
