//! Reads jobs for admins: pages of the list, and single jobs.

use std::collections::HashMap;

use entity::{JobKind, JobState, job};
use sea_orm::{ActiveEnum, ColumnTrait, EntityTrait, Iterable, QueryFilter};

use crate::app::App;
use crate::app::error::Error;
use crate::app::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_root};
use crate::app::rows::{Kind, any};
use crate::app::viewer::Admin;

impl Listed for job::Model {
    const LIST: List =
        List { name: "job", table: "job", order: &[("created_at", Kind::Int), ("id", Kind::Int)], descending: true };

    fn position(&self) -> Position {
        [Part::Int(self.created_at), Part::Int(self.id)].into()
    }
}

/// Returns a page of the jobs that have one of these kinds and one of these states, the most recently requested first. `None`
/// selects every kind or state that this program knows.
pub async fn list(
    app: &App,
    _: &Admin,
    page: &Page,
    kinds: Option<Vec<JobKind>>,
    states: Option<Vec<JobState>>,
) -> Result<Slice<job::Model>, Error> {
    let wanted_kinds = |kind: &JobKind| kinds.as_ref().is_none_or(|kinds| kinds.contains(kind));
    let wanted_states = |state: &JobState| states.as_ref().is_none_or(|states| states.contains(state));
    let states: Vec<JobState> = JobState::iter().filter(wanted_states).collect();
    let of_kind = |kind: JobKind| states.iter().map(move |state| vec![kind.to_value().into(), state.to_value().into()]);
    let filter = Filter {
        sql: " AND s.kind = r.kind AND s.state = r.state".to_owned(),
        columns: vec![("kind", Kind::Text), ("state", Kind::Text)],
        rows: JobKind::iter().filter(wanted_kinds).flat_map(of_kind).collect(),
    };
    of_root(app.database.read(), page, &filter).await
}

/// Finds jobs by id. Leaves out those that do not exist, and those of kinds that this program does not know.
pub async fn find(app: &App, _: &Admin, ids: Vec<i64>) -> Result<HashMap<i64, job::Model>, Error> {
    let by_id = any(app.database.backend(), job::Column::Id, ids);
    let known = job::Column::Kind.is_in(JobKind::iter());
    let rows = job::Entity::find().filter(by_id).filter(known).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}
