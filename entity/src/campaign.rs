//! A campaign: its rule and its recorded boundaries.

use sea_orm::entity::prelude::*;

use crate::CampaignId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaign")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: CampaignId,
    #[sea_orm(column_type = "Text")]
    pub name: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub description: Option<String>,
    pub created_at: i64,
    pub starts_at: i64,
    /// `None`: the period has no end.
    pub ends_at: Option<i64>,
    /// JSON: the engine's `Rule`. It does not change after the activation.
    #[sea_orm(column_type = "JsonBinary")]
    pub rule: Json,
    /// JSON: the engine's `Pause`s, in order.
    #[sea_orm(column_type = "JsonBinary")]
    pub pauses: Json,
    /// The campaign-set revision of the campaign's last change.
    pub set_revision: i64,
    /// The campaign-set revision of the activation. It also gives the order of activation. `None`: the campaign is a draft.
    pub activated_revision: Option<i64>,
    /// Whether the campaign was ended by hand.
    pub ended: bool,
    /// The campaign-set revision of the settlement. Only facts with a lower revision count. `None`: not settled.
    pub settled_revision: Option<i64>,
    /// The latest boundary that a pause, a resume or an end has set.
    pub boundary: Option<i64>,
    /// The key of the last customer that the open backfill has reached. `None`: no backfill is open.
    pub backfilled_to: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
