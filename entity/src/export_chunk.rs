//! A part of the result of an export. The parts of a job, in the order of their numbers, are the result.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "export_chunk")]
pub struct Model {
    /// The job that wrote the part. Parts of a job that is gone are deleted.
    #[sea_orm(primary_key, auto_increment = false)]
    pub job_id: i64,
    /// Numbered 1, 2, 3 … for each job. Parts are cut anywhere, also within a line.
    #[sea_orm(primary_key, auto_increment = false)]
    pub number: i64,
    #[sea_orm(column_type = "Blob")]
    pub content: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}
