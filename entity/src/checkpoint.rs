//! A stored state of the fold in the middle of a customer's history. A late change is folded again from the last checkpoint
//! before it.

use sea_orm::entity::prelude::*;

use crate::{CampaignId, CustomerId};

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "checkpoint")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// The `purchased_at` of the last purchase that the state counts.
    #[sea_orm(primary_key, auto_increment = false)]
    pub purchased_at: i64,
    /// The external id of the last purchase that the state counts.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// JSON: the engine's `State`.
    #[sea_orm(column_type = "Text")]
    pub state: String,
}

impl ActiveModelBehavior for ActiveModel {}
