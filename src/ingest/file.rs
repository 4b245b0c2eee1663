//! Opens a file and reads its lines. A regular file is read in the order in which its purchases were made, anything else as it comes.

use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Cursor, Read, Seek as _, SeekFrom, Write, stdin};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use super::cell::NO_ZONE;
use super::format::{BUFFER_BYTES, Format, Ndjson, Span};
use super::kind::{Found, Kind, Place, find_out};
use super::map::{Map, Mapped};
use super::order::Decisions;
use super::purchases::Purchases;
use super::record::Parsed;
use super::rows::{MAX_ROW_BYTES, Rows};
use super::shopify::Shopify;
use super::table::{Header, Layout, Table};
use super::unpack::{Input, unpacked};
use super::woocommerce::WooCommerce;
use crate::app::clock::Clock;
use crate::engine::time::Instant;

/// The number of lines that are read ahead of the writers.
const READ_AHEAD: usize = 2_048;
/// The number of lines that are put in order together. Their places take 64 MiB.
const WINDOW_LINES: usize = 1 << 21;

/// A parsed line of a file, or a parsed order of several rows.
pub struct Line {
    pub span: Span,
    /// The number of bytes of this line and of those that were sent before it.
    pub sent_bytes: u64,
    /// What the line records, or why it is faulty.
    pub parsed: Result<Parsed, String>,
}

/// What the caller says about a file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `None`: found out.
    pub kind: Option<Kind>,
    pub map: Option<Map>,
    pub decisions: Decisions,
    /// The lines can be read again, even those of the standard input.
    pub keeps_lines: bool,
}

/// A file that was opened and whose kind is known.
pub struct Source {
    kind: Kind,
    table: Option<Place>,
    map: Option<Map>,
    decisions: Decisions,
    /// The header as it is in the file, with all that is above it.
    above: Vec<u8>,
    /// The device and the number of the file that was opened.
    origin: Option<(u64, u64)>,
    /// The input of a file that can be read only once, from the beginning.
    stream: Option<Input>,
    /// The file, if it can be read again: a regular file, or a copy of what the input had up to now.
    file: Option<Arc<File>>,
}

impl Source {
    /// Opens a file; `-` stands for the standard input. Fails if the file, its header or the decisions about it are not usable.
    /// Nothing is recorded before that.
    pub fn open(path: &Path, settings: Settings, now: Instant) -> anyhow::Result<Self> {
        let Settings { kind: wanted, map, decisions, keeps_lines } = settings;
        let is_stdin = path == Path::new("-");
        let origin = std::fs::metadata(path).ok().filter(|_| !is_stdin);
        let origin = origin.map(|metadata| (metadata.dev(), metadata.ino()));
        let (mut stream, file) = open(path)?;
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let Found { kind, table, read } = find_out(&mut stream, wanted, map.as_ref(), extension)?;
        let above = table.as_ref().map_or(0, |place| usize::try_from(place.bytes).unwrap_or(usize::MAX));
        let above = read[..above.min(read.len())].to_vec();
        let stream: Option<Input> = match &file {
            Some(_) => None,
            None => Some(Box::new(Cursor::new(read).chain(stream))),
        };
        let file = match file {
            None if keeps_lines => Some(tempfile::tempfile().context("a temporary file cannot be created")?),
            file => file,
        };
        let mut source = Self { kind, table, map, decisions, above, origin, stream, file: file.map(Arc::new) };
        source.check_decisions(is_stdin, now)?;
        if source.kind.is_export() {
            source.decisions.revision = source.revision(now)?;
        }
        Ok(source)
    }

    /// Refuses decisions that do not apply to the file, and a header that is not usable.
    fn check_decisions(&self, is_stdin: bool, now: Instant) -> anyhow::Result<()> {
        if !self.kind.is_export() && self.decisions != Decisions::default() {
            anyhow::bail!(
                "{} states each purchase as it is: --as-of and the other options for exports do not apply",
                self.kind.named()
            );
        }
        if self.decisions.as_of.is_some_and(|as_of| as_of > now) {
            anyhow::bail!("--as-of is in the future: give the instant at which the file was exported");
        }
        if self.kind.is_export() && self.stream.is_some() && self.decisions.as_of.is_none() {
            let from = if is_stdin { "the standard input" } else { "what can be read only once" };
            anyhow::bail!("an export from {from} needs --as-of: the instant at which it was exported");
        }
        self.layout().map(|_| ())
    }

    /// Returns the revision of the orders of an export: the milliseconds of `--as-of`, or of the newest instant in the file.
    fn revision(&self, now: Instant) -> anyhow::Result<i64> {
        let newest = if self.stream.is_some() { None } else { self.open_table(self.start()?)?.newest(now)? };
        let as_of = match (self.decisions.as_of, newest) {
            (Some(as_of), Some(newest)) if newest > as_of => anyhow::bail!(
                "the file has an instant after --as-of, {newest}: give the instant at which it was exported"
            ),
            (Some(as_of), _) => as_of,
            (None, newest) => newest.unwrap_or(Instant::EPOCH),
        };
        Ok(as_of.0.div_euclid(1_000).max(0))
    }

    /// Returns the kind of the file.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the decisions about the orders of an export.
    pub fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// Returns the size of the file in bytes. Returns `None` if it can be read only once.
    pub fn length(&self) -> Option<u64> {
        let file = self.file.as_ref().filter(|_| self.stream.is_none())?;
        file.metadata().ok().map(|metadata| metadata.len())
    }

    /// Returns the lines, if they can be read again.
    pub fn lines(&self) -> Option<Lines> {
        let table = self.table.as_ref().map(|place| LinesOfTable {
            delimiter: place.delimiter,
            header: place.header.clone(),
            above: self.above.clone(),
        });
        Some(Lines { file: Arc::clone(self.file.as_ref()?), origin: self.origin, table })
    }

    /// Reads the file in a separate thread. The first receiver gets the lines, the second gets the result of reading. The process can
    /// exit while the thread still runs, because nothing can interrupt a read from a terminal or an open pipe.
    pub fn read_ahead(self, clock: Clock) -> (mpsc::Receiver<Line>, oneshot::Receiver<anyhow::Result<()>>) {
        let (sender, lines) = mpsc::channel(READ_AHEAD);
        let (done, reading) = oneshot::channel();
        std::thread::spawn(move || {
            // The lines end when `sender` is dropped. The result must be sent before that.
            let _ = done.send(self.read(&clock, &sender));
        });
        (lines, reading)
    }

    /// Sends every line. Stops when the receiver is closed.
    fn read(mut self, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
        let is_table = self.table.is_some();
        let copied = |input| Copied { input, copy: self.file.clone(), position: 0, copied: 0 };
        match self.stream.take().map(copied) {
            Some(stream) if is_table => as_it_comes(self.open_table(stream)?, clock, lines),
            Some(stream) => as_it_comes(Ndjson::new(stream), clock, lines),
            None => {
                let again = self.again()?;
                if is_table {
                    in_order(self.open_table(self.start()?)?, &again, clock, lines)
                } else {
                    in_order(Ndjson::new(self.start()?), &again, clock, lines)
                }
            }
        }
    }

    fn again(&self) -> anyhow::Result<Arc<File>> {
        self.file.clone().context("the file can be read only once")
    }

    /// Returns the content of a regular file from its beginning.
    fn start(&self) -> anyhow::Result<BufReader<File>> {
        let mut file = self.again()?.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    fn layout(&self) -> anyhow::Result<Option<Box<dyn Layout>>> {
        let Some(Place { header, .. }) = &self.table else { return Ok(None) };
        let decisions = || self.decisions.clone();
        Ok(Some(match (self.kind, &self.map) {
            (Kind::Mapped, Some(map)) => Box::new(Mapped::new(header, map.clone(), decisions())?),
            (Kind::Shopify, _) => Box::new(Shopify::new(header, decisions())?),
            (Kind::WooCommerce, _) => Box::new(WooCommerce::new(header, decisions())?),
            (Kind::Csv | Kind::Ndjson | Kind::Mapped, _) => Box::new(Purchases::new(header)?),
        }))
    }

    /// Returns the rows behind the header of an input that is at its beginning.
    fn open_table<R: BufRead>(&self, mut input: R) -> anyhow::Result<Table<R>> {
        let place = self.table.as_ref().context("the file has no header")?;
        let layout = self.layout()?.context("the file has no header")?;
        std::io::copy(&mut input.by_ref().take(place.bytes), &mut std::io::sink())?;
        let rows = Rows::new(input, place.delimiter, place.lines + 1, place.bytes);
        Ok(Table::new(rows, place.delimiter, place.header.clone(), layout))
    }
}

/// Opens a file and unpacks it. Returns the file too if it is regular; a packed file is unpacked into a temporary one.
fn open(path: &Path) -> anyhow::Result<(Input, Option<File>)> {
    if path == Path::new("-") {
        return Ok((unpacked(Box::new(BufReader::new(stdin())))?.0, None));
    }
    let name = || format!("{} cannot be read", path.display());
    let file = File::open(path).with_context(name)?;
    let metadata = file.metadata().with_context(name)?;
    anyhow::ensure!(!metadata.is_dir(), "{}: it is a directory", name());
    let again = metadata.is_file().then(|| file.try_clone()).transpose()?;
    let (mut input, is_packed) = unpacked(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))?;
    let Some(file) = again else { return Ok((input, None)) };
    if !is_packed {
        return Ok((input, Some(file)));
    }
    let mut whole = tempfile::tempfile().context("a temporary file cannot be created")?;
    std::io::copy(&mut input, &mut whole).with_context(|| format!("{} cannot be unpacked", path.display()))?;
    whole.seek(SeekFrom::Start(0))?;
    Ok((Box::new(BufReader::with_capacity(BUFFER_BYTES, whole.try_clone()?)), Some(whole)))
}

/// An input of which a copy is written to a file, if there is one.
struct Copied {
    input: Input,
    copy: Option<Arc<File>>,
    position: u64,
    /// The number of bytes that were written to the copy.
    copied: u64,
}

impl Read for Copied {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Copied {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        let buffer = self.input.fill_buf()?;
        let end = self.position + buffer.len() as u64;
        if let Some(copy) = &self.copy
            && end > self.copied
        {
            let known = usize::try_from(self.copied - self.position).unwrap_or(buffer.len());
            copy.write_all_at(&buffer[known..], self.copied)?;
            self.copied = end;
        }
        Ok(buffer)
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes as u64;
        self.input.consume(bytes);
    }
}

/// The lines of a file, to be read again.
pub struct Lines {
    file: Arc<File>,
    /// The device and the number of the file that was opened.
    origin: Option<(u64, u64)>,
    /// `None` for a file without a header.
    pub(super) table: Option<LinesOfTable>,
}

/// What rows have in common.
pub(super) struct LinesOfTable {
    pub(super) delimiter: u8,
    pub(super) header: Header,
    /// The header as it is in the file, with all that is above it.
    pub(super) above: Vec<u8>,
}

impl Lines {
    /// Whether these are the lines of this file.
    pub(super) fn is_of(&self, metadata: &Metadata) -> bool {
        self.origin == Some((metadata.dev(), metadata.ino()))
    }

    /// Returns a line as it is in the file, at most [`MAX_ROW_BYTES`] and one.
    pub(super) fn read(&self, span: Span) -> anyhow::Result<Vec<u8>> {
        let mut text = Vec::new();
        read_at(&self.file, span, &mut text)?;
        Ok(text)
    }

    /// Writes a line as it is in the file, whatever its size. Returns whether it ends with a line feed.
    pub(super) fn copy(&self, span: Span, output: &mut impl Write) -> anyhow::Result<bool> {
        let (mut text, mut ends) = (Vec::new(), false);
        let (mut start, end) = (span.start, span.start + span.bytes);
        while start < end {
            let bytes = (end - start).min(MAX_ROW_BYTES as u64);
            read_at(&self.file, Span { start, bytes, ..span }, &mut text)?;
            output.write_all(&text)?;
            ends = text.ends_with(b"\n");
            start += bytes;
        }
        Ok(ends)
    }
}

/// Reads a line, at most [`MAX_ROW_BYTES`] and one.
fn read_at(file: &File, span: Span, text: &mut Vec<u8>) -> anyhow::Result<()> {
    let bytes = span.bytes.min(MAX_ROW_BYTES as u64 + 1);
    text.resize(usize::try_from(bytes)?, 0);
    file.read_exact_at(text, span.start).context("the file changed while it was read: run the import again")
}

/// Sends the lines of an input that can be read only once.
fn as_it_comes(mut format: impl Format, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    let (mut sent_bytes, mut is_understood) = (0, false);
    while let Some(span) = format.advance()? {
        sent_bytes += span.bytes;
        let parsed = format.record(clock);
        is_understood |= parsed.is_ok();
        if let Err(reason) = &parsed
            && !is_understood
            && reason.ends_with(NO_ZONE)
        {
            // All others need a zone too.
            anyhow::bail!("line {}: {reason}", span.number);
        }
        if lines.blocking_send(Line { span, sent_bytes, parsed }).is_err() {
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
fn in_order(mut format: impl Format, again: &File, clock: &Clock, lines: &mpsc::Sender<Line>) -> anyhow::Result<()> {
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
            read_at(again, span, &mut text)?;
            sent_bytes += span.bytes;
            let parsed = format.parse(span, &text, clock);
            if lines.blocking_send(Line { span, sent_bytes, parsed }).is_err() {
                return Ok(());
            }
        }
    }
}
