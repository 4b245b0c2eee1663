//! How far a consumer group has read a partition of a topic, and why it has stopped there.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "ingest_position")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub group_name: String,
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub topic: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub partition: i64,
    /// The offset of the last message that is done: its facts are committed, or wait, or it is a dead letter. `None`: the partition is
    /// read from its beginning.
    pub last_offset: Option<i64>,
    /// A hash of that message. `None`: the message is not compared.
    #[sea_orm(column_type = "Text", nullable)]
    pub last_hash: Option<String>,
    /// Why the partition is not read. `None`: it is read.
    #[sea_orm(column_type = "Text", nullable)]
    pub stopped: Option<String>,
    pub stopped_at: Option<i64>,
    /// The first offset that retention has taken before the message was read, and the first one that is left.
    pub lost_from: Option<i64>,
    pub lost_to: Option<i64>,
    /// How often `windfall ingest resume` has set the position. A consumer that read an older number stores nothing.
    pub resumes: i64,
    pub updated_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
