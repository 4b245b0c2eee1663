//! Writes faulty lines to a file, as they were and with the reason, so that the file can be imported once it is mended.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::file::Lines;
use super::format::{BYTE_ORDER_MARK, Span};
use super::rows::{Row, Rows};
use super::table::REJECTED_BECAUSE;

/// The file of rejected lines.
pub struct Rejects {
    output: BufWriter<File>,
    lines: Lines,
}

impl Rejects {
    /// Creates the file. An existing file is replaced.
    pub fn create(path: &Path, lines: Lines) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        let mut rejects = Self { output: BufWriter::new(file), lines };
        if let Some(delimiter) = rejects.lines.delimiter() {
            let header = rejects.lines.header()?;
            let header = header.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&header);
            rejects.write_row(header, delimiter, REJECTED_BECAUSE)?;
        }
        Ok(rejects)
    }

    /// Writes a line, or the rows of an order. NDJSON gets the reason as a comment above the line, a table in a column of its own.
    pub fn write(&mut self, span: Span, reason: &str) -> anyhow::Result<()> {
        let text = self.lines.read(span)?;
        let Some(delimiter) = self.lines.delimiter() else {
            writeln!(self.output, "# line {}: {}", span.number, reason.replace(['\n', '\r'], " "))?;
            self.output.write_all(without_end(&text))?;
            self.output.write_all(b"\n")?;
            return Ok(());
        };
        let mut rows = Rows::new(text.as_slice(), delimiter, span.number, span.start);
        let mut row = Row::default();
        while rows.read(&mut row)? {
            if !row.is_blank() {
                self.write_row(row.text(), delimiter, reason)?;
            }
        }
        Ok(())
    }

    fn write_row(&mut self, text: &[u8], delimiter: u8, reason: &str) -> anyhow::Result<()> {
        self.output.write_all(without_end(text))?;
        writeln!(self.output, "{}\"{}\"", char::from(delimiter), reason.replace('"', "\"\""))?;
        Ok(())
    }

    /// Finishes the file.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.output.flush()?;
        Ok(())
    }
}

/// Returns a row without its line end. Blanks before it belong to the last field.
fn without_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}
