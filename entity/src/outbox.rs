//! An event that is to be published: what a commit changed of one customer, or a part of it.

use sea_orm::entity::prelude::*;

use crate::CustomerId;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    /// Increases with each event of a customer. Events of different customers may be committed in another order.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// The part of the table, which is emptied as a whole on PostgreSQL. It follows from the instant of the commit.
    pub segment: i32,
    /// The events of a customer are all in one bucket, which one node publishes at a time.
    pub bucket: i32,
    pub customer_id: CustomerId,
    /// The customer's version after the commit.
    pub version: i64,
    /// A commit that changed much has several events, numbered from 1.
    pub part: i32,
    /// The customer's external id.
    #[sea_orm(column_type = "Text")]
    pub key: String,
    /// The id of the event for consumers.
    #[sea_orm(column_type = "Text")]
    pub event_id: String,
    /// JSON: the event.
    #[sea_orm(column_type = "Text")]
    pub event: String,
    /// JSON: the customer's balance after the commit. `None`: it is in a later part.
    #[sea_orm(column_type = "Text", nullable)]
    pub balance: Option<String>,
    /// 1 if the commit erased the customer, so that consumers forget its balance. 0 otherwise.
    pub erases: i32,
    /// The instant of the commit.
    pub committed_at: i64,
    /// 1 once the event was published. 0 before.
    pub published: i32,
}

impl ActiveModelBehavior for ActiveModel {}
