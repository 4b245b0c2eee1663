//! Reads the lines of a file in order. The file is NDJSON, or CSV with a header.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::record::{Record, parse_json, parse_row};
use crate::app::clock::Clock;

/// The number of lines that are read ahead of the writers.
const READ_AHEAD: usize = 2_048;
/// The longest line, in bytes. A purchase with 500 lines whose names have the maximum length fits.
const MAX_LINE_BYTES: usize = 1 << 20;
/// The number of bytes that are read at a time.
const BUFFER_BYTES: usize = 1 << 18;

/// A parsed line of a file.
pub struct Line {
    /// The line's number, from 1.
    pub number: u64,
    /// The number of bytes up to the end of the line.
    pub end_byte: u64,
    /// What the line records, or why it is skipped.
    pub record: Result<Record, String>,
}

/// Returns the size of a file in bytes. Returns `None` for `-` (the standard input) and for anything that is not a regular file.
pub fn length(file: &Path) -> anyhow::Result<Option<u64>> {
    if file == Path::new("-") {
        return Ok(None);
    }
    let metadata = std::fs::metadata(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(metadata.is_file().then_some(metadata.len()))
}

/// Reads a file in a separate thread; `-` stands for NDJSON from the standard input. The first receiver gets the lines, the
/// second gets the result of reading. The process can exit while the thread still runs, because nothing can interrupt a read
/// from a terminal or an open pipe.
pub fn read_ahead(file: PathBuf, clock: Clock) -> (mpsc::Receiver<Line>, oneshot::Receiver<anyhow::Result<()>>) {
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    let (done, reading) = oneshot::channel();
    std::thread::spawn(move || {
        // The lines end when `sender` is dropped. The result must be sent before that.
        let _ = done.send(read(&file, &clock, &sender));
    });
    (lines, reading)
}

/// Sends every line. Stops when the receiver is closed.
fn read(file: &Path, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
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
        // Some spreadsheets write a byte order mark first.
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

const COLUMNS: [&str; 7] = ["externalId", "customerExternalId", "purchasedAt", "total", "currency", "channel", "lines"];
const REQUIRED_COLUMNS: usize = 5;

fn read_csv(input: File, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    // The appended line feed ends the last record as well. So every record ends with a line feed, and the number of its first
    // line can be computed from the position after the record.
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
