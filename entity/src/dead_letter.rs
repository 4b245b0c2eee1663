//! A message of a topic that could not be recorded.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "dead_letter")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    #[sea_orm(column_type = "Text")]
    pub topic: String,
    pub partition: i64,
    pub message_offset: i64,
    /// A hash of the message. A topic that was deleted and made again has another message at the same offset.
    #[sea_orm(column_type = "Text")]
    pub hash: String,
    /// Why the message could not be recorded.
    #[sea_orm(column_type = "Text")]
    pub reason: String,
    pub recorded_at: i64,
    #[sea_orm(column_type = "Blob", nullable)]
    pub key: Option<Vec<u8>>,
    /// JSON: a list of names, each with its value in base64 or null.
    #[sea_orm(column_type = "Text")]
    pub headers: String,
    /// The number of bytes of the value of the message. `None`: the message has no value.
    pub size: Option<i64>,
    /// The first bytes of the value.
    #[sea_orm(column_type = "Blob")]
    pub payload: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
