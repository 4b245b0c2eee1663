//! Splits a file of delimited values into rows, as RFC 4180 describes them, with a delimiter of any byte.
//!
//! The splitting is strict: a quote stands at the start of a field, is doubled inside it, and stands at its end. Spreadsheets and
//! shop systems write files in this way. A stray quote means that a field ends elsewhere than it seems, so its row is faulty.
//! A quote that is never closed does not swallow the rest of the file: a faulty row ends with its first line, and the next line begins
//! a new row. A row has at most [`MAX_ROW_BYTES`], so the memory does not depend on the file.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};

/// The longest row, or line of NDJSON, in bytes. A purchase with 500 lines whose names have the maximum length fits.
pub(super) const MAX_ROW_BYTES: usize = 1 << 20;

/// The number of delimiters from which a line inside a quoted field is taken for a row. With fewer, it may be a sentence.
const ROW_DELIMITERS: usize = 4;
const DOUBLE_QUOTES: &str = "close it, and double the quotes inside the field";
const STRAY: &str = "has a quote inside a field: put the whole field in quotes, and double the quotes inside it";

/// A row of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// The number of the row's first line, from 1.
    pub(super) number: u64,
    /// The position of the row's first byte.
    pub(super) start: u64,
    /// The number of bytes of the row, with its line end.
    pub(super) bytes: u64,
    text: Vec<u8>,
    cells: Vec<Cell>,
    fault: Option<String>,
}

/// Where a field is in the text of its row, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    from: usize,
    to: usize,
    /// The field contains doubled quotes.
    is_escaped: bool,
}

impl Row {
    /// A row that does not come from a file, with these fields. Rows with the same fields and other numbers differ.
    pub(super) fn of(number: u64, cells: &[String]) -> Self {
        let mut row = Self { number, ..Self::default() };
        for cell in cells {
            let from = row.text.len();
            row.text.extend_from_slice(cell.as_bytes());
            row.cells.push(Cell { from, to: row.text.len(), is_escaped: false });
        }
        row.text.extend_from_slice(format!(" {number}").as_bytes());
        row
    }

    /// Returns the number of fields.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether all fields are empty. Spreadsheets leave such rows.
    pub(super) fn is_blank(&self) -> bool {
        self.fault.is_none() && self.cells.iter().all(|cell| self.text[cell.from..cell.to].trim_ascii().is_empty())
    }

    /// Returns the text of a field, or `None` if the row has no such field. The error says what is wrong with the row.
    pub(super) fn cell(&self, index: usize) -> Result<Option<Cow<'_, str>>, String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let Some(cell) = self.cells.get(index) else { return Ok(None) };
        let text = std::str::from_utf8(&self.text[cell.from..cell.to]).map_err(|_| "is not UTF-8".to_owned())?;
        Ok(Some(if cell.is_escaped { Cow::Owned(text.replace("\"\"", "\"")) } else { Cow::Borrowed(text) }))
    }

    /// Returns the bytes of a field as they are in the file, without its quotes. Of a faulty row, the fields before the fault are known.
    /// An unknown field is empty.
    pub(super) fn raw(&self, index: usize) -> &[u8] {
        self.cells.get(index).map_or(&[], |cell| &self.text[cell.from..cell.to])
    }

    /// Returns what is wrong with the row as a whole.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Returns the bytes of the row as they are in the file, with the line end, of a row that is too long only the first ones.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// Reads rows from an input.
pub(super) struct Rows<R> {
    input: R,
    delimiter: u8,
    /// The number of fields of a row, if it is known.
    width: Option<usize>,
    /// The lines that were read behind a faulty row.
    ahead: Vec<u8>,
    /// The first bytes of `ahead` that were used again.
    used: usize,
    number: u64,
    position: u64,
}

impl<R: BufRead> Rows<R> {
    /// Reads rows from an input whose first line has this number and position.
    pub(super) fn new(input: R, delimiter: u8, number: u64, position: u64) -> Self {
        Self { input, delimiter, width: None, ahead: Vec::new(), used: 0, number, position }
    }

    /// Sets the number of fields that rows have. Then a quoted field that seems to contain a row makes its first line faulty: the quote
    /// was left open, and a later one in the same column closed it.
    pub(super) fn of_width(self, width: usize) -> Self {
        Self { width: Some(width), ..self }
    }

    /// Reads the next row into `row`. Returns `false` at the end of the input.
    pub(super) fn read(&mut self, row: &mut Row) -> io::Result<bool> {
        row.text.clear();
        row.cells.clear();
        row.fault = None;
        (row.number, row.start) = (self.number, self.position);
        let mut splitter = Splitter::default();
        let mut first_line = 0;
        loop {
            let from = row.text.len();
            let left = (MAX_ROW_BYTES + 1).saturating_sub(from);
            let read = self.read_line(&mut row.text, left)?;
            if first_line == 0 {
                first_line = read;
            }
            let is_whole = row.text.ends_with(b"\n");
            let step = match read {
                0 if from == 0 => return Ok(false),
                0 => splitter.finish(&row.text, &mut row.cells),
                _ if !is_whole && row.text.len() > MAX_ROW_BYTES => Step::More,
                _ => splitter.feed(&row.text, from, self.delimiter, &mut row.cells),
            };
            let fault = match step {
                Step::More if row.text.len() <= MAX_ROW_BYTES => continue,
                Step::More if from == 0 && !is_whole => {
                    row.bytes = row.text.len() as u64 + self.skip_line()?;
                    row.fault = Some(format!("is longer than {MAX_ROW_BYTES} bytes"));
                    (self.number, self.position) = (self.number + 1, self.position + row.bytes);
                    return Ok(true);
                }
                Step::End if row.text.len() > first_line && self.hides_row(row) => not_closed(row, first_line),
                Step::End => {
                    row.bytes = row.text.len() as u64;
                    self.number += line_ends(&row.text).max(1);
                    self.position += row.bytes;
                    return Ok(true);
                }
                Step::Stray(at) if at < first_line => STRAY.to_owned(),
                Step::More => format!(
                    "a quote opens on line {} and is not closed within {MAX_ROW_BYTES} bytes: {DOUBLE_QUOTES}",
                    row.number + line_ends(&row.text[..splitter.quote])
                ),
                Step::Open | Step::Stray(_) => not_closed(row, splitter.quote),
            };
            // What was read behind the first line is read again.
            let rest = row.text.split_off(first_line);
            self.read_again(rest);
            row.bytes = first_line as u64;
            row.fault = Some(fault);
            row.cells.retain(|cell| cell.to < first_line);
            (self.number, self.position) = (self.number + 1, self.position + row.bytes);
            return Ok(true);
        }
    }

    /// Whether a quoted field contains a line that looks like a row, or like the beginning of one up to the same field.
    fn hides_row(&self, row: &Row) -> bool {
        let Some(width) = self.width else { return false };
        row.cells.iter().enumerate().any(|(index, cell)| {
            let mut lines = row.text[cell.from..cell.to].split(|byte| *byte == b'\n').skip(1).peekable();
            while let Some(line) = lines.next() {
                let delimiters = line.iter().filter(|byte| **byte == self.delimiter).count();
                let of_row = if lines.peek().is_some() { width.saturating_sub(1) } else { index };
                if of_row >= ROW_DELIMITERS && delimiters == of_row {
                    return true;
                }
            }
            false
        })
    }

    /// Appends the next line to `text`, with its line end, but at most `most` bytes. Returns their number.
    fn read_line(&mut self, text: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        let ahead = &self.ahead[self.used..];
        if ahead.is_empty() {
            return self.input.by_ref().take(most as u64).read_until(b'\n', text);
        }
        let end = ahead.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
        let kept = end.unwrap_or(ahead.len()).min(most);
        text.extend_from_slice(&ahead[..kept]);
        self.used += kept;
        if self.used == self.ahead.len() {
            self.ahead.clear();
            self.used = 0;
            // The line may go on in the input.
            if end.is_none() && kept < most {
                return Ok(kept + self.input.by_ref().take((most - kept) as u64).read_until(b'\n', text)?);
            }
        }
        Ok(kept)
    }

    /// Skips the rest of a line. Returns the number of its bytes.
    fn skip_line(&mut self) -> io::Result<u64> {
        let ahead = &self.ahead[self.used..];
        if let Some(end) = ahead.iter().position(|byte| *byte == b'\n') {
            self.used += end + 1;
            return Ok(end as u64 + 1);
        }
        let skipped = ahead.len() as u64;
        self.ahead.clear();
        self.used = 0;
        Ok(skipped + self.input.skip_until(b'\n')? as u64)
    }

    fn read_again(&mut self, mut text: Vec<u8>) {
        text.extend_from_slice(&self.ahead[self.used..]);
        (self.ahead, self.used) = (text, 0);
    }
}

/// Says that the quote at a position, or the last one before it, is left open.
fn not_closed(row: &Row, position: usize) -> String {
    let line = row.number + line_ends(&row.text[..position.saturating_sub(1)]);
    format!("a quote opens on line {line} and is not closed at the end of a field: {DOUBLE_QUOTES}")
}

fn line_ends(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// What a splitter found in the text up to now.
enum Step {
    /// The row goes on.
    More,
    /// The row ends with the text.
    End,
    /// The input ends inside quotes.
    Open,
    /// There is a quote at this position where none may be.
    Stray(usize),
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Plain,
    Quoted,
    /// Behind a quote inside a quoted field: the field ends, or the quote is doubled.
    Closed,
}

/// Splits the text of a row into fields, while the text grows line by line.
#[derive(Default)]
struct Splitter {
    state: State,
    /// The start of the field.
    from: usize,
    /// The position of the quote that was opened last.
    quote: usize,
    is_escaped: bool,
}

impl Splitter {
    /// Goes on at `from`, the start of a line. The text ends with that line.
    fn feed(&mut self, text: &[u8], from: usize, delimiter: u8, cells: &mut Vec<Cell>) -> Step {
        for (at, byte) in text.iter().enumerate().skip(from) {
            self.state = match (self.state, *byte) {
                (State::Quoted, b'"') => State::Closed,
                (State::Quoted, _) => State::Quoted,
                (_, byte) if byte == delimiter => {
                    self.end_field(at, cells);
                    self.from = at + 1;
                    State::Start
                }
                (_, b'\n') => {
                    let is_after_return = at > self.from && text[at - 1] == b'\r';
                    self.end_field(if is_after_return { at - 1 } else { at }, cells);
                    return Step::End;
                }
                (State::Start, b'"') => {
                    (self.quote, self.is_escaped) = (at, false);
                    State::Quoted
                }
                (State::Closed, b'"') => {
                    self.is_escaped = true;
                    State::Quoted
                }
                // The carriage return before a line feed, or at the end of the file.
                (State::Closed, b'\r') if matches!(text.get(at + 1), None | Some(b'\n')) => State::Closed,
                (State::Closed, _) => return Step::Stray(at - 1),
                (State::Plain, b'"') => return Step::Stray(at),
                (State::Start | State::Plain, _) => State::Plain,
            };
        }
        if self.state != State::Quoted && !text.ends_with(b"\n") { self.finish(text, cells) } else { Step::More }
    }

    /// Ends the row where the input ends.
    fn finish(&mut self, text: &[u8], cells: &mut Vec<Cell>) -> Step {
        if self.state == State::Quoted {
            return Step::Open;
        }
        let has_return = text.len() > self.from && text.ends_with(b"\r");
        self.end_field(text.len() - usize::from(has_return), cells);
        Step::End
    }

    fn end_field(&mut self, at: usize, cells: &mut Vec<Cell>) {
        let cell = if self.state == State::Closed {
            Cell { from: self.quote + 1, to: at - 1, is_escaped: self.is_escaped }
        } else {
            Cell { from: self.from, to: at, is_escaped: false }
        };
        cells.push(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a text: the number of the first line, and the fields or the fault.
    fn rows(text: &str) -> Vec<(u64, Result<Vec<String>, String>)> {
        let mut rows = Rows::new(text.as_bytes(), b',', 1, 0);
        let (mut row, mut found, mut position) = (Row::default(), Vec::new(), 0);
        while rows.read(&mut row).unwrap() {
            assert_eq!(row.start, position);
            position += row.bytes;
            let fields = (0..row.len()).map(|index| row.cell(index).map(|cell| cell.unwrap().into_owned()));
            let fault = row.fault().map(str::to_owned);
            found.push((row.number, fault.map_or_else(|| fields.collect(), Err)));
        }
        assert_eq!(position, text.len() as u64, "every byte belongs to a row");
        found
    }

    fn good(fields: &[&str]) -> Result<Vec<String>, String> {
        Ok(fields.iter().map(|field| (*field).to_owned()).collect())
    }

    #[test]
    fn fields_are_split() {
        let text = "a,b\r\n\"x,\ny\",\"say \"\"hi\"\"\"\r\n,\"\"\n\nlast,\"one\"\r";
        let expected = [
            (1, good(&["a", "b"])),
            (2, good(&["x,\ny", "say \"hi\""])),
            (4, good(&["", ""])),
            (5, good(&[""])),
            (6, good(&["last", "one"])),
        ];
        assert_eq!(rows(text), expected);
    }

    #[test]
    fn a_stray_quote_makes_its_own_line_faulty() {
        for line in ["a\"b,c", "\"a\"b,c", "a, \"b\"", "\"a\" ,b"] {
            let found = rows(&format!("{line}\nd,e"));
            assert_eq!(found, [(1, Err(STRAY.to_owned())), (2, good(&["d", "e"]))], "{line}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_swallows_nothing() {
        let open = |line| {
            Err(format!("a quote opens on line {line} and is not closed at the end of a field: {DOUBLE_QUOTES}"))
        };
        let found = rows("1,\"note\n2,b\n3,\"c\"\n4,d\n");
        assert_eq!(found, [(1, open(1)), (2, good(&["2", "b"])), (3, good(&["3", "c"])), (4, good(&["4", "d"]))]);
        // The end of the file, and the limit of a row.
        assert_eq!(rows("1,\"a\n2,b"), [(1, open(1)), (2, good(&["2", "b"]))]);
        let long = format!("0,x\n1,\"a\n{}", "2,b\n".repeat(MAX_ROW_BYTES / 4 + 10));
        let found = rows(&long);
        assert!(
            matches!(&found[1], (2, Err(fault)) if fault.contains("line 2 and is not closed within")),
            "{:?}",
            found[1]
        );
        assert_eq!(found.len(), MAX_ROW_BYTES / 4 + 12);
        assert!(found[2..].iter().all(|(_, row)| *row == good(&["2", "b"])));
    }

    #[test]
    fn a_quote_that_a_later_row_closes_swallows_nothing() {
        let text =
            "1,2,3,4,5,\"ring twice\n1,2,3,4,5,fine\n1,2,3,4,5,pipe of 12\"\n1,2,3,4,5,\"a note,\nwith a line\"\n";
        let mut rows = Rows::new(text.as_bytes(), b',', 1, 0).of_width(6);
        let (mut row, mut found) = (Row::default(), Vec::new());
        while rows.read(&mut row).unwrap() {
            found.push((row.number, row.len(), row.fault().map(str::to_owned)));
        }
        let open = format!("a quote opens on line 1 and is not closed at the end of a field: {DOUBLE_QUOTES}");
        let told: Vec<_> = found.iter().map(|(number, _, fault)| (*number, fault.as_deref())).collect();
        assert_eq!(told, [(1, Some(open.as_str())), (2, None), (3, Some(STRAY)), (4, None)]);
        assert_eq!(found[3].1, 6);
    }

    #[test]
    fn a_row_has_a_limit() {
        let fits = "x".repeat(MAX_ROW_BYTES);
        assert_eq!(rows(&format!("{fits}\na,b")), [(1, good(&[&fits])), (2, good(&["a", "b"]))]);
        let long = Err(format!("is longer than {MAX_ROW_BYTES} bytes"));
        assert_eq!(rows(&format!("{fits}x\na,b")), [(1, long.clone()), (2, good(&["a", "b"]))]);
        assert_eq!(rows(&format!("\"{fits}xyz")), [(1, long)]);
    }
}
