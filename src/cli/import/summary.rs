//! Prints the summary of an import: the number of lines by outcome, and the awards and points of each campaign.

use std::io::{Write as _, stdout};

use crate::app::App;
use crate::app::stats;
use crate::cli::printable::Printable;
use crate::ingest::{Counts, End};

pub(super) async fn print(app: &App, counts: &Counts, seconds: f64, end: &End) -> anyhow::Result<()> {
    let Counts { recorded, replayed, skipped } = counts;
    let mut out = stdout().lock();
    let rate = (recorded + replayed) as f64 / seconds.max(0.001);
    writeln!(out, "{recorded} recorded, {replayed} known already, {skipped} skipped in {seconds:.1} s ({rate:.0}/s)")?;
    match end {
        End::Whole => {}
        End::Strict => writeln!(out, "stopped at the first wrong line (--strict)")?,
        End::Stopped | End::Failed(_) => writeln!(out, "stopped: run the same command again to continue")?,
    }
    drop(out);
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
