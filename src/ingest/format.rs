//! The formats of a file: NDJSON, and CSV with a header. A format splits its input into lines and parses them.

use std::fs::File;
use std::io::{BufRead, Read as _};

use serde::Deserialize;

use super::record::{Record, parse_json, parse_row};
use crate::app::clock::Clock;
use crate::app::purchase::parse_micros;

/// The longest line, in bytes. A purchase with 500 lines whose names have the maximum length fits.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;
/// The number of bytes that are read at a time.
pub(super) const BUFFER_BYTES: usize = 1 << 18;

/// Where a line is in its input.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// The line's number, from 1.
    pub(super) number: u64,
    /// The position of the line's first byte.
    pub(super) start: u64,
    /// The number of bytes of the line.
    pub(super) bytes: u64,
}

/// A format of a file.
pub(super) trait Format {
    /// Reads the next line that is not blank. Returns where it is, or `None` at the end of the input.
    fn advance(&mut self) -> anyhow::Result<Option<Span>>;

    /// Returns when the purchase or refund of the line that was read last was made, in µs, if the line says so.
    fn made_at(&self) -> Option<i64>;

    /// Parses the line that was read last.
    fn record(&self, clock: &Clock) -> Result<Record, String>;

    /// Parses a line from its bytes, of which no more than [`MAX_LINE_BYTES`] and one are needed.
    fn parse(&self, span: Span, text: &[u8], clock: &Clock) -> Result<Record, String>;
}

/// A JSON object on each line.
pub(super) struct Ndjson<R> {
    input: R,
    last: Span,
    text: Vec<u8>,
}

impl<R: BufRead> Ndjson<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, last: Span { number: 0, start: 0, bytes: 0 }, text: Vec::new() }
    }
}

/// The instant of a line. Everything else is ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dated<'a> {
    #[serde(borrow)]
    purchased_at: Option<&'a str>,
    #[serde(borrow)]
    refund: Option<Refunded<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refunded<'a> {
    refunded_at: Option<&'a str>,
}

impl<R: BufRead> Format for Ndjson<R> {
    fn advance(&mut self) -> anyhow::Result<Option<Span>> {
        loop {
            self.text.clear();
            let Span { number, start, bytes } = self.last;
            let mut read = self.input.by_ref().take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(None);
            }
            if !self.text.ends_with(b"\n") && read > MAX_LINE_BYTES {
                read += self.input.skip_until(b'\n')?;
            }
            self.last = Span { number: number + 1, start: start + bytes, bytes: read as u64 };
            if !trimmed(self.last, &self.text).is_empty() {
                return Ok(Some(self.last));
            }
        }
    }

    fn made_at(&self) -> Option<i64> {
        let Dated { purchased_at, refund } = serde_json::from_slice(trimmed(self.last, &self.text)).ok()?;
        parse_micros(match refund {
            Some(refund) => refund.refunded_at?,
            None => purchased_at?,
        })
    }

    fn record(&self, clock: &Clock) -> Result<Record, String> {
        self.parse(self.last, &self.text, clock)
    }

    fn parse(&self, span: Span, text: &[u8], clock: &Clock) -> Result<Record, String> {
        if text.len() > MAX_LINE_BYTES && !text.ends_with(b"\n") {
            return Err(too_long());
        }
        parse_json(trimmed(span, text), clock)
    }
}

fn too_long() -> String {
    format!("is longer than {MAX_LINE_BYTES} bytes")
}

/// Returns the line without white space around it. Some spreadsheets write a byte order mark first.
fn trimmed(span: Span, text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").filter(|_| span.number == 1).unwrap_or(text).trim_ascii()
}

const COLUMNS: [&str; 10] = [
    "externalId",
    "customerExternalId",
    "purchasedAt",
    "total",
    "currency",
    "channel",
    "lines",
    "revision",
    "refunded",
    "refundedUntil",
];
const REQUIRED_COLUMNS: usize = 5;

/// Comma-separated values. The first line names the columns.
pub(super) struct Csv {
    input: csv::Reader<std::io::Chain<File, &'static [u8]>>,
    header: csv::StringRecord,
    row: csv::ByteRecord,
}

impl Csv {
    /// Fails if the header is not usable.
    pub(super) fn new(input: File) -> anyhow::Result<Self> {
        // The appended line feed ends the last record as well. So every record ends with a line feed, and the number of its
        // first line can be computed from the position after the record.
        let mut input = reader().trim(csv::Trim::Headers).from_reader(input.chain(&b"\n"[..]));
        let header = input.headers()?.clone();
        check_header(&header)?;
        Ok(Self { input, header, row: csv::ByteRecord::new() })
    }
}

fn reader() -> csv::ReaderBuilder {
    let mut reader = csv::ReaderBuilder::new();
    reader.buffer_capacity(BUFFER_BYTES).terminator(csv::Terminator::Any(b'\n')).flexible(true);
    reader
}

impl Format for Csv {
    fn advance(&mut self) -> anyhow::Result<Option<Span>> {
        loop {
            let start = self.input.position().byte();
            if !self.input.read_byte_record(&mut self.row)? {
                return Ok(None);
            }
            if self.row.len() == 1 && self.row[0].trim_ascii().is_empty() {
                continue;
            }
            let line_feeds = self.row.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
            let number = self.input.position().line().saturating_sub(1 + line_feeds);
            return Ok(Some(Span { number, start, bytes: self.input.position().byte() - start }));
        }
    }

    fn made_at(&self) -> Option<i64> {
        let column = self.header.iter().position(|name| name == "purchasedAt")?;
        parse_micros(std::str::from_utf8(self.row.get(column)?).ok()?.trim_end_matches('\r'))
    }

    fn record(&self, clock: &Clock) -> Result<Record, String> {
        if self.row.as_slice().len() > MAX_LINE_BYTES {
            return Err(too_long());
        }
        parse_row(&self.row, &self.header, clock)
    }

    fn parse(&self, _: Span, text: &[u8], clock: &Clock) -> Result<Record, String> {
        if text.len() > MAX_LINE_BYTES {
            return Err(too_long());
        }
        let mut row = csv::ByteRecord::new();
        let mut input = reader().buffer_capacity(text.len()).has_headers(false).from_reader(text);
        input.read_byte_record(&mut row).map_err(|error| error.to_string())?;
        parse_row(&row, &self.header, clock)
    }
}

fn check_header(header: &csv::StringRecord) -> anyhow::Result<()> {
    if let Some(unknown) = header.iter().find(|name| !COLUMNS.contains(name)) {
        anyhow::bail!("the header names a column `{unknown}`; the known columns are {}", COLUMNS.join(", "));
    }
    let count = |column: &str| header.iter().filter(|name| *name == column).count();
    if let Some(twice) = COLUMNS.iter().find(|column| count(column) > 1) {
        anyhow::bail!("the header names the column `{twice}` twice");
    }
    if let Some(missing) = COLUMNS[..REQUIRED_COLUMNS].iter().find(|column| count(column) == 0) {
        anyhow::bail!("the header has no column `{missing}`");
    }
    Ok(())
}
