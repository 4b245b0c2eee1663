//! Reads lists page by page, like Relay connections: the `first` rows after a cursor, or the `last` rows before one.
//!
//! A cursor contains the position of a row in the order of its list. So a page costs one index search, however far into the
//! list it is, and it does not shift if rows are added or removed in the meantime.

use std::collections::HashMap;

use entity::CustomerId;
use sea_orm::sea_query::Value;
use sea_orm::{ConnectionTrait, FromQueryResult};

use crate::app::error::Error;
use crate::app::opaque;
use crate::app::rows::{Kind, Rows, first_of_each};

/// The size of a page if neither `first` nor `last` is given.
const DEFAULT_SIZE: usize = 20;
/// The maximum size of a page.
const MAX_SIZE: usize = 100;

/// The arguments of a page as the client sent them.
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
    /// A prefix of all cursors of the list, so that cursors of other lists are refused.
    pub name: &'static str,
    pub table: &'static str,
    /// The columns that order the list. No two rows of a list have equal values in all of them.
    pub order: &'static [(&'static str, Kind)],
    /// The greatest row comes first.
    pub descending: bool,
}

/// The position of a row in its list: the values of the columns in [`List::order`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Vec<Part>);

/// The value of one column in a [`Position`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Int(i64),
    /// A text that is not empty. Texts are compared byte by byte.
    Text(String),
}

/// The checked arguments of a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    size: usize,
    /// The page consists of the last rows instead of the first.
    backward: bool,
    after: Option<Position>,
    before: Option<Position>,
}

/// The rows of a page, in the order of the list.
#[derive(Clone, Debug)]
pub struct Slice<T> {
    /// At most as many rows as requested.
    pub rows: Vec<T>,
    /// Whether the list has rows before the page.
    pub has_previous: bool,
    /// Whether the list has rows after the page.
    pub has_next: bool,
}

/// A row of a list that is read by pages.
pub trait Listed: FromQueryResult + Send {
    const LIST: List;

    fn position(&self) -> Position;

    fn cursor(&self) -> String {
        Self::LIST.cursor(&self.position())
    }
}

/// A condition that the rows of a page must meet. It compares columns of the list row `s` with the columns of `r` that are
/// defined here. The page is read separately for each of `rows` and then merged, so that each read is one range of an index.
#[derive(Clone, Debug)]
pub struct Filter {
    /// SQL that begins with `AND`, or an empty text.
    pub sql: String,
    /// The columns of `r` that the condition uses.
    pub columns: Vec<(&'static str, Kind)>,
    /// The values of these columns. A list row must not match more than one of them. Without values, the page is empty.
    pub rows: Vec<Vec<Value>>,
}

impl Default for Filter {
    /// Returns a filter that all rows pass.
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
    pub fn parts(&self) -> &[Part] {
        &self.0
    }
}

impl List {
    /// Encodes a position as a cursor, which is opaque to clients.
    pub fn cursor(&self, position: &Position) -> String {
        let mut text = self.name.to_owned();
        for part in &position.0 {
            text.push(':');
            match part {
                Part::Int(int) => text.push_str(&int.to_string()),
                Part::Text(part) => text.push_str(part),
            }
        }
        opaque::encode(&text)
    }

    /// Decodes a cursor that [`Self::cursor`] returned. Returns `None` for any other text.
    pub fn position(&self, cursor: &str) -> Option<Position> {
        let text = opaque::decode(cursor)?;
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
                let wrong = || bad(&format!("`{name}` is not a cursor of this list"));
                self.position(&cursor).map(Some).ok_or_else(wrong)
            }
            None => Ok(None),
        };
        Ok(Page { size, backward, after: position("after", after)?, before: position("before", before)? })
    }
}

fn page_size(size: i32) -> Result<usize, Error> {
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SIZE);
    size.ok_or_else(|| bad(&format!("`first` and `last` must be 0 to {MAX_SIZE}")))
}

fn bad(message: &str) -> Error {
    Error::BadUserInput(message.to_owned())
}

impl Page {
    /// Whether the page consists of the last rows instead of the first.
    pub fn is_backward(&self) -> bool {
        self.backward
    }

    /// The position after which the page begins, in the order of the list.
    pub fn after(&self) -> Option<&Position> {
        self.after.as_ref()
    }

    /// The position before which the page ends, in the order of the list.
    pub fn before(&self) -> Option<&Position> {
        self.before.as_ref()
    }

    /// The number of rows to read: one more than requested, which shows whether the list has more.
    pub fn fetched(&self) -> usize {
        self.size + 1
    }

    /// Cuts the page out of the rows that were read. These are, in the order of the list, the first (if backward, the last)
    /// [`Self::fetched`] rows between the cursors.
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

    /// Cuts the page out of a whole list that is in memory. `rows` are in the order of the list.
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

/// Reads the same page of the list of each customer. This takes one statement, with one index search for each customer and each
/// row of the filter.
pub async fn of_customers<M: Listed>(
    db: &impl ConnectionTrait,
    customers: impl IntoIterator<Item = CustomerId>,
    page: &Page,
    filter: &Filter,
    owner: impl Fn(&M) -> CustomerId,
) -> Result<HashMap<CustomerId, Slice<M>>, Error> {
    let customers = customers.into_iter().map(|customer| (customer, filter.rows.clone())).collect();
    of_customers_each(db, customers, page, filter, owner).await
}

/// Like [`of_customers`], but the value of each customer replaces the rows of the filter.
pub async fn of_customers_each<M: Listed>(
    db: &impl ConnectionTrait,
    customers: HashMap<CustomerId, Vec<Vec<Value>>>,
    page: &Page,
    filter: &Filter,
    owner: impl Fn(&M) -> CustomerId,
) -> Result<HashMap<CustomerId, Slice<M>>, Error> {
    let mut by_customer: HashMap<CustomerId, Vec<M>> =
        customers.keys().map(|customer| (*customer, Vec::new())).collect();
    let parents = customers.into_iter().map(|(customer, rows)| (customer.0, rows)).collect();
    for row in read(db, Some("customer_id"), parents, page, filter).await? {
        by_customer.entry(owner(&row)).or_default().push(row);
    }
    Ok(by_customer.into_iter().map(|(customer, rows)| (customer, finish(page, rows))).collect())
}

/// Reads a page of a list that does not belong to a customer.
pub async fn of_root<M: Listed>(db: &impl ConnectionTrait, page: &Page, filter: &Filter) -> Result<Slice<M>, Error> {
    Ok(finish(page, read(db, None, vec![(0, filter.rows.clone())], page, filter).await?))
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
    parents: Vec<(i64, Vec<Vec<Value>>)>,
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
    for (parent, of_parent) in parents {
        let of_page = || columns[1..].iter().map(|(_, _, value)| value.clone());
        for of_filter in of_parent {
            rows.push(std::iter::once(parent.into()).chain(of_page()).chain(of_filter).collect());
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
            assert_eq!(LIST.position(&opaque::encode(text)), None, "{text}");
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
