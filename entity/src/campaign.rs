//! A campaign: its rule, and the boundaries recorded in its life.

use sea_orm::entity::prelude::*;

use crate::CampaignId;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "campaign")]
pub struct Model {
    /// Primary key.
    #[sea_orm(primary_key)]
    pub id: CampaignId,
    /// For people.
    #[sea_orm(column_type = "Text")]
    pub name: String,
    /// For people.
    #[sea_orm(column_type = "Text", nullable)]
    pub description: Option<String>,
    /// µs.
    pub created_at: i64,
    /// µs.
    pub starts_at: i64,
    /// µs; none: open-ended.
    pub ends_at: Option<i64>,
    /// JSON: the engine's `Rule`. Fixed from activation on.
    #[sea_orm(column_type = "JsonBinary")]
    pub rule: Json,
    /// JSON: the engine's `Pause`s, in order.
    #[sea_orm(column_type = "JsonBinary")]
    pub pauses: Json,
    /// Campaign-set revision of its last change.
    pub revision: i64,
    /// Campaign-set revision of its activation, which is also the activation order; none: a draft.
    pub activated_revision: Option<i64>,
    /// Ended by hand.
    pub ended: bool,
    /// Campaign-set revision of its settlement: facts recorded before count, later ones do not.
    pub settled_revision: Option<i64>,
    /// The latest boundary set by hand, µs.
    pub boundary: Option<i64>,
    /// The last customer that its open backfill has reached; none: no backfill is open.
    pub backfilled_to: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
