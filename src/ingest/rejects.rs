//! Writes faulty lines to a file, as they were and with the reason, so that the file can be imported once it is mended.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;

use super::file::Lines;
use super::format::{BYTE_ORDER_MARK, Span};
use super::rows::{MAX_ROW_BYTES, Row, Rows};
use super::table::REJECTED_BECAUSE;

/// The file of rejected lines.
pub struct Rejects {
    output: BufWriter<File>,
    lines: Lines,
}

impl Rejects {
    /// Creates the file. An existing file is replaced, unless it is the file whose lines are rejected.
    pub fn create(path: &Path, lines: Lines) -> anyhow::Result<Self> {
        let is_same = std::fs::metadata(path).is_ok_and(|metadata| lines.is_of(&metadata));
        anyhow::ensure!(!is_same, "{} is the file that is imported: give --rejects another one", path.display());
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        let mut output = BufWriter::new(file);
        if let Some(table) = &lines.table {
            let above = table.above.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&table.above);
            write_row(&mut output, above, table.delimiter, REJECTED_BECAUSE)?;
        }
        Ok(Self { output, lines })
    }

    /// Writes a line, or the rows of an order. NDJSON gets the reason as a comment above the line, a table in a column of its own.
    pub fn write(&mut self, span: Span, reason: &str) -> anyhow::Result<()> {
        let Self { output, lines } = self;
        let reason = reason.replace(['\n', '\r'], " ");
        let Some(table) = &lines.table else {
            writeln!(output, "# line {}: {reason}", span.number)?;
            let ends = lines.copy(span, output)?;
            if !ends {
                output.write_all(b"\n")?;
            }
            return Ok(());
        };
        if span.bytes > MAX_ROW_BYTES as u64 {
            // Rows of this size are not split, so the reason follows them in a row of its own.
            lines.copy(span, output)?;
            return write_row(output, b"", table.delimiter, &reason);
        }
        let text = lines.read(span)?;
        let mut rows = Rows::new(text.as_slice(), table.delimiter, span.number, span.start);
        let mut row = Row::default();
        while rows.read(&mut row)? {
            if !row.is_blank() && !table.header.is_repeated_by(&row)? {
                write_row(output, row.text(), table.delimiter, &reason)?;
            }
        }
        Ok(())
    }

    /// Finishes the file.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.output.flush()?;
        Ok(())
    }
}

fn write_row(output: &mut impl Write, text: &[u8], delimiter: u8, reason: &str) -> anyhow::Result<()> {
    output.write_all(without_end(text))?;
    writeln!(output, "{}\"{}\"", char::from(delimiter), reason.replace('"', "\"\""))?;
    Ok(())
}

/// Returns a row without its line end. Blanks before it belong to the last field.
fn without_end(text: &[u8]) -> &[u8] {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text)
}
