//! What a caller's key was used for: the same request again replays, another one conflicts. For ever.

use sea_orm::entity::prelude::*;

/// See the module.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_key")]
pub struct Model {
    /// Chosen by the caller.
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub key: String,
    /// JSON: the request, after parsing.
    #[sea_orm(column_type = "Text")]
    pub request: String,
    /// The campaign that it made.
    pub campaign_id: Option<i64>,
    /// The customer whose points it adjusted.
    pub customer_id: Option<i64>,
    /// The ledger entry that it posted.
    pub sequence: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
