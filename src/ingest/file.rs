//! Reads the lines of a file. A regular file is read in the order in which its purchases were made, anything else as it comes.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom, stdin};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::format::{BUFFER_BYTES, Csv, Format, MAX_LINE_BYTES, Ndjson, Span};
use super::record::Record;
use crate::app::clock::Clock;

/// The number of lines that are read ahead of the writers.
const READ_AHEAD: usize = 2_048;
/// The number of lines that are put in order together. Their places take 64 MiB.
const WINDOW_LINES: usize = 1 << 21;

/// A parsed line of a file.
pub struct Line {
    /// The line's number, from 1.
    pub number: u64,
    /// The number of bytes of this line and of those that were sent before it.
    pub sent_bytes: u64,
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
        return as_it_comes(Ndjson::new(stdin().lock()), clock, lines);
    }
    let open = || File::open(file).with_context(|| format!("{} cannot be read", file.display()));
    let input = open()?;
    let is_regular = input.metadata().is_ok_and(|metadata| metadata.is_file());
    match (file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")), is_regular) {
        (true, true) => in_order(Csv::new(input)?, open()?, clock, lines),
        (true, false) => as_it_comes(Csv::new(input)?, clock, lines),
        (false, true) => in_order(Ndjson::new(BufReader::with_capacity(BUFFER_BYTES, input)), open()?, clock, lines),
        (false, false) => as_it_comes(Ndjson::new(BufReader::with_capacity(BUFFER_BYTES, input)), clock, lines),
    }
}

/// Sends the lines of an input that can be read only once.
fn as_it_comes(mut format: impl Format, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    let mut sent_bytes = 0;
    while let Some(Span { number, bytes, .. }) = format.advance()? {
        sent_bytes += bytes;
        if lines.blocking_send(Line { number, sent_bytes, record: format.record(clock) }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends the lines of a file, each window of [`WINDOW_LINES`] in the order of time. A line that says no instant stays behind the
/// line before it, and lines of the same instant keep their order.
///
/// A purchase that comes after a later one of the same customer costs many times as much to record as one in order, and shops'
/// exports come in any order. The first pass over a window notes where its lines are. `again` is the same file for the second.
fn in_order(mut format: impl Format, mut again: File, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    let mut sent_bytes = 0;
    let mut text = Vec::new();
    loop {
        let mut window: Vec<(i64, Span)> = Vec::new();
        while window.len() < WINDOW_LINES
            && let Some(span) = format.advance()?
        {
            let last = window.last().map_or(i64::MIN, |(at, _)| *at);
            window.push((format.made_at().unwrap_or(last), span));
        }
        if window.is_empty() {
            return Ok(());
        }
        // In place: a stable sort would take half as much memory again.
        window.sort_unstable_by_key(|(at, span)| (*at, span.number));
        for (_, span) in window {
            let Span { number, start, bytes } = span;
            text.clear();
            again.seek(SeekFrom::Start(start))?;
            again.by_ref().take(bytes.min(MAX_LINE_BYTES as u64 + 1)).read_to_end(&mut text)?;
            sent_bytes += bytes;
            let record = format.parse(span, &text, clock);
            if lines.blocking_send(Line { number, sent_bytes, record }).is_err() {
                return Ok(());
            }
        }
    }
}
