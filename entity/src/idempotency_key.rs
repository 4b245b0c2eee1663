//! The request that an idempotency key was used for. The same request with this key is a duplicate, another one a conflict.
//! Keys are kept for ever.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_key")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub key: String,
    /// JSON: the parsed request, which a duplicate must repeat.
    #[sea_orm(column_type = "Text")]
    pub request: String,
    /// The campaign that the request created.
    pub campaign_id: Option<i64>,
    /// The customer whose points the request adjusted.
    pub customer_id: Option<i64>,
    /// The ledger entry that the request posted.
    pub sequence: Option<i64>,
    /// The reward that the request created.
    pub reward_id: Option<i64>,
    /// The redemption of the customer that the request made.
    pub redemption_number: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
