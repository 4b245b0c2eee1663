//! Orders of the shop's own in JSON. The columns of a map are then paths: `order.id` is the field `id` of the object `order`, and
//! `items[].sku` is the field `sku` of each object of the list `items`. A message is read like the rows of an order in a file: one row for
//! each item of the list.

use std::path::Path as File;

use anyhow::Context as _;
use serde_json::Value;

use super::map::{Map, Mapped};
use super::order::{Decisions, Seen};
use super::record::Parsed;
use super::rows::Row;
use super::table::{Header, Layout as _};
use crate::app::clock::Clock;

/// The mark of a list in a path.
const EACH: &str = "[]";
/// The maximum number of items of a list. A purchase has at most 500 lines.
const MAX_ITEMS: usize = 10_000;

/// A map for messages.
pub struct JsonMap {
    columns: Vec<Column>,
    layout: Mapped,
}

/// Where the value of a column is.
#[derive(Debug, PartialEq, Eq)]
struct Column {
    path: String,
    /// The names up to the list. `None`: the value is in no list.
    list: Option<Vec<String>>,
    /// The names from the message, or from an item of the list.
    names: Vec<String>,
}

impl JsonMap {
    /// Reads and checks the map in a file.
    pub fn read(file: &File) -> anyhow::Result<Self> {
        Self::new(Map::read(file)?).with_context(|| format!("the map {} is not usable", file.display()))
    }

    fn new(map: Map) -> anyhow::Result<Self> {
        let columns = map.columns().map(Column::parse).collect::<anyhow::Result<Vec<_>>>()?;
        let mut lists = columns.iter().filter_map(|column| column.list.as_ref());
        if let Some(first) = lists.next() {
            anyhow::ensure!(lists.all(|list| list == first), "all paths with `{EACH}` must be of the same list");
        }
        let header = Header::named(columns.iter().map(|column| column.path.clone()).collect());
        // A message is one event, so it can hand an order over to another customer.
        let decisions = Decisions { may_move: true, ..Decisions::default() };
        Ok(Self { layout: Mapped::new(&header, map, decisions)?, columns })
    }

    /// Parses the value of a message.
    pub(super) fn parse(&self, json: &[u8], clock: &Clock) -> Result<Parsed, String> {
        let message: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let list = self.columns.iter().find_map(|column| column.list.as_ref());
        let items: Vec<&Value> = match list.map(|list| find(&message, list)) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) if items.len() <= MAX_ITEMS => items.iter().collect(),
            Some(Value::Array(_)) => return Err(format!("has more than {MAX_ITEMS} items")),
            Some(_) => return Err(format!("{} is no list", list.map(|list| list.join(".")).unwrap_or_default())),
        };
        // Without an item, the row has the fields of the order alone.
        let items = if items.is_empty() { vec![&Value::Null] } else { items };
        let row = |(index, item): (usize, &&Value)| {
            let cell = |column: &Column| {
                let root = if column.list.is_some() { item } else { &message };
                text(find(root, &column.names)).map_err(|reason| format!("{}: {reason}", column.path))
            };
            let cells = self.columns.iter().map(cell).collect::<Result<Vec<String>, String>>()?;
            Ok(Row::of(index as u64 + 1, &cells))
        };
        let rows = items.iter().enumerate().map(row).collect::<Result<Vec<Row>, String>>()?;
        self.layout.parse(&rows, &mut Seen::default(), clock)
    }
}

impl Column {
    fn parse(path: &str) -> anyhow::Result<Self> {
        let names = |path: &str| -> anyhow::Result<Vec<String>> {
            let names: Vec<String> = path.split('.').map(str::to_owned).collect();
            let is_name = |name: &String| !name.is_empty() && !name.contains(['[', ']']);
            anyhow::ensure!(
                names.iter().all(is_name),
                "`{path}` is no path: write one such as order.id or items[].sku"
            );
            Ok(names)
        };
        let inner = path.strip_prefix("$.").unwrap_or(path);
        let (list, rest) = match inner.split_once(EACH) {
            Some((list, rest)) => (Some(names(list)?), rest.strip_prefix('.').unwrap_or_default()),
            None => (None, inner),
        };
        Ok(Self { path: path.to_owned(), list, names: names(rest)? })
    }
}

/// Returns the value at these names; null if there is none.
fn find<'a>(root: &'a Value, names: &[String]) -> &'a Value {
    names.iter().fold(root, |value, name| value.get(name).unwrap_or(&Value::Null))
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Array(_) | Value::Object(_) => Err("is a list or an object: map what is in it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ingest::record::Record;

    fn map(columns: &str) -> anyhow::Result<JsonMap> {
        let map: Map = toml::from_str(&format!("currency = \"EUR\"\n[columns]\n{columns}"))?;
        JsonMap::new(map)
    }

    const COLUMNS: &str = "\"order.id\" = \"externalId\"\n\"$.buyer\" = \"customerExternalId\"\n\"order.at\" = \"purchasedAt\"\n\
        sum = \"total\"\n\"order.items[].sku\" = \"lines.sku\"\n\"order.items[].price\" = \"lines.price\"\n\
        \"order.items[].n\" = \"lines.quantity\"\n";

    #[test]
    fn paths_find_the_fields_of_an_order() {
        let map = map(COLUMNS).unwrap();
        let item = json!({ "sku": "tea", "price": 2.5, "n": 2 });
        let message = json!({
            "order": { "id": 1001, "at": "2026-01-01T00:00:00Z", "items": [item, item, { "sku": "cup", "price": "4", "n": 1 }] },
            "buyer": "ada", "sum": 14, "other": { "deep": [1] },
        });
        let parsed = map.parse(message.to_string().as_bytes(), &Clock::System).unwrap();
        let Record::Purchase(purchase) = parsed.record else { panic!("no purchase") };
        assert_eq!(&*purchase.purchase.key.external_id, "1001");
        assert_eq!((&*purchase.customer_external_id, purchase.purchase.total), ("ada", 1_400));
        let lines: Vec<_> =
            purchase.purchase.lines.iter().map(|line| (&*line.sku, line.quantity, line.amount)).collect();
        assert_eq!(lines, [("tea", 2, 500), ("tea", 2, 500), ("cup", 1, 400)]);
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused() {
        let map = map(COLUMNS).unwrap();
        for (message, reason) in [
            (json!({ "order": { "id": { "a": 1 } } }), "order.id: is a list or an object"),
            (json!({ "order": { "items": 5 } }), "order.items is no list"),
            (json!([]), "names no order"),
        ] {
            let told = map.parse(message.to_string().as_bytes(), &Clock::System).unwrap_err();
            assert!(told.contains(reason), "{message}: {told}");
        }
        assert!(map.parse(b"{", &Clock::System).is_err());
    }

    #[test]
    fn a_map_that_is_no_use_is_refused() {
        let others = "b = \"customerExternalId\"\nc = \"purchasedAt\"\nd = \"total\"\n";
        for id in ["\"a..b\"", "\"a[0]\"", "\"\"", "\"a[]\""] {
            let told = map(&format!("{id} = \"externalId\"\n{others}")).err().map(|error| error.to_string());
            assert!(told.is_some_and(|told| told.contains("is no path")), "{id}");
        }
        let lists = format!("{others}a = \"externalId\"\n\"x[].s\" = \"lines.sku\"\n\"y[].p\" = \"lines.price\"\n");
        assert!(map(&lists).err().is_some_and(|error| error.to_string().contains("the same list")));
    }
}
