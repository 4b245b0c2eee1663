//! The options of `windfall import` that say what a file is and what is decided about its orders.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::engine::time::{Instant, parse_instant};
use crate::engine::zone::Zone;
use crate::ingest::Cells;
use crate::ingest::file::Settings;
use crate::ingest::kind::Kind;
use crate::ingest::map::Map;
use crate::ingest::order::{Decisions, OrderKey, Total, When};

/// Returns a parser that accepts these names, each of which stands for a value.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [(&'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let value_of = move |text: String| values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    PossibleValuesParser::new(values.map(|(name, _)| name)).try_map(move |text| value_of(text).ok_or(std::fmt::Error))
}

fn formats() -> impl TypedValueParser<Value = Kind> {
    one_of([
        ("shopify", Kind::Shopify),
        ("woocommerce", Kind::WooCommerce),
        ("csv", Kind::Csv),
        ("ndjson", Kind::Ndjson),
    ])
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// What the file is. Default: what its first lines show.
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    format: Option<Kind>,
    /// A TOML file that says which column is which field, for a file that no format fits. See docs/import.md.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// When the file was exported, as RFC 3339. Its orders are recorded as they were then. Default: the newest instant in the file.
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<Instant>,
    /// Which total of an order counts: the whole, or the goods alone, without shipping.
    #[arg(long, value_name = "WHICH", default_value = "order", value_parser = one_of([("order", Total::Order), ("goods", Total::Goods)]))]
    total: Total,
    /// When a purchase was made: when the order was created, or when it was paid.
    #[arg(long, value_name = "WHICH", default_value = "created", value_parser = one_of([("created", When::Created), ("paid", When::Paid)]))]
    instant: When,
    /// Which column is the external id of a purchase: the order's name or number, or the shop system's own id.
    #[arg(long, value_name = "WHICH", default_value = "name", value_parser = one_of([("name", OrderKey::Name), ("id", OrderKey::Id)]))]
    order_key: OrderKey,
    /// The time zone of times without an offset, such as Europe/Vienna.
    #[arg(long, value_name = "ZONE", value_parser = Zone::parse)]
    time_zone: Option<Zone>,
    /// Amounts are written with a decimal comma.
    #[arg(long)]
    decimal_comma: bool,
    /// Count orders with this status too. Can be given several times.
    #[arg(long, value_name = "STATUS")]
    count_status: Vec<String>,
    /// Hand an order that is recorded under another customer over to the customer of the file. Default: leave it out.
    #[arg(long = "move")]
    may_move: bool,
}

impl Options {
    /// Returns the settings for reading the file. `keeps_lines` says whether its lines must be readable again.
    pub(super) fn settings(self, keeps_lines: bool) -> anyhow::Result<Settings> {
        let map = self.map.as_deref().map(Map::read).transpose()?;
        let kind = match (self.format, &map) {
            (None | Some(Kind::Csv), Some(_)) => Some(Kind::Mapped),
            (Some(_), Some(_)) => anyhow::bail!("--map is for CSV: leave out --format"),
            (format, None) => format,
        };
        let cells = Cells { decimal_comma: self.decimal_comma, zone: self.time_zone, instant_format: None };
        let decisions = Decisions {
            cells,
            total: self.total,
            when: self.instant,
            order_key: self.order_key,
            counted_statuses: self.count_status,
            may_move: self.may_move,
            as_of: self.as_of,
            ..Decisions::default()
        };
        if map.is_some()
            && (decisions.total, decisions.when, decisions.order_key) != <(Total, When, OrderKey)>::default()
        {
            anyhow::bail!("--total, --instant and --order-key do not apply to a map, which names the columns");
        }
        Ok(Settings { kind, map, decisions, keeps_lines })
    }
}
