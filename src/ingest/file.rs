//! Lines of a file, read and checked in order: NDJSON, or CSV with a header.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::app::clock::Clock;
use crate::app::error::Error;
use crate::app::purchase::{PurchaseLine, RecordPurchase};
use crate::app::recorder::fact::NewPurchase;
use crate::app::refund::RecordRefund;

/// The longest line, in bytes: 500 lines of the longest names fit.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Read at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// A line of the file.
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// Where it ends, for the progress bar.
    pub(super) end_byte: u64,
    /// What it says, or why it is skipped.
    pub(super) record: Result<Record, String>,
}

/// What a line says.
pub(super) enum Record {
    Purchase(Box<NewPurchase>),
    Refund(Box<RecordRefund>),
}

/// `{"refund": {…}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundRecord {
    refund: RecordRefund,
}

/// How many bytes there are to read, where that is known.
pub(super) fn length(file: &Path) -> anyhow::Result<Option<u64>> {
    if file == Path::new("-") {
        return Ok(None);
    }
    let metadata = std::fs::metadata(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

/// Sends every line; stops when nobody listens any more. The clock: purchases may not lie ahead of it.
pub(super) fn read(file: &Path, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return read_ndjson(stdin().lock(), clock, lines);
    }
    let open = File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    if file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        read_csv(open, clock, lines)
    } else {
        read_ndjson(BufReader::with_capacity(BUFFER_BYTES, open), clock, lines)
    }
}

fn read_ndjson(mut input: impl BufRead, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    let mut number = 0;
    let mut end_byte = 0;
    let mut text = Vec::new();
    loop {
        text.clear();
        number += 1;
        let limit = MAX_LINE_BYTES as u64 + 1;
        let read = input.by_ref().take(limit).read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok(());
        }
        end_byte += read as u64;
        let too_long = !text.ends_with(b"\n") && read > MAX_LINE_BYTES;
        if too_long {
            end_byte += input.skip_until(b'\n')? as u64;
        }
        // A byte order mark is what some spreadsheets put first.
        let line = text.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&text).trim_ascii();
        if line.is_empty() {
            continue;
        }
        let record =
            if too_long { Err(format!("is longer than {MAX_LINE_BYTES} bytes")) } else { parse_json(line, clock) };
        if lines.blocking_send(Line { number, end_byte, record }).is_err() {
            return Ok(());
        }
    }
}

fn parse_json(line: &[u8], clock: &Clock) -> Result<Record, String> {
    let malformed = |error: serde_json::Error| {
        // Its own position is that of one line: the column alone helps.
        let text = error.to_string();
        text.split(" at line 1").next().unwrap_or(&text).to_owned() + &format!(" (column {})", error.column())
    };
    let not_a_purchase = match serde_json::from_slice::<RecordPurchase>(line) {
        Ok(purchase) => return check(purchase, clock),
        Err(error) => error,
    };
    // Only a refund has this key, and it has no other.
    let is_refund = serde_json::from_slice::<serde_json::Value>(line).is_ok_and(|json| json.get("refund").is_some());
    if !is_refund {
        return Err(malformed(not_a_purchase));
    }
    let record = serde_json::from_slice::<RefundRecord>(line).map_err(malformed)?;
    Ok(Record::Refund(Box::new(record.refund)))
}

fn check(purchase: RecordPurchase, clock: &Clock) -> Result<Record, String> {
    match purchase.check_by(clock, &[]) {
        Ok(purchase) => Ok(Record::Purchase(Box::new(purchase))),
        Err(error) => Err(reason(&error)),
    }
}

/// An error in a line's own words: `lines.0.amount: must not be negative; …`.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::Refused(errors) => {
            let one = |error: &crate::app::error::UserError| format!("{}: {}", error.path.join("."), error.message);
            errors.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// A purchase as a row; its lines, if any, as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    external_id: String,
    customer_external_id: String,
    purchased_at: String,
    total: String,
    currency: String,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    lines: Option<String>,
}

const COLUMNS: [&str; 7] = ["externalId", "customerExternalId", "purchasedAt", "total", "currency", "channel", "lines"];
const REQUIRED_COLUMNS: usize = 5;

fn read_csv(input: File, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    // Every record ends with a line feed, the last one too: the number of its line follows from where it ends.
    let mut csv = csv::ReaderBuilder::new()
        .buffer_capacity(BUFFER_BYTES)
        .trim(csv::Trim::Headers)
        .terminator(csv::Terminator::Any(b'\n'))
        .flexible(true)
        .from_reader(input.chain(&b"\n"[..]));
    let header = csv.headers()?.clone();
    check_header(&header)?;
    let mut row = csv::ByteRecord::new();
    while csv.read_byte_record(&mut row)? {
        if row.len() == 1 && row[0].trim_ascii().is_empty() {
            continue;
        }
        let line_feeds = row.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
        let number = csv.position().line().saturating_sub(1 + line_feeds);
        let record = parse_row(&row, &header, clock);
        if lines.blocking_send(Line { number, end_byte: csv.position().byte(), record }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn check_header(header: &csv::StringRecord) -> anyhow::Result<()> {
    if let Some(unknown) = header.iter().find(|name| !COLUMNS.contains(name)) {
        anyhow::bail!("the header names a column `{unknown}`; known are {}", COLUMNS.join(", "));
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

fn parse_row(row: &csv::ByteRecord, header: &csv::StringRecord, clock: &Clock) -> Result<Record, String> {
    if row.len() != header.len() {
        return Err(format!("has {} cells where the header has {}", row.len(), header.len()));
    }
    let text = |cell| std::str::from_utf8(cell).map_err(|_| "is not UTF-8".to_owned());
    let mut cells = row.iter().map(text).collect::<Result<Vec<&str>, _>>()?;
    if let Some(last) = cells.last_mut() {
        *last = last.strip_suffix('\r').unwrap_or(last);
    }
    let row: Row = csv::StringRecord::from(cells).deserialize(Some(header)).map_err(|error| error.to_string())?;
    let lines: Option<Vec<PurchaseLine>> = match row.lines.as_deref() {
        None | Some("") => None,
        Some(json) => Some(serde_json::from_str(json).map_err(|error| format!("lines: {error}"))?),
    };
    let purchase = RecordPurchase {
        external_id: row.external_id,
        customer_external_id: row.customer_external_id,
        purchased_at: row.purchased_at,
        total: row.total,
        currency: row.currency,
        // An empty cell is an absent value.
        channel: row.channel.filter(|channel| !channel.is_empty()),
        lines,
    };
    check(purchase, clock)
}
