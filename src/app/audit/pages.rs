//! Reads the rows of a range of customers in order, page by page, inside one snapshot.
//!
//! The rows and the bytes of a page are limited, so that the memory in use does not depend on how much a customer has. If a page
//! reaches the limit in bytes, the next page asks for as many rows as were read; otherwise it asks for twice as many as before,
//! up to a maximum. So over all pages, the database reads at most about twice as many rows as are used.

use std::collections::VecDeque;

use entity::CustomerId;
use futures_util::TryStreamExt;
use sea_orm::sea_query::Value;
use sea_orm::{DatabaseTransaction, FromQueryResult, Statement, StreamTrait};

use crate::app::error::Error;
use crate::app::rows::Kind;

/// The maximum number of rows of the first page. Later pages may be longer.
const FIRST_PAGE_ROWS: usize = 64;
/// The maximum number of rows of any page.
const PAGE_ROWS: usize = 256;
/// A page ends with the row that makes it larger than this, in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// A row that is read in pages.
pub(super) trait Row: FromQueryResult + Send {
    /// The selected columns. `s` is the table that determines the order.
    const SELECT: &'static str;
    /// The tables, beginning with `s`.
    const FROM: &'static str;
    /// The columns of `s` that determine the order, without ties. The first one is the customer's key.
    const ORDER: &'static [(&'static str, Kind)];

    /// The values of the columns in [`Self::ORDER`].
    fn position(&self) -> Vec<Value>;

    /// The customer that the row belongs to.
    fn customer(&self) -> CustomerId;

    /// An estimate of the memory that the row takes, in bytes.
    fn bytes(&self) -> usize;
}

/// A range of customers: all keys from `first` to `last`, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Customers {
    pub(super) first: CustomerId,
    pub(super) last: CustomerId,
}

/// The rows that have not been handed out yet.
pub(super) struct Pages<'a, R> {
    snapshot: &'a DatabaseTransaction,
    last: CustomerId,
    /// The position after which the next page begins.
    position: Vec<Value>,
    rows: VecDeque<R>,
    /// The number of rows that the next page asks for.
    limit: usize,
    ended: bool,
}

impl<'a, R: Row> Pages<'a, R> {
    /// Reads all rows of these customers.
    pub(super) fn of(snapshot: &'a DatabaseTransaction, customers: Customers) -> Self {
        let first = |kind: &Kind| if *kind == Kind::Int { i64::MIN.into() } else { String::new().into() };
        let rest = R::ORDER.iter().skip(1).map(|(_, kind)| first(kind));
        let position = std::iter::once(customers.first.0.into()).chain(rest).collect();
        Self::after(snapshot, position, customers.last)
    }

    /// Reads the rows after this position, up to those of the customer `last`.
    pub(super) fn after(snapshot: &'a DatabaseTransaction, position: Vec<Value>, last: CustomerId) -> Self {
        let (rows, limit) = (VecDeque::new(), FIRST_PAGE_ROWS);
        Self { snapshot, last, position, rows, limit, ended: false }
    }

    /// Takes the next row if it belongs to this customer and satisfies the condition.
    pub(super) async fn next_if(
        &mut self,
        customer: CustomerId,
        condition: impl Fn(&R) -> bool,
    ) -> Result<Option<R>, Error> {
        self.fill().await?;
        let wanted = |row: &R| row.customer() == customer && condition(row);
        Ok(if self.rows.front().is_some_and(wanted) { self.rows.pop_front() } else { None })
    }

    /// Ensures that the next row is in memory, if there is one. Returns whether this read a page.
    pub(super) async fn fill(&mut self) -> Result<bool, Error> {
        let reads = self.rows.is_empty() && !self.ended;
        if reads {
            self.read_page().await?;
        }
        Ok(reads)
    }

    /// Returns the rows of the current page that have not been taken yet.
    pub(super) fn page(&self) -> &VecDeque<R> {
        &self.rows
    }

    async fn read_page(&mut self) -> Result<(), Error> {
        let mut found = self.snapshot.stream_raw(self.statement()).await?;
        let (mut bytes, mut cut) = (0, false);
        while let Some(row) = found.try_next().await? {
            let row = R::from_query_result(&row, "")?;
            bytes += row.bytes();
            self.rows.push_back(row);
            if bytes > PAGE_BYTES {
                cut = true;
                break;
            }
        }
        self.ended = !cut && self.rows.len() < self.limit;
        self.limit = if cut { self.rows.len() } else { (2 * self.limit).min(PAGE_ROWS) };
        if let Some(last) = self.rows.back() {
            self.position = last.position();
        }
        Ok(())
    }

    fn statement(&self) -> Statement {
        let columns: Vec<String> = R::ORDER.iter().map(|(column, _)| format!("s.{column}")).collect();
        let parameters: Vec<String> = (1..=columns.len()).map(|number| format!("${number}")).collect();
        let order = columns.join(", ");
        let sql = format!(
            "SELECT {} FROM {} WHERE ({order}) > ({}) AND s.{} <= ${} ORDER BY {order} LIMIT ${}",
            R::SELECT,
            R::FROM,
            parameters.join(", "),
            R::ORDER[0].0,
            columns.len() + 1,
            columns.len() + 2,
        );
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let values = self.position.iter().cloned().chain([self.last.0.into(), limit.into()]);
        Statement::from_sql_and_values(self.snapshot.get_database_backend(), sql, values)
    }
}
