//! The options of `windfall import` that say what a file is and what is decided about its orders.

use anyhow::Context as _;
use std::path::PathBuf;

use crate::engine::time::{Instant, parse_instant};
use crate::engine::zone::Zone;
use crate::ingest::Cells;
use crate::ingest::file::Settings;
use crate::ingest::kind::Kind;
use crate::ingest::map::Map;
use crate::ingest::order::{Decisions, OrderKey, Total, When};

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Shopify,
    #[value(name = "woocommerce")]
    WooCommerce,
    Csv,
    Ndjson,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum TotalOption {
    #[default]
    Order,
    Goods,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum InstantOption {
    #[default]
    Created,
    Paid,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum KeyOption {
    #[default]
    Name,
    Id,
}

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// What the file is. Default: what its first lines show.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// A TOML file that says which column is which field, for a file that no format fits. See docs/import.md.
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// When the file was exported, as RFC 3339. Its orders are recorded as they were then. Default: the newest instant in the file.
    #[arg(long, value_name = "INSTANT", value_parser = parse_instant)]
    as_of: Option<Instant>,
    /// Which total of an order counts: the whole, or the goods alone, without shipping.
    #[arg(long, value_name = "WHICH", default_value = "order")]
    total: TotalOption,
    /// When a purchase was made: when the order was created, or when it was paid.
    #[arg(long, value_name = "WHICH", default_value = "created")]
    instant: InstantOption,
    /// Which column is the external id of a purchase: the order's name or number, or the shop system's own id.
    #[arg(long, value_name = "WHICH", default_value = "name")]
    order_key: KeyOption,
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
            (None | Some(Format::Csv), Some(_)) => Some(Kind::Mapped),
            (Some(_), Some(_)) => anyhow::bail!("--map is for CSV: leave out --format"),
            (None, None) => None,
            (Some(Format::Shopify), None) => Some(Kind::Shopify),
            (Some(Format::WooCommerce), None) => Some(Kind::WooCommerce),
            (Some(Format::Csv), None) => Some(Kind::Csv),
            (Some(Format::Ndjson), None) => Some(Kind::Ndjson),
        };
        let cells = Cells { decimal_comma: self.decimal_comma, zone: self.time_zone, instant_format: None };
        let decisions = Decisions {
            cells,
            total: match self.total {
                TotalOption::Order => Total::Order,
                TotalOption::Goods => Total::Goods,
            },
            when: match self.instant {
                InstantOption::Created => When::Created,
                InstantOption::Paid => When::Paid,
            },
            order_key: match self.order_key {
                KeyOption::Name => OrderKey::Name,
                KeyOption::Id => OrderKey::Id,
            },
            counted_statuses: self.count_status,
            may_move: self.may_move,
            as_of: self.as_of,
            ..Decisions::default()
        };
        if map.is_some()
            && (decisions.total, decisions.when, decisions.order_key) != <(Total, When, OrderKey)>::default()
        {
            return Err(anyhow::anyhow!(
                "--total, --instant and --order-key do not apply to a map, which names the columns"
            ))
            .context("the options do not fit together");
        }
        Ok(Settings { kind, map, decisions, keeps_lines })
    }
}
