//! Splits a file into lines, or into orders of several rows, and parses them. NDJSON is here; `table` has the formats with a header.

use std::io::{BufRead, Read as _};

use serde::Deserialize;

use super::record::{Parsed, parse_json};
use super::rows::MAX_ROW_BYTES;
use crate::app::clock::Clock;
use crate::engine::time::parse_instant;

/// The number of bytes that are read at a time.
pub(super) const BUFFER_BYTES: usize = 1 << 18;
/// The byte order mark that some spreadsheets write first.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where a line, or an order of several rows, is in its input.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The number of the first line, from 1.
    pub number: u64,
    /// The position of the first byte.
    pub start: u64,
    /// The number of bytes.
    pub bytes: u64,
}

/// A format of a file.
pub(super) trait Format {
    /// Reads the next line that is not blank. Returns where it is, or `None` at the end of the input.
    fn advance(&mut self) -> anyhow::Result<Option<Span>>;

    /// Returns when the purchase or refund of the line that was read last was made, in µs, if the line says so.
    fn made_at(&self) -> Option<i64>;

    /// Parses the line that was read last.
    fn record(&mut self, clock: &Clock) -> Result<Parsed, String>;

    /// Parses a line from its bytes, of which no more than [`MAX_ROW_BYTES`] and one are needed.
    fn parse(&mut self, span: Span, text: &[u8], clock: &Clock) -> Result<Parsed, String>;
}

/// A JSON object on each line. Blank lines, and lines that begin with `#`, are comments.
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
            let mut read = self.input.by_ref().take(MAX_ROW_BYTES as u64 + 1).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                return Ok(None);
            }
            if !self.text.ends_with(b"\n") && read > MAX_ROW_BYTES {
                read += self.input.skip_until(b'\n')?;
            }
            self.last = Span { number: number + 1, start: start + bytes, bytes: read as u64 };
            let text = trimmed(self.last, &self.text);
            if !text.is_empty() && !text.starts_with(b"#") {
                return Ok(Some(self.last));
            }
        }
    }

    fn made_at(&self) -> Option<i64> {
        let Dated { purchased_at, refund } = serde_json::from_slice(trimmed(self.last, &self.text)).ok()?;
        let text = match refund {
            Some(refund) => refund.refunded_at?,
            None => purchased_at?,
        };
        parse_instant(text).ok().map(|at| at.0)
    }

    fn record(&mut self, clock: &Clock) -> Result<Parsed, String> {
        parse_line(self.last, &self.text, clock)
    }

    fn parse(&mut self, span: Span, text: &[u8], clock: &Clock) -> Result<Parsed, String> {
        parse_line(span, text, clock)
    }
}

fn parse_line(span: Span, text: &[u8], clock: &Clock) -> Result<Parsed, String> {
    if text.len() > MAX_ROW_BYTES && !text.ends_with(b"\n") {
        return Err(format!("is longer than {MAX_ROW_BYTES} bytes"));
    }
    parse_json(trimmed(span, text), clock)
}

/// Returns the line without white space around it.
fn trimmed(span: Span, text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).filter(|_| span.number == 1).unwrap_or(text).trim_ascii()
}
