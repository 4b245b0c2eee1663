//! Reads the trail, newest entry first.

use std::collections::HashMap;

use entity::trail_entry;
use sea_orm::{EntityTrait, QueryFilter};

use super::page::{Filter, List, Listed, Page, Part, Position, Slice, of_root};
use crate::app::App;
use crate::app::error::Error;
use crate::app::rows::{Kind, any};
use crate::app::viewer::Admin;

/// The maximum number of actions to filter by.
const MAX_ACTIONS: usize = 100;

impl Listed for trail_entry::Model {
    const LIST: List =
        List { name: "trail", table: "trail_entry", order: &[("at", Kind::Int), ("id", Kind::Int)], descending: true };

    fn position(&self) -> Position {
        [Part::Int(self.at), Part::Int(self.id)].into()
    }
}

/// Returns a page of the trail. With `actions`, only entries of these actions.
pub async fn list(
    app: &App,
    _: &Admin,
    page: &Page,
    actions: Option<Vec<String>>,
) -> Result<Slice<trail_entry::Model>, Error> {
    let filter = match actions {
        None => Filter::default(),
        Some(actions) if actions.len() > MAX_ACTIONS => {
            return Err(Error::BadUserInput(format!("`action` must have at most {MAX_ACTIONS} entries")));
        }
        Some(mut actions) => {
            actions.sort_unstable();
            actions.dedup();
            // No stored text contains U+0000, and PostgreSQL refuses a parameter that does.
            let rows = actions.into_iter().filter(|action| !action.contains('\0')).map(|action| vec![action.into()]);
            Filter {
                sql: " AND s.action = r.action".to_owned(),
                columns: vec![("action", Kind::Text)],
                rows: rows.collect(),
            }
        }
    };
    of_root(app.database.read(), page, &filter).await
}

/// Finds entries by id. Leaves out those that do not exist.
pub async fn find(app: &App, _: &Admin, ids: Vec<i64>) -> Result<HashMap<i64, trail_entry::Model>, Error> {
    let by_id = any(app.database.backend(), trail_entry::Column::Id, ids);
    let rows = trail_entry::Entity::find().filter(by_id).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}
