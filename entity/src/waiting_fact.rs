//! A refund from a topic that waits for its purchase, or for a content of it that allows the refund.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "waiting_fact")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(column_type = "Text")]
    pub purchase_external_id: String,
    #[sea_orm(column_type = "Text")]
    pub refund_external_id: String,
    /// JSON: the refund, as a line of an import has it.
    #[sea_orm(column_type = "Text")]
    pub content: String,
    /// Why the refund could not be recorded when it was tried last.
    #[sea_orm(column_type = "Text")]
    pub reason: String,
    pub tried_at: i64,
    /// When the message becomes a dead letter.
    pub expires_at: i64,
    // What the dead letter will have.
    #[sea_orm(column_type = "Text")]
    pub topic: String,
    pub partition: i64,
    pub message_offset: i64,
    #[sea_orm(column_type = "Text")]
    pub hash: String,
    pub recorded_at: i64,
    #[sea_orm(column_type = "Blob", nullable)]
    pub key: Option<Vec<u8>>,
    #[sea_orm(column_type = "Text")]
    pub headers: String,
    pub size: Option<i64>,
    #[sea_orm(column_type = "Blob")]
    pub payload: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
