//! Rows of a range of customers, in order, read page by page inside one snapshot.
//!
//! A page is bounded in rows and in bytes, so that what is in memory does not depend on what a customer has. A page that
//! is cut because of its bytes makes the next one ask for as few rows, and any other for twice as many: over all pages
//! the database reads no more than twice the rows that are handed out.

use std::collections::VecDeque;

use entity::CustomerId;
use futures_util::TryStreamExt;
use sea_orm::sea_query::Value;
use sea_orm::{DatabaseTransaction, FromQueryResult, Statement, StreamTrait};

use crate::app::error::Error;
use crate::app::rows::Kind;

/// The first page of rows; those after it may be longer.
const FIRST_PAGE_ROWS: usize = 64;
/// The most rows of a page.
const PAGE_ROWS: usize = 256;
/// A page ends with the row that makes it larger than this.
const PAGE_BYTES: usize = 1 << 20;

/// A row that is read by pages.
pub(super) trait Row: FromQueryResult + Send {
    /// What is selected. `s` is the table that is ordered.
    const SELECT: &'static str;
    /// From where.
    const FROM: &'static str;
    /// Columns of `s` that order it, without ties. The first is the customer's key.
    const ORDER: &'static [(&'static str, Kind)];

    /// The values of the columns that order it.
    fn position(&self) -> Vec<Value>;

    /// Whose it is.
    fn customer(&self) -> CustomerId;

    /// About how much memory it takes, in bytes.
    fn bytes(&self) -> usize;
}

/// Which customers' rows are read: all keys between these two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Customers {
    pub(super) first: CustomerId,
    pub(super) last: CustomerId,
}

/// The rows that are left to read.
pub(super) struct Pages<'a, R> {
    snapshot: &'a DatabaseTransaction,
    last: CustomerId,
    /// After the last row that was read.
    position: Vec<Value>,
    rows: VecDeque<R>,
    /// Rows to ask for.
    limit: usize,
    ended: bool,
}

impl<'a, R: Row> Pages<'a, R> {
    /// All rows of these customers.
    pub(super) fn of(snapshot: &'a DatabaseTransaction, customers: Customers) -> Self {
        let first = |kind: &Kind| if *kind == Kind::Int { i64::MIN.into() } else { String::new().into() };
        let rest = R::ORDER.iter().skip(1).map(|(_, kind)| first(kind));
        let position = std::iter::once(customers.first.0.into()).chain(rest).collect();
        Self::after(snapshot, position, customers.last)
    }

    /// The rows after this position, up to this customer's.
    pub(super) fn after(snapshot: &'a DatabaseTransaction, position: Vec<Value>, last: CustomerId) -> Self {
        let (rows, limit) = (VecDeque::new(), FIRST_PAGE_ROWS);
        Self { snapshot, last, position, rows, limit, ended: false }
    }

    /// Takes the next row if it is this customer's and the condition holds for it.
    pub(super) async fn next_if(
        &mut self,
        customer: CustomerId,
        condition: impl Fn(&R) -> bool,
    ) -> Result<Option<R>, Error> {
        self.fill().await?;
        let wanted = |row: &R| row.customer() == customer && condition(row);
        Ok(if self.rows.front().is_some_and(wanted) { self.rows.pop_front() } else { None })
    }

    /// Makes sure that the next row is in memory, if there is one; whether a page was read for it.
    pub(super) async fn fill(&mut self) -> Result<bool, Error> {
        let reads = self.rows.is_empty() && !self.ended;
        if reads {
            self.read_page().await?;
        }
        Ok(reads)
    }

    /// What of the page has not been taken yet.
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
