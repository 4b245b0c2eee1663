//! Lists by pages, as Relay has them: `first` after a cursor, or `last` before one.
//!
//! A cursor is the position of its row in the list's order, so a page costs one index search however far into the list
//! it lies, and rows that come or go meanwhile shift nothing.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use entity::CustomerId;
use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, first_of_each};

/// Rows of a page when nothing is said.
const DEFAULT_SIZE: usize = 20;
/// The most rows of a page.
const MAX_SIZE: usize = 100;

/// Which part of a list is asked for, as it was sent.
#[derive(Clone, Debug, Default)]
pub struct PageArgs {
    pub first: Option<i32>,
    pub after: Option<String>,
    pub last: Option<i32>,
    pub before: Option<String>,
}

/// A list that is read by pages.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// In its cursors, so that another list's are refused.
    pub name: &'static str,
    /// Of its rows.
    pub table: &'static str,
    /// Columns that order it, without ties.
    pub order: &'static [(&'static str, Kind)],
    /// The greatest first.
    pub descending: bool,
}

/// Where a row stands in its list: the values of the columns that order it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Vec<Part>);

/// One column's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// An integer.
    Int(i64),
    /// A text, not empty; compared as bytes.
    Text(String),
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    size: usize,
    /// The last rows in place of the first.
    backward: bool,
    after: Option<Position>,
    before: Option<Position>,
}

/// The rows of a page, in the list's order.
#[derive(Clone, Debug)]
pub struct Slice<T> {
    /// At most as many as asked for.
    pub rows: Vec<T>,
    /// More before them.
    pub has_previous: bool,
    /// More after them.
    pub has_next: bool,
}

/// A row of a list that is read by pages.
pub trait Listed: FromQueryResult + Send {
    /// The list.
    const LIST: List;

    /// Where it stands.
    fn position(&self) -> Position;

    /// For a connection.
    fn cursor(&self) -> String {
        Self::LIST.cursor(&self.position())
    }
}

/// Rows of a list that are asked for beside the page: a condition on the row `s` and on the columns `r` given here. The page
/// is read for each of `rows` apart and then merged, so that each is one range of an index.
#[derive(Clone, Debug)]
pub struct Filter {
    /// `AND …`, or empty.
    pub sql: String,
    /// What it takes.
    pub columns: Vec<(&'static str, Kind)>,
    /// Values of these columns; no list row is wanted of two of them. None: no list row at all.
    pub rows: Vec<Vec<Value>>,
}

impl Default for Filter {
    /// All rows.
    fn default() -> Self {
        Self { sql: String::new(), columns: Vec::new(), rows: vec![Vec::new()] }
    }
}

impl<const N: usize> From<[Part; N]> for Position {
    fn from(parts: [Part; N]) -> Self {
        Self(parts.into())
    }
}

impl From<i64> for Part {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<&str> for Part {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Part {
    fn value(&self) -> Value {
        match self {
            Self::Int(int) => (*int).into(),
            Self::Text(text) => text.clone().into(),
        }
    }

    fn parse(text: &str, kind: Kind) -> Option<Self> {
        match kind {
            Kind::Int => text.parse().ok().map(Self::Int),
            _ => (!text.is_empty() && !text.contains('\0')).then(|| Self::Text(text.to_owned())),
        }
    }
}

impl Position {
    /// Its values.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl List {
    /// Opaque to clients.
    pub fn cursor(&self, position: &Position) -> String {
        let mut text = self.name.to_owned();
        for part in &position.0 {
            text.push(':');
            match part {
                Part::Int(int) => text.push_str(&int.to_string()),
                Part::Text(part) => text.push_str(part),
            }
        }
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Reads what [`Self::cursor`] wrote.
    pub fn position(&self, cursor: &str) -> Option<Position> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
        let values = text.strip_prefix(self.name)?.strip_prefix(':')?;
        let mut texts = values.splitn(self.order.len(), ':');
        let parts = self.order.iter().map(|(_, kind)| Part::parse(texts.next()?, *kind));
        Some(Position(parts.collect::<Option<_>>()?))
    }

    /// Checks the arguments of a page.
    pub fn page(&self, args: PageArgs) -> Result<Page, Error> {
        let PageArgs { first, after, last, before } = args;
        let (size, backward) = match (first, last) {
            (Some(_), Some(_)) => return Err(bad("only one of `first` and `last` can be given")),
            (Some(first), None) => (page_size(first)?, false),
            (None, Some(last)) => (page_size(last)?, true),
            (None, None) => (DEFAULT_SIZE, false),
        };
        let position = |name: &str, cursor: Option<String>| match cursor {
            Some(cursor) => {
                let wrong = || bad(&format!("`{name}` is no cursor of this list"));
                self.position(&cursor).map(Some).ok_or_else(wrong)
            }
            None => Ok(None),
        };
        Ok(Page { size, backward, after: position("after", after)?, before: position("before", before)? })
    }
}

fn page_size(size: i32) -> Result<usize, Error> {
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SIZE);
    size.ok_or_else(|| bad(&format!("a page has 0 to {MAX_SIZE} rows")))
}

fn bad(message: &str) -> Error {
    Error::BadUserInput(message.to_owned())
}

impl Page {
    /// Whether the last rows are asked for in place of the first.
    pub fn is_backward(&self) -> bool {
        self.backward
    }

    /// Exclusive, in the list's order.
    pub fn after(&self) -> Option<&Position> {
        self.after.as_ref()
    }

    /// Exclusive, in the list's order.
    pub fn before(&self) -> Option<&Position> {
        self.before.as_ref()
    }

    /// One more than asked for: whether it is there is what `hasNextPage` tells.
    pub fn fetched(&self) -> usize {
        self.size + 1
    }

    /// The page out of rows in the list's order: the first (or last) [`Self::fetched`] that the cursors leave.
    pub fn cut<T>(&self, mut rows: Vec<T>) -> Slice<T> {
        let more = rows.len() > self.size;
        if self.backward {
            rows.drain(..rows.len().saturating_sub(self.size));
            Slice { rows, has_previous: more || self.after.is_some(), has_next: self.before.is_some() }
        } else {
            rows.truncate(self.size);
            Slice { rows, has_previous: self.after.is_some(), has_next: more || self.before.is_some() }
        }
    }

    /// The page out of a whole list that is in memory, in its order.
    pub fn of_all<T>(&self, list: &List, rows: Vec<T>, position: impl Fn(&T) -> Position) -> Slice<T> {
        let inside = |row: &T| {
            let position = position(row);
            let follows = |other: &Position| if list.descending { position < *other } else { position > *other };
            let precedes = |other: &Position| if list.descending { position > *other } else { position < *other };
            self.after.as_ref().is_none_or(follows) && self.before.as_ref().is_none_or(precedes)
        };
        let mut rows: Vec<T> = rows.into_iter().filter(inside).collect();
        if self.backward {
            rows.drain(..rows.len().saturating_sub(self.fetched()));
        } else {
            rows.truncate(self.fetched());
        }
        self.cut(rows)
    }
}

/// The same page of each customer's list, in one statement and one index search each.
pub async fn of_customers<M: Listed>(
    db: &impl ConnectionTrait,
    customers: impl IntoIterator<Item = CustomerId>,
    page: &Page,
    filter: &Filter,
    owner: impl Fn(&M) -> CustomerId,
) -> Result<HashMap<CustomerId, Slice<M>>, Error> {
    let mut by_customer: HashMap<CustomerId, Vec<M>> =
        customers.into_iter().map(|customer| (customer, Vec::new())).collect();
    let parents = by_customer.keys().map(|customer| customer.0).collect();
    for row in read(db, Some("customer_id"), parents, page, filter).await? {
        by_customer.entry(owner(&row)).or_default().push(row);
    }
    Ok(by_customer.into_iter().map(|(customer, rows)| (customer, finish(page, rows))).collect())
}

/// A page of a list that has no parent.
pub async fn of_root<M: Listed>(db: &impl ConnectionTrait, page: &Page, filter: &Filter) -> Result<Slice<M>, Error> {
    Ok(finish(page, read(db, None, vec![0], page, filter).await?))
}

fn finish<M: Listed>(page: &Page, mut rows: Vec<M>) -> Slice<M> {
    rows.sort_by_cached_key(Listed::position);
    if M::LIST.descending {
        rows.reverse();
    }
    page.cut(rows)
}

async fn read<M: Listed>(
    db: &impl ConnectionTrait,
    parent: Option<&str>,
    parents: Vec<i64>,
    page: &Page,
    filter: &Filter,
) -> Result<Vec<M>, Error> {
    let list = M::LIST;
    let mut columns = vec![("parent".to_owned(), Kind::Int, Value::from(0_i64))];
    let mut conditions = parent.map(|column| format!("s.\"{column}\" = r.parent")).unwrap_or("true".to_owned());
    let ordered = list.order.iter().map(|(column, _)| format!("s.\"{column}\"")).collect::<Vec<_>>();
    let (follows, precedes) = if list.descending { ("<", ">") } else { (">", "<") };
    for (name, bound, compare) in [("after", &page.after, follows), ("before", &page.before, precedes)] {
        let Some(bound) = bound else { continue };
        let mut names = Vec::new();
        for (index, (part, (_, kind))) in bound.0.iter().zip(list.order).enumerate() {
            names.push(format!("r.{name}_{index}"));
            columns.push((format!("{name}_{index}"), *kind, part.value()));
        }
        conditions += &format!(" AND ({}) {compare} ({})", ordered.join(", "), names.join(", "));
    }
    conditions += &filter.sql;
    let direction = if list.descending == page.backward { "ASC" } else { "DESC" };
    let order: Vec<String> = ordered.iter().map(|column| format!("{column} {direction}")).collect();

    let of_page = columns.iter().map(|(name, kind, _)| (name.as_str(), *kind));
    let names: Vec<(&str, Kind)> = of_page.chain(filter.columns.iter().copied()).collect();
    let mut rows = Rows::new(db.get_database_backend(), &names);
    for parent in parents {
        let of_page = || columns[1..].iter().map(|(_, _, value)| value.clone());
        for of_filter in &filter.rows {
            rows.push(std::iter::once(parent.into()).chain(of_page()).chain(of_filter.iter().cloned()).collect());
        }
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let found = first_of_each(db, "t.*", list.table, rows, &conditions, &order.join(", "), page.fetched()).await?;
    Ok(found.iter().map(|row| M::from_query_result(row, "")).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: List =
        List { name: "thing", table: "thing", order: &[("at", Kind::Int), ("id", Kind::Text)], descending: true };

    fn args(first: Option<i32>, last: Option<i32>) -> PageArgs {
        PageArgs { first, last, ..PageArgs::default() }
    }

    #[test]
    fn cursors_come_back() {
        let position = Position::from([Part::Int(-5), Part::from("a:b:ü")]);
        assert_eq!(LIST.position(&LIST.cursor(&position)), Some(position));
        let other = List { name: "other", ..LIST };
        assert_eq!(LIST.position(&other.cursor(&Position::from([Part::Int(1), Part::from("a")]))), None);
        for text in ["thing", "thing:", "thing:1", "thing:1:", "thing:x:a", "thing:1:a\0"] {
            assert_eq!(LIST.position(&URL_SAFE_NO_PAD.encode(text)), None, "{text}");
        }
        assert_eq!(LIST.position("not base64!"), None);
        assert_eq!(LIST.position(""), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(LIST.page(args(None, None)).unwrap().size, 20);
        assert_eq!(LIST.page(args(Some(0), None)).unwrap().size, 0);
        assert!(LIST.page(args(None, Some(100))).unwrap().backward);
        for wrong in [args(Some(1), Some(1)), args(Some(-1), None), args(None, Some(101))] {
            assert!(matches!(LIST.page(wrong), Err(Error::BadUserInput(_))));
        }
    }

    #[test]
    fn pages_of_a_list_in_memory() {
        let position = |n: &i64| Position::from([Part::Int(*n), Part::from("x")]);
        let cut = |args: PageArgs| {
            let slice = LIST.page(args).unwrap().of_all(&LIST, vec![5, 4, 3, 2, 1], position);
            (slice.rows, slice.has_previous, slice.has_next)
        };
        let cursor = |n: i64| Some(LIST.cursor(&position(&n)));
        assert_eq!(cut(args(Some(2), None)), (vec![5, 4], false, true));
        assert_eq!(cut(PageArgs { after: cursor(4), ..args(Some(2), None) }), (vec![3, 2], true, true));
        assert_eq!(cut(PageArgs { after: cursor(2), ..args(Some(2), None) }), (vec![1], true, false));
        assert_eq!(cut(args(None, Some(2))), (vec![2, 1], true, false));
        let both = PageArgs { after: cursor(5), before: cursor(2), ..args(None, None) };
        assert_eq!(cut(both.clone()), (vec![4, 3], true, true));
        assert_eq!(cut(PageArgs { last: Some(1), ..both }), (vec![3], true, true));
        assert_eq!(cut(PageArgs { before: cursor(2), ..args(None, Some(2)) }), (vec![4, 3], true, true));
        assert_eq!(cut(PageArgs { before: cursor(4), ..args(None, Some(2)) }), (vec![5], false, true));
        assert_eq!(cut(args(Some(0), None)), (vec![], false, true));
    }
}
