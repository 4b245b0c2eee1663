//! What an admin changed, or was refused. `app::trail` says which columns may hold personal data.

use sea_orm::entity::prelude::*;

#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "trail_entry")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub at: i64,
    /// The name of the mutation.
    #[sea_orm(column_type = "Text")]
    pub action: String,
    #[sea_orm(column_type = "Text")]
    pub subject_of_token: String,
    #[sea_orm(column_type = "Text")]
    pub role: String,
    /// The campaign that the action is about. The row may be gone.
    pub campaign_id: Option<i64>,
    /// The customer that the action is about. The row may be gone.
    pub customer_id: Option<i64>,
    /// The reward that the action is about.
    pub reward_id: Option<i64>,
    /// The job that the action is about. The row may be gone.
    pub job_id: Option<i64>,
    /// The dead letter that the action is about. The row may be gone.
    pub dead_letter_id: Option<i64>,
    /// JSON: the state before the change. `None`: there was none, or nothing changed.
    #[sea_orm(column_type = "Text", nullable)]
    pub before: Option<String>,
    /// JSON: the state after the change. `None`: there is none, or nothing changed.
    #[sea_orm(column_type = "Text", nullable)]
    pub after: Option<String>,
    /// JSON: the codes of the `userErrors`. An empty list if the action took effect.
    #[sea_orm(column_type = "Text")]
    pub refused: String,
    #[sea_orm(column_type = "Text")]
    pub request_id: String,
    /// The address of the client. `None` for an action of a subcommand.
    #[sea_orm(column_type = "Text", nullable)]
    pub address: Option<String>,
}

impl ActiveModelBehavior for ActiveModel {}
