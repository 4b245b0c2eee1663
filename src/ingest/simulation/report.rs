//! Compares the settings of a grid, in words and as a table.

use std::fmt::{self, Write as _};

use super::figures::Figures;
use super::seconds;
use super::setting::Setting;

/// The number of changes that are told.
const MAX_CHANGES: usize = 5;
/// A change is told if it lowers the lag by at least this part.
const WORTH: f64 = 0.1;

/// One setting that differs, and what that buys.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub from: Setting,
    pub to: Setting,
    /// The lag of 99 % of the messages, in microseconds.
    pub before: u64,
    pub after: u64,
}

/// Returns the changes of one value that lower the lag most, the best first. Of each value, only the step to the next one is looked at.
pub fn changes(figures: &[Figures]) -> Vec<Change> {
    let mut changes = Vec::new();
    for from in figures {
        for to in figures {
            let is_step = differing(from.setting, to.setting).is_some_and(|which| {
                let between = |other: &Figures| {
                    differing(from.setting, other.setting) == Some(which)
                        && is_between(value(other.setting, which), value(from.setting, which), value(to.setting, which))
                };
                !figures.iter().any(between)
            });
            if is_step && seconds(to.p99) <= (1.0 - WORTH) * seconds(from.p99) {
                changes.push(Change { from: from.setting, to: to.setting, before: from.p99, after: to.p99 });
            }
        }
    }
    changes.sort_by(|one, other| other.factor().total_cmp(&one.factor()));
    changes.truncate(MAX_CHANGES);
    changes
}

/// The values of a setting, by name.
const VALUES: [&str; 4] = ["partitions", "batch", "pool", "nodes"];

fn value(setting: Setting, which: usize) -> u32 {
    let Setting { partitions, batch, pool, nodes } = setting;
    [partitions, batch, pool, nodes][which]
}

/// Returns the only value in which two settings differ.
fn differing(one: Setting, other: Setting) -> Option<usize> {
    let mut different = (0..VALUES.len()).filter(|which| value(one, *which) != value(other, *which));
    let which = different.next()?;
    different.next().is_none().then_some(which)
}

fn is_between(value: u32, one: u32, other: u32) -> bool {
    (one.min(other) + 1..one.max(other)).contains(&value)
}

impl Change {
    fn factor(&self) -> f64 {
        seconds(self.before) / seconds(self.after.max(1))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = differing(self.from, self.to).unwrap_or_default();
        let named = |setting| format!("{} {}", VALUES[which], value(setting, which));
        let others = (0..VALUES.len()).filter(|other| *other != which);
        let others: Vec<String> = others.map(|other| format!("{} {}", VALUES[other], value(self.to, other))).collect();
        write!(
            f,
            "{} instead of {}: p99 {} → {} ({})",
            named(self.to),
            value(self.from, which),
            Span(self.before),
            Span(self.after),
            others.join(", ")
        )
    }
}

/// Writes the settings and their figures as a table of text.
pub fn table(figures: &[Figures]) -> String {
    let head = [
        "partitions",
        "batch",
        "pool",
        "nodes",
        "lag p50",
        "p99",
        "max",
        "catch-up",
        "memory",
        "database",
        "load",
        "limited by",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(figures.iter().map(row));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut table = String::new();
    for row in &rows {
        let (last, others) = row.split_last().unwrap_or((&row[0], &[]));
        for (cell, width) in others.iter().zip(&widths) {
            // A text cannot fail to be written.
            let _ = write!(table, "{cell:>width$}  ");
        }
        table += last;
        table.push('\n');
    }
    table
}

fn row(figures: &Figures) -> [String; 12] {
    let Setting { partitions, batch, pool, nodes } = figures.setting;
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let limited_by = figures.bottleneck.to_string();
    [
        partitions.to_string(),
        batch.to_string(),
        pool.to_string(),
        nodes.to_string(),
        Span(figures.p50).to_string(),
        Span(figures.p99).to_string(),
        Span(figures.max).to_string(),
        figures.catch_up.map_or_else(|| "-".to_owned(), |span| Span(span).to_string()),
        Bytes(figures.peak_bytes).to_string(),
        percent(figures.utilisation),
        percent(figures.load),
        if figures.is_unstable() { format!("{limited_by}: UNSTABLE") } else { limited_by },
    ]
}

/// Displays a duration in microseconds with two or three digits.
pub struct Span(pub u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = seconds(self.0);
        match span {
            _ if span < 0.9995 => write!(f, "{:.0} ms", span * 1e3),
            _ if span < 9.95 => write!(f, "{span:.1} s"),
            _ if span < 119.5 => write!(f, "{span:.0} s"),
            _ if span < 7_170.0 => write!(f, "{:.1} min", span / 60.0),
            _ => write!(f, "{:.1} h", span / 3_600.0),
        }
    }
}

/// Displays a number of bytes.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes < 10 << 10 => write!(f, "{bytes} B"),
            bytes if bytes < 10 << 20 => write!(f, "{:.0} KiB", bytes as f64 / 1_024.0),
            bytes => write!(f, "{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ingest::simulation::figures::Bottleneck;

    pub(in crate::ingest::simulation) fn figures(partitions: u32, nodes: u32, p99: u64) -> Figures {
        Figures {
            setting: Setting { partitions, batch: 256, pool: 1, nodes },
            p50: 2_000,
            p99,
            max: p99,
            catch_up: None,
            peak_bytes: 5 << 20,
            utilisation: 0.5,
            load: 0.7,
            bottleneck: Bottleneck::Database,
            lags: vec![(0, 1_000), (5_000_000, p99)],
        }
    }

    #[test]
    fn a_change_of_one_value_is_told_with_what_it_buys() {
        let all = [
            figures(1, 1, 90_000_000),
            figures(4, 1, 41_000_000),
            figures(12, 1, 3_000_000),
            figures(4, 2, 40_000_000),
        ];
        let told: Vec<String> = changes(&all).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "partitions 12 instead of 4: p99 41 s → 3.0 s (batch 256, pool 1, nodes 1)",
                "partitions 4 instead of 1: p99 90 s → 41 s (batch 256, pool 1, nodes 1)",
            ],
            "not from 1 to 12, and not what buys little"
        );
    }

    #[test]
    fn the_table_has_a_row_for_each_setting() {
        let unstable = Figures { load: 1.2, catch_up: Some(3 * 3_600_000_000), ..figures(12, 1, 300_000) };
        let table = table(&[figures(1, 1, 90_000_000), unstable]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[1].contains("2 ms") && lines[1].contains("90 s") && lines[1].ends_with("70 %  database"),
            "{table}"
        );
        assert!(lines[2].contains("300 ms") && lines[2].contains("3.0 h") && lines[2].ends_with("UNSTABLE"), "{table}");
    }
}
