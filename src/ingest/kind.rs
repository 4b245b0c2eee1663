//! Finds out what kind of file was given: its format, its delimiter and where its header is. A wrong kind of file is refused with one
//! sentence that says what it is and what to do.

use std::io::{BufRead, Read as _};

use super::format::BYTE_ORDER_MARK;
use super::map::Map;
use super::purchases::Purchases;
use super::rows::{MAX_ROW_BYTES, Row, Rows};
use super::shopify::Shopify;
use super::table::Header;
use super::woocommerce::WooCommerce;

/// The number of lines among which the header must be. Some programs write a title or a note above it.
const HEADER_LINES: usize = 20;
/// The delimiters that are found without a map, and those that only a map may state.
const DELIMITERS: [u8; 2] = [b',', b';'];
const OTHER_DELIMITERS: [u8; 2] = [b'\t', b'|'];

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON object on each line.
    Ndjson,
    /// CSV whose columns have the names of the fields.
    Csv,
    /// The orders export of Shopify.
    Shopify,
    /// The orders export of a plug-in of WooCommerce.
    WooCommerce,
    /// Delimited values for which there is a map.
    Mapped,
}

/// What was found out about a file.
pub(super) struct Found {
    pub(super) kind: Kind,
    /// Where the header is. `None` for NDJSON.
    pub(super) table: Option<Place>,
    /// The bytes that were read.
    pub(super) read: Vec<u8>,
}

/// Where the header of a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) delimiter: u8,
    pub(super) header: Header,
    /// The number of bytes up to the end of the header, and of lines.
    pub(super) bytes: u64,
    pub(super) lines: u64,
}

/// Reads the beginning of a file and finds out what it is. `wanted` is the kind that the caller named. `extension` decides where the
/// content does not.
pub(super) fn find_out(
    input: &mut impl BufRead,
    wanted: Option<Kind>,
    map: Option<&Map>,
    extension: &str,
) -> anyhow::Result<Found> {
    let may_be_json = map.is_none() && wanted.is_none_or(|wanted| wanted == Kind::Ndjson);
    let mut read = Vec::new();
    // The number of lines that are not blank.
    let mut lines = 0;
    loop {
        let from = read.len();
        let bytes = input.take(MAX_ROW_BYTES as u64 + 1).read_until(b'\n', &mut read)?;
        if lines == 0 {
            refuse_wrong_kind(&read)?;
        }
        let text = without_mark(&read[from..]).trim_ascii();
        if bytes > 0 && text.is_empty() {
            continue;
        }
        lines += usize::from(bytes > 0);
        if lines == 0 {
            anyhow::bail!("the file is empty: export it again");
        }
        // NDJSON may begin with comments.
        let is_json = text.starts_with(b"{") && has_only_comments(&read[..from]);
        if may_be_json && (is_json || wanted.is_some() || is_json_extension(extension)) {
            refuse_wrong_json(text)?;
            if !is_json && let Some((kind, _)) = find_header(&read, None, None)? {
                anyhow::bail!("the file is {}: leave out --format ndjson", kind.named());
            }
            return Ok(Found { kind: Kind::Ndjson, table: None, read });
        }
        if is_json {
            anyhow::bail!("the file has JSON on each line: leave out --map, and give --format ndjson");
        }
        if let Some((kind, table)) = find_header(&read, wanted, map)? {
            return Ok(Found { kind, table: Some(table), read });
        }
        if bytes == 0 || lines >= HEADER_LINES {
            return Err(no_header(&read, wanted, map));
        }
    }
}

fn has_only_comments(text: &[u8]) -> bool {
    let mut lines = without_mark(text).split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.all(|line| line.is_empty() || line.starts_with(b"#"))
}

/// Refuses JSON whose first line is only the beginning of an object.
fn refuse_wrong_json(first: &[u8]) -> anyhow::Result<()> {
    let is_open = || serde_json::from_slice::<serde::de::IgnoredAny>(first).is_err_and(|error| error.is_eof());
    if first == b"{" || (first.ends_with(b",") && is_open()) {
        anyhow::bail!("the file has JSON over several lines: write one object on each line, as `jq -c .` does");
    }
    Ok(())
}

fn is_json_extension(extension: &str) -> bool {
    ["ndjson", "jsonl", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// Refuses what no format of this program begins with.
fn refuse_wrong_kind(first: &[u8]) -> anyhow::Result<()> {
    let starts = |magic: &[u8]| first.starts_with(magic);
    if starts(b"\xff\xfe") || starts(b"\xfe\xff") || first.iter().take(64).any(|byte| *byte == 0) {
        anyhow::bail!("the file is UTF-16, or no text at all: save it as UTF-8 (in a spreadsheet: `CSV UTF-8`)");
    }
    if starts(b"PK\x03\x04") || starts(b"\xd0\xcf\x11\xe0") {
        anyhow::bail!("the file is a workbook of a spreadsheet or a ZIP archive: save it as `CSV UTF-8`, or unpack it");
    }
    if starts(b"%PDF") {
        anyhow::bail!("the file is a PDF: export the orders as CSV");
    }
    let text = without_mark(first).trim_ascii_start();
    if text.starts_with(b"<") {
        anyhow::bail!(
            "the file is HTML or XML, as an expired download link gives: download the export again, and open it in an editor first"
        );
    }
    if text.starts_with(b"[") {
        anyhow::bail!("the file is a JSON array: write one object on each line, as `jq -c '.[]'` does");
    }
    let is_one_line = !first.ends_with(b"\n") || first.len() > MAX_ROW_BYTES;
    if is_one_line && first.iter().filter(|byte| **byte == b'\r').count() > 1 {
        anyhow::bail!(
            "the lines of the file end with CR alone, as on very old systems: convert it, as with `tr '\\r' '\\n'`"
        );
    }
    Ok(())
}

/// Finds the header among the rows that were read.
fn find_header(read: &[u8], wanted: Option<Kind>, map: Option<&Map>) -> anyhow::Result<Option<(Kind, Place)>> {
    let (text, skipped, stated) = beginning(read);
    let by_map = map.and_then(Map::delimiter);
    let delimiters: Vec<u8> = match by_map.or(stated) {
        Some(delimiter) => vec![delimiter],
        None => DELIMITERS.into_iter().chain(OTHER_DELIMITERS).collect(),
    };
    for delimiter in delimiters {
        for (header, lines, bytes) in headers(text, delimiter) {
            let place = Place { delimiter, header, bytes: bytes + skipped.0, lines: lines + skipped.1 };
            let kind = match map {
                Some(map) => map.recognises(&place.header).then_some(Kind::Mapped),
                None => recognise(&place.header, wanted)?,
            };
            let Some(kind) = kind else { continue };
            if map.is_none() && OTHER_DELIMITERS.contains(&delimiter) {
                let name = if delimiter == b'\t' { "tabs" } else { "`|`" };
                anyhow::bail!(
                    "the file is separated by {name}: export it as CSV with commas, or give --map with the `delimiter`"
                );
            }
            return Ok(Some((kind, place)));
        }
    }
    Ok(None)
}

/// Skips the byte order mark and a line such as `sep=;`. Returns the rest, the number of bytes and lines that were skipped, and the
/// delimiter that the line states.
fn beginning(read: &[u8]) -> (&[u8], (u64, u64), Option<u8>) {
    let text = without_mark(read);
    let mark = (read.len() - text.len()) as u64;
    if let Some(rest) = text.strip_prefix(b"sep=")
        && let Some(end) = rest.iter().position(|byte| *byte == b'\n')
        && let [delimiter] = rest[..end].trim_ascii_end()
    {
        let bytes = 4 + end + 1;
        return (&text[bytes..], (mark + bytes as u64, 1), Some(*delimiter));
    }
    (text, (mark, 0), None)
}

/// Returns each row as if it were the header, with the number of lines and bytes up to its end.
fn headers(text: &[u8], delimiter: u8) -> Vec<(Header, u64, u64)> {
    let mut rows = Rows::new(text, delimiter, 1, 0);
    let (mut row, mut headers) = (Row::default(), Vec::new());
    while let Ok(true) = rows.read(&mut row) {
        let lines = row.text().iter().filter(|byte| **byte == b'\n').count() as u64;
        if let Ok(header) = Header::of(&row)
            && row.fault().is_none()
        {
            headers.push((header, row.number - 1 + lines.max(1), row.start + row.bytes));
        }
    }
    headers
}

/// Recognises a header. Fails for one that is known but cannot be imported.
fn recognise(header: &Header, wanted: Option<Kind>) -> anyhow::Result<Option<Kind>> {
    let found = if Shopify::recognises(header) {
        Some(Kind::Shopify)
    } else if WooCommerce::recognises(header) {
        Some(Kind::WooCommerce)
    } else if Purchases::recognises(header) {
        Some(Kind::Csv)
    } else {
        refuse_known(header)?;
        None
    };
    match (found, wanted) {
        (Some(found), Some(wanted)) if found != wanted => anyhow::bail!(
            "the header is that of {}, not of {}: give --format {}",
            found.named(),
            wanted.named(),
            found.option()
        ),
        _ => Ok(found),
    }
}

/// Refuses the files that people often bring in place of an orders export.
fn refuse_known(header: &Header) -> anyhow::Result<()> {
    if header.has_all(&["Order #", "Status", "Customer"]) {
        anyhow::bail!(
            "the file is WooCommerce's Analytics report, which has neither a customer's key nor a currency: export the orders with \
             Customer/Order/Coupon Export or with WebToffee's plug-in"
        );
    }
    if header.has_all(&["Order Number", "Order Status", "Order Date"]) {
        anyhow::bail!(
            "the file is of Advanced Order Export, whose columns each shop chooses: give --map, as docs/import.md shows"
        );
    }
    if header.has_all(&["First Name", "Last Name", "Email"]) || header.has_all(&["first_name", "last_name", "email"]) {
        anyhow::bail!("the file has customers, not orders: export the orders");
    }
    if header.has_all(&["Handle", "Title"]) {
        anyhow::bail!("the file has products, not orders: export the orders");
    }
    Ok(())
}

fn no_header(read: &[u8], wanted: Option<Kind>, map: Option<&Map>) -> anyhow::Error {
    let (text, _, stated) = beginning(read);
    let delimiter = map.and_then(Map::delimiter).or(stated).unwrap_or(b',');
    if let Some(map) = map {
        let headers = headers(text, delimiter);
        let nearest = headers.iter().map(|(header, ..)| map.missing(header)).min_by_key(Vec::len).unwrap_or_default();
        return anyhow::anyhow!(
            "no header with the map's columns in the first {HEADER_LINES} lines: the nearest lacks `{}`",
            nearest.join("`, `")
        );
    }
    let what = match wanted {
        Some(kind) => format!("no header of {} in the first {HEADER_LINES} lines", kind.named()),
        None => "the format cannot be told".to_owned(),
    };
    let first: Vec<u8> = text.iter().copied().take_while(|byte| *byte != b'\n').take(80).collect();
    anyhow::anyhow!(
        "{what}: the file begins with `{}`. Known are the orders exports of Shopify and of WooCommerce's plug-ins, CSV with the columns \
         externalId, customerExternalId, purchasedAt, total and currency, and NDJSON; for anything else, give --map",
        String::from_utf8_lossy(&first).trim()
    )
}

impl Kind {
    /// Returns a name for people.
    pub fn named(self) -> &'static str {
        match self {
            Self::Ndjson => "NDJSON",
            Self::Csv => "Windfall's CSV",
            Self::Shopify => "Shopify's orders export",
            Self::WooCommerce => "an orders export of WooCommerce",
            Self::Mapped => "a file with a map",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Shopify => "shopify",
            Self::WooCommerce => "woocommerce",
            Self::Csv | Self::Mapped => "csv",
        }
    }

    /// Whether a file of this kind has the state of orders, not single events.
    pub fn is_export(self) -> bool {
        matches!(self, Self::Shopify | Self::WooCommerce | Self::Mapped)
    }
}
