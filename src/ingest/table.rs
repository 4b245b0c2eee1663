//! A file with a header and rows. One or several rows make up a purchase; the layout of the columns decides.

use std::collections::HashMap;
use std::io::BufRead;

use super::cell::NO_ZONE;
use super::format::{BYTE_ORDER_MARK, Format, Span};
use super::hash_of;
use super::order::Seen;
use super::record::Parsed;
use super::rows::{MAX_ROW_BYTES, Row, Rows};
use crate::app::clock::Clock;
use crate::engine::time::Instant;

/// The column that the file of rejected lines has in addition. It is ignored, so that the file can be imported once it is mended.
pub(super) const REJECTED_BECAUSE: &str = "rejectedBecause";
/// The maximum number of faulty orders whose fault is kept from the first pass over a file. They take some 10 MiB. Beyond it, the fault
/// is found again in the rows alone.
const MAX_FAULTS: usize = 50_000;
/// The maximum number of orders for which the rows of others are found that are not together. They take some 48 MiB.
const MAX_GROUPS: usize = 1 << 20;

/// The names of the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    names: Vec<String>,
}

impl Header {
    pub(super) fn named(names: Vec<String>) -> Self {
        Self { names }
    }

    /// Reads the names from a row. Spaces around them do not count.
    pub(super) fn of(row: &Row) -> Result<Self, String> {
        let name = |index| Ok(row.cell(index)?.unwrap_or_default().trim_start_matches('\u{feff}').trim().to_owned());
        let names = (0..row.len()).map(name).collect::<Result<_, String>>()?;
        Ok(Self { names })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns the place of a column. Upper and lower case do not matter.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known.eq_ignore_ascii_case(name))
    }

    /// Returns the place of the first of these columns that the file has.
    pub(super) fn find_one(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.find(name))
    }

    pub(super) fn has_all(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.find(name).is_some())
    }

    /// Returns the first of these columns that the header names twice.
    pub(super) fn twice<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        let count = |name: &str| self.names.iter().filter(|known| known.eq_ignore_ascii_case(name)).count();
        names.iter().copied().find(|name| count(name) > 1)
    }

    /// Whether the row repeats the header, as in files that were put together. Fails if it has the same names in another order.
    pub(super) fn is_repeated_by(&self, row: &Row) -> anyhow::Result<bool> {
        let first = row.raw(0);
        let first = first.strip_prefix(BYTE_ORDER_MARK).unwrap_or(first).trim_ascii();
        if row.len() != self.names.len() || !self.names.iter().any(|name| name.as_bytes() == first) {
            return Ok(false);
        }
        let Ok(mut header) = Self::of(row) else { return Ok(false) };
        if header == *self {
            return Ok(true);
        }
        let mut own = self.names.clone();
        own.sort_unstable();
        header.names.sort_unstable();
        anyhow::ensure!(
            header.names != own,
            "line {} has the columns in another order than the header: import the files one by one",
            row.number
        );
        Ok(false)
    }
}

/// What the columns of a file mean.
pub(super) trait Layout: Send {
    /// Returns the name of the order to which a row belongs; empty if it is not known. Returns `None` if the row stands alone.
    fn order_name<'a>(&self, _: &'a Row) -> Option<&'a [u8]> {
        None
    }

    /// Whether a row goes on with the order of these rows, which has the same name.
    fn continues(&self, _: &[Row], _: &Row) -> bool {
        false
    }

    /// Whether rows that begin with this one may be a part of an order whose other rows stand elsewhere.
    fn may_be_part(&self, _: &Row) -> bool {
        false
    }

    /// Returns when the purchase that begins with this row was made, or why that cannot be said.
    fn made_at(&self, row: &Row) -> Result<Instant, String>;

    /// Returns the newest of all instants of a row.
    fn newest(&self, row: &Row) -> Option<Instant>;

    /// Parses the rows of an order. `seen` has the orders before it.
    fn parse(&self, rows: &[Row], seen: &mut Seen, clock: &Clock) -> Result<Parsed, String>;
}

/// Returns the text of a cell; empty if the file does not have the column.
pub(super) fn text(row: &Row, column: Option<usize>) -> Result<String, String> {
    let cell = column.map(|column| row.cell(column)).transpose()?.flatten();
    Ok(cell.map(std::borrow::Cow::into_owned).unwrap_or_default())
}

/// Refuses rows that are the same several times over: a copy of the order cannot be told from items that were bought twice.
pub(super) fn refuse_repeated(rows: &[Row]) -> Result<(), String> {
    let text = |index: usize| rows[index].text().trim_ascii_end();
    for length in 1..=rows.len() / 2 {
        let is_copy = || (length..rows.len()).all(|index| text(index) == text(index - length));
        if rows.len().is_multiple_of(length) && text(length) == text(0) && is_copy() {
            return Err(
                "has the same rows several times: remove the copy, or write the item once with its whole quantity"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Checks that a row has as many cells as the header.
fn check_width(header: &Header, row: &Row) -> Result<(), String> {
    match row.fault() {
        Some(fault) => Err(fault.to_owned()),
        None if row.len() != header.len() => {
            Err(format!("has {} cells where the header has {}", row.len(), header.len()))
        }
        None => Ok(()),
    }
}

/// A file with a header.
pub(super) struct Table<R> {
    rows: Rows<R>,
    delimiter: u8,
    header: Header,
    layout: Box<dyn Layout>,
    /// The rows of the order that was read last.
    order: Vec<Row>,
    /// The row after them.
    next: Option<Row>,
    /// The bytes of the order that was read last.
    bytes: u64,
    /// What is wrong with the rows of orders, by the number of their first line.
    faults: HashMap<u64, String>,
    /// The groups of rows, by the hash of their order's name.
    groups: HashMap<u64, Group>,
    seen: Seen,
}

/// Rows of one order that are together.
struct Group {
    /// The number of the first line.
    number: u64,
    /// The hash of the rows.
    content: u64,
    may_be_part: bool,
}

impl<R: BufRead> Table<R> {
    /// Reads the rows behind the header.
    pub(super) fn new(rows: Rows<R>, delimiter: u8, header: Header, layout: Box<dyn Layout>) -> Self {
        Self {
            rows: rows.of_width(header.len()),
            delimiter,
            header,
            layout,
            order: Vec::new(),
            next: None,
            bytes: 0,
            faults: HashMap::new(),
            groups: HashMap::new(),
            seen: Seen::default(),
        }
    }

    /// Reads the next row that has content and is not the header once more.
    fn read(&mut self, mut row: Row) -> anyhow::Result<Option<Row>> {
        while self.rows.read(&mut row)? {
            if !row.is_blank() && !self.header.is_repeated_by(&row)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Returns the newest instant that the orders name, but none after `now`. Reads to the end. Fails if an instant needs a time zone
    /// that the caller did not give, because most others need it too.
    pub(super) fn newest(&mut self, now: Instant) -> anyhow::Result<Option<Instant>> {
        let (mut newest, mut row) = (None, Row::default());
        while let Some(read) = self.read(row)? {
            row = read;
            if let Err(reason) = self.layout.made_at(&row)
                && reason == NO_ZONE
            {
                anyhow::bail!("the time on line {} {reason}", row.number);
            }
            newest = newest.max(self.layout.newest(&row).filter(|at| *at <= now));
        }
        Ok(newest)
    }

    /// Notes the rows that were read last. If rows of the same order stand elsewhere and are no copy, neither of them is the whole
    /// order, so both are faulty.
    fn note_group(&mut self) {
        let Some(first) = self.order.first() else { return };
        let Some(name) = self.layout.order_name(first).filter(|name| !name.is_empty()) else { return };
        let (name, number, may_be_part) = (hash_of(name), first.number, self.layout.may_be_part(first));
        let content = hash_of(self.order.iter().map(|row| row.text().trim_ascii_end()).collect::<Vec<_>>());
        match self.groups.get(&name) {
            Some(group) if group.content != content && (may_be_part || group.may_be_part) => {
                let earlier = group.number;
                let fault = |here: u64, there: u64| {
                    format!("the rows of this order are not together: they are on lines {here} and {there}")
                };
                self.note_fault(earlier, fault(earlier, number));
                self.note_fault(number, fault(number, earlier));
            }
            None if self.groups.len() < MAX_GROUPS => {
                self.groups.insert(name, Group { number, content, may_be_part });
            }
            _ => {}
        }
    }

    fn note_fault(&mut self, number: u64, fault: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.entry(number).or_insert(fault);
        }
    }

    fn fault(&self, rows: &[Row]) -> Option<String> {
        let is_long_row = rows.len() == 1 && rows[0].fault().is_some();
        if self.bytes > MAX_ROW_BYTES as u64 + 1 && !is_long_row {
            return Some(format!("is an order of more than {MAX_ROW_BYTES} bytes"));
        }
        rows.iter().find_map(|row| check_width(&self.header, row).err())
    }
}

impl<R: BufRead> Format for Table<R> {
    fn advance(&mut self) -> anyhow::Result<Option<Span>> {
        let spare = self.order.pop().unwrap_or_default();
        self.order.clear();
        let first = match self.next.take() {
            Some(row) => row,
            None => match self.read(spare)? {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let (number, start) = (first.number, first.start);
        let mut end = first.start + first.bytes;
        self.order.push(first);
        if let Some(name) = self.layout.order_name(&self.order[0]).map(<[u8]>::to_vec) {
            while let Some(row) = self.read(Row::default())? {
                let is_of_order = !name.is_empty() && self.layout.order_name(&row) == Some(&name);
                if !is_of_order || !self.layout.continues(&self.order, &row) {
                    self.next = Some(row);
                    break;
                }
                end = row.start + row.bytes;
                // An order that is too long is refused. Its other rows are not needed.
                if end - start <= MAX_ROW_BYTES as u64 {
                    self.order.push(row);
                }
            }
        }
        self.bytes = end - start;
        match self.fault(&self.order) {
            Some(fault) => self.note_fault(number, fault),
            None => self.note_group(),
        }
        Ok(Some(Span { number, start, bytes: self.bytes }))
    }

    fn made_at(&self) -> Option<i64> {
        self.layout.made_at(self.order.first()?).ok().map(|at| at.0)
    }

    fn record(&mut self, clock: &Clock) -> Result<Parsed, String> {
        let kept = self.order.first().and_then(|row| self.faults.remove(&row.number));
        match kept.or_else(|| self.fault(&self.order)) {
            Some(fault) => Err(fault),
            None => self.layout.parse(&self.order, &mut self.seen, clock),
        }
    }

    fn parse(&mut self, span: Span, text: &[u8], clock: &Clock) -> Result<Parsed, String> {
        if let Some(fault) = self.faults.remove(&span.number) {
            return Err(fault);
        }
        let mut rows = Rows::new(text, self.delimiter, span.number, span.start).of_width(self.header.len());
        let mut order = Vec::new();
        let mut row = Row::default();
        while rows.read(&mut row).map_err(|error| error.to_string())? {
            if !row.is_blank() && !self.header.is_repeated_by(&row).map_err(|error| error.to_string())? {
                order.push(std::mem::take(&mut row));
            }
        }
        self.bytes = span.bytes;
        match self.fault(&order) {
            Some(fault) => Err(fault),
            None => self.layout.parse(&order, &mut self.seen, clock),
        }
    }
}
