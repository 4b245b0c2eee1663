//! Reads the ledger: every movement of a customer's points, newest first.

use std::collections::HashMap;

use entity::{CustomerId, ledger_entry};
use sea_orm::FromQueryResult;

use super::App;
use super::cursor::Cursor;
use super::customer::scope;
use super::error::Error;
use super::reading::page::{Filter, List, Listed, Page, PageArgs, Part, Position, Slice, of_customers_each};
use super::rows::{Kind, Rows, join};
use super::viewer::Reader;

impl Listed for ledger_entry::Model {
    const LIST: List =
        List { name: "ledger", table: "ledger_entry", order: &[("sequence", Kind::Int)], descending: true };

    fn position(&self) -> Position {
        [Part::Int(self.sequence)].into()
    }

    /// Returns a cursor that [`points_update::Feed`](crate::app::reading::points_update::Feed) accepts too.
    fn cursor(&self) -> String {
        Cursor::of_entry(self).to_text()
    }
}

/// Checks the arguments of a page of the ledger. A cursor of the ledger contains more than the sequence of its entry; the order
/// of the list needs the sequence only.
pub fn page(args: PageArgs) -> Result<Page, Error> {
    let list = ledger_entry::Model::LIST;
    let place = |cursor: String| match Cursor::sequence_of(&cursor) {
        Some(sequence) => list.cursor(&[Part::Int(sequence)].into()),
        None => cursor,
    };
    list.page(PageArgs { after: args.after.map(place), before: args.before.map(place), ..args })
}

/// Loads the same page of the ledger of each customer, as far as the sequence that is given with the customer. So the ledger of a
/// response belongs to the same version of the customer as its balance and its cursor.
pub async fn of_customers_by_page(
    app: &App,
    customers: &HashMap<CustomerId, i64>,
    page: &Page,
) -> Result<HashMap<CustomerId, Slice<ledger_entry::Model>>, Error> {
    let sql = " AND s.sequence <= r.sequence_to".to_owned();
    let filter = Filter { sql, columns: vec![("sequence_to", Kind::Int)], rows: Vec::new() };
    let customers = customers.iter().map(|(customer, to)| (*customer, vec![vec![(*to).into()]])).collect();
    let owner = |row: &ledger_entry::Model| row.customer_id;
    of_customers_each(app.database.read(), customers, page, &filter, owner).await
}

/// Loads ledger entries by customer and sequence. Leaves out those that the reader may not see.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    keys: Vec<(CustomerId, i64)>,
) -> Result<HashMap<(CustomerId, i64), ledger_entry::Model>, Error> {
    let scope = scope(app, reader).await?;
    let mut rows = Rows::new(app.database.backend(), &[("customer_id", Kind::Int), ("sequence", Kind::Int)]);
    for (customer, sequence) in keys.into_iter().filter(|(customer, _)| scope.sees(*customer)) {
        rows.push(vec![customer.0.into(), sequence.into()]);
    }
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let on = "t.customer_id = r.customer_id AND t.sequence = r.sequence";
    let found = join(app.database.read(), "t.*", "ledger_entry", rows, on, "").await?;
    let found = found.iter().map(|row| ledger_entry::Model::from_query_result(row, ""));
    found.map(|row| row.map(|row| ((row.customer_id, row.sequence), row)).map_err(Error::from)).collect()
}
