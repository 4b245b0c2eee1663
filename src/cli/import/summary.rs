//! Prints the summary of an import: the number of lines by outcome, what was understood, what was left out and which faults there
//! are, and the awards and points of each campaign. A dry run prints the same, without campaigns.

use std::io::{Write, stdout};

use crate::app::App;
use crate::app::stats;
use crate::cli::printable::Printable;
use crate::ingest::tally::{Group, Groups, counted};
use crate::ingest::{Counts, End, Report};

/// How the file was read.
pub(super) struct Reading {
    /// What the file is.
    pub(super) named: &'static str,
    /// About the revision of its orders, if it is an export.
    pub(super) revision: Option<String>,
}

/// Prints what a dry run understood.
pub(super) fn print_rehearsed(report: &Report, reading: &Reading) -> std::io::Result<()> {
    let mut out = stdout().lock();
    let Counts { left_out, faulty, .. } = report.counts;
    let good = report.tally.facts();
    writeln!(out, "nothing was recorded (--dry-run): {good} would be recorded, {left_out} left out, {faulty} faulty")?;
    for described in &report.tally.first {
        writeln!(out, "  {}", Printable(described))?;
    }
    print_understood(&mut out, report, reading)
}

/// Prints what an import did.
pub(super) async fn print(
    app: &App,
    report: &Report,
    reading: &Reading,
    seconds: f64,
    end: &End,
) -> anyhow::Result<()> {
    let Counts { recorded, replayed, left_out, faulty, .. } = report.counts;
    let mut out = stdout().lock();
    let rate = (recorded + replayed) as f64 / seconds.max(0.001);
    writeln!(
        out,
        "{recorded} recorded, {replayed} known already, {left_out} left out, {faulty} faulty in {seconds:.1} s ({rate:.0}/s)"
    )?;
    match end {
        End::Whole => {}
        End::Strict => writeln!(out, "stopped at the first faulty line (--strict)")?,
        End::Stopped | End::Failed(_) => writeln!(out, "stopped: run the same command again to continue")?,
    }
    print_understood(&mut out, report, reading)?;
    drop(out);
    print_campaigns(app).await
}

fn print_understood(out: &mut impl Write, report: &Report, reading: &Reading) -> std::io::Result<()> {
    let tally = &report.tally;
    writeln!(out, "read as {}", reading.named)?;
    if let Some(revision) = &reading.revision {
        writeln!(out, "{revision}")?;
    }
    let (customers, is_least) = tally.customers();
    let facts = [
        (tally.purchases, "purchase"),
        (tally.guests, "guest order"),
        (tally.refunds, "refund"),
        (tally.adjustments, "adjustment"),
    ];
    let mut told: Vec<String> =
        facts.iter().filter(|(count, _)| *count > 0).map(|(count, noun)| counted(*count, noun)).collect();
    if report.counts.superseded > 0 {
        told.push(format!("{} superseded by what is recorded", report.counts.superseded));
    }
    match told.as_slice() {
        [] => writeln!(out, "0 orders")?,
        told => {
            let least = if is_least { "at least " } else { "" };
            writeln!(out, "{}; {least}{}", told.join(", "), counted(customers as u64, "customer"))?;
        }
    }
    for (currency, totals) in &tally.totals {
        let (total, refunded) = (currency.format(totals.total), currency.format(totals.refunded));
        writeln!(out, "{currency}: {}, total {total}, refunded {refunded}", counted(totals.purchases, "purchase"))?;
    }
    print_groups(out, "recorded with a total of 0", "", &tally.void)?;
    print_groups(out, "left out", "", &tally.left_out)?;
    print_groups(out, "faulty", "line", &tally.faults)
}

fn print_groups(out: &mut impl Write, what: &str, unit: &str, groups: &Groups) -> std::io::Result<()> {
    for (text, Group { count, named }) in groups.by_count() {
        let more = if *count > named.len() as u64 { ", …" } else { "" };
        let unit = match (unit, *count) {
            ("", _) => String::new(),
            (unit, 1) => format!("{unit} "),
            (unit, _) => format!("{unit}s "),
        };
        let named = named.join(", ");
        writeln!(out, "{what}: {count} × {} ({unit}{}{more})", Printable(text), Printable(&named))?;
    }
    if groups.more > 0 {
        writeln!(out, "{what}: {} more, of other kinds", groups.more)?;
    }
    Ok(())
}

async fn print_campaigns(app: &App) -> anyhow::Result<()> {
    let set = app.campaigns().await?;
    let totals = stats::by_campaign(app).await?;
    let activated = set.all().iter().filter(|campaign| campaign.life.activated);
    let rows: Vec<[String; 4]> = activated
        .map(|campaign| {
            let total = totals.get(&campaign.id()).copied().unwrap_or_default();
            let name = Printable(&campaign.row.name).to_string();
            [name, total.awards.to_string(), total.customers.to_string(), total.points_standing.to_string()]
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let titles = ["campaign", "awards", "customers", "points"].map(str::to_owned);
    let width =
        |column: usize| rows.iter().chain([&titles]).map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2), width(3)];
    let mut out = stdout().lock();
    writeln!(out)?;
    for [name, awards, customers, points] in std::iter::once(&titles).chain(&rows) {
        let [w0, w1, w2, w3] = widths;
        writeln!(out, "{name:<w0$}  {awards:>w1$}  {customers:>w2$}  {points:>w3$}")?;
    }
    Ok(())
}
