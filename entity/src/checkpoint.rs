//! A state of the fold in the middle of a customer's history, from which late changes are folded again.

use sea_orm::entity::prelude::*;

use crate::{CampaignId, CustomerId};

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "checkpoint")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub customer_id: CustomerId,
    /// In which campaign.
    #[sea_orm(primary_key, auto_increment = false)]
    pub campaign_id: CampaignId,
    /// The last purchase counted: its `purchased_at`, µs.
    #[sea_orm(primary_key, auto_increment = false)]
    pub purchased_at: i64,
    /// The last purchase counted: its external id.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub external_id: String,
    /// JSON: the engine's `State`.
    #[sea_orm(column_type = "Text")]
    pub state: String,
}

impl ActiveModelBehavior for ActiveModel {}
