//! `windfall simulate`: predicts what a configuration will do, before it is made.

mod calibration;
mod costs;
mod source;

use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use clap::builder::RangedU64ValueParser;

use super::span::parse_span;
use crate::config::Config;
use crate::ingest::simulation::costs::Costs;
use crate::ingest::simulation::figures::Figures;
use crate::ingest::simulation::report::{Bytes, Span, changes, table};
use crate::ingest::simulation::setting::{
    Conditions, MAX_BATCH, MAX_NODES, MAX_PARTITIONS, MAX_POOL, Outage, Setting, grid,
};
use crate::ingest::simulation::svg;
use crate::ingest::simulation::trace::Trace;
use crate::ingest::tally::counted;

/// `kafka.buffer_bytes` if Kafka is not configured.
const BUFFER_BYTES: u64 = 16 << 20;
/// The largest part of messages that may be dead letters. With more, partitions stop.
const MAX_POISON: f64 = 0.5;

/// Predict what a configuration will do, before it is made.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ingest(Box<Ingest>),
}

/// Predict lag, catch-up and memory of the consumers of a topic, for a grid of settings. Nothing is recorded or committed.
#[derive(Debug, clap::Args)]
struct Ingest {
    #[command(flatten)]
    source: source::Args,
    #[command(flatten)]
    costs: costs::Args,
    #[command(flatten)]
    grid: Grid,
    /// Draw the lag over time of each setting into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What is compared: each combination of these values.
#[derive(Debug, clap::Args)]
struct Grid {
    /// Partitions of the topic, such as 1,4,12.
    #[arg(long, value_name = "LIST", default_value = "1,4,12", value_delimiter = ',', value_parser = up_to(MAX_PARTITIONS))]
    partitions: Vec<u32>,
    /// The largest batch of a node. Default: `writer.batch_items`.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = up_to(MAX_BATCH))]
    batch: Vec<u32>,
    /// How many transactions the database works on at a time without becoming slower, those of all nodes together.
    #[arg(long, value_name = "LIST", default_value = "1", value_delimiter = ',', value_parser = up_to(MAX_POOL))]
    pool: Vec<u32>,
    /// Nodes that read the topic.
    #[arg(long, value_name = "LIST", default_value = "1", value_delimiter = ',', value_parser = up_to(MAX_NODES))]
    nodes: Vec<u32>,
    /// The memory of a node for messages. Default: `kafka.buffer_bytes`.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1 << 20..=4 << 30))]
    buffer_bytes: Option<u64>,
    /// Which part of the messages become dead letters, from 0 to 0.5.
    #[arg(long, value_name = "PART", default_value_t = 0.0, value_parser = parse_poison)]
    poison: f64,
    /// Nothing is recorded for this long.
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    outage: Option<Duration>,
    /// When the outage begins, since the beginning of the trace. Default: after a quarter of it.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, requires = "outage")]
    outage_at: Option<Duration>,
}

fn up_to(most: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(most))
}

fn parse_poison(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=MAX_POISON).contains(part));
    part.ok_or_else(|| format!("a part is a number from 0 to {MAX_POISON}: with more dead letters, partitions stop"))
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    let Command::Ingest(args) = args.command;
    let settings = args.grid.settings(config)?;
    let trace = args.source.trace(config).await?;
    let (costs, told) = args.costs.find(config).await?;
    let conditions = args.grid.conditions(config, &trace, costs)?;
    let figures = tokio::task::spawn_blocking({
        let trace = trace.clone();
        move || settings.iter().map(|setting| Figures::measure(&trace, *setting, &conditions)).collect::<Vec<_>>()
    });
    let figures = figures.await?;
    let title = describe(&trace);
    write!(stdout(), "{}", report(&title, &told, &conditions, &figures))?;
    if let Some(path) = &args.svg {
        let drawing = svg::draw(&title, &figures);
        std::fs::write(path, drawing).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Grid {
    fn settings(&self, config: &Config) -> anyhow::Result<Vec<Setting>> {
        let configured = [u32::try_from(config.writer.batch_items).unwrap_or(MAX_BATCH)];
        let batch = if self.batch.is_empty() { &configured[..] } else { &self.batch };
        Ok(grid(&self.partitions, batch, &self.pool, &self.nodes)?)
    }

    fn conditions(&self, config: &Config, trace: &Trace, costs: Costs) -> anyhow::Result<Conditions> {
        let configured = config.kafka.as_ref().map_or(BUFFER_BYTES, |kafka| kafka.buffer_bytes as u64);
        let outage = self.outage.map(|outage| {
            let from = self.outage_at.map_or(trace.end() / 4, micros);
            Outage { from, to: from.saturating_add(micros(outage)) }
        });
        if let Some(outage) = outage {
            anyhow::ensure!(
                outage.to < trace.end(),
                "the outage ends {} after the beginning, and the trace has {}: make the outage shorter or the trace longer",
                Span(outage.to),
                Span(trace.end())
            );
        }
        let buffer_bytes = self.buffer_bytes.unwrap_or(configured);
        Ok(Conditions { costs, buffer_bytes, poison: self.poison, outage })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Says what arrives.
fn describe(trace: &Trace) -> String {
    format!(
        "{} in {}: {:.1}/s on average, {} bytes each",
        counted(trace.arrivals().len() as u64, "message"),
        Span(trace.end()),
        trace.rate(),
        trace.mean_bytes()
    )
}

fn report(title: &str, costs_from: &str, conditions: &Conditions, figures: &[Figures]) -> String {
    let Conditions { costs, buffer_bytes, poison, outage } = conditions;
    let mut text = format!("trace   {title}\n");
    text += &format!(
        "costs   a batch of n items takes {:.3} ms + n × {:.4} ms ({costs_from})\n",
        costs.batch * 1e3,
        costs.item * 1e3
    );
    text += &format!(
        "memory  {} a node, {:.1} % of the messages become dead letters\n",
        Bytes(*buffer_bytes),
        poison * 100.0
    );
    if let Some(outage) = outage {
        text += &format!("outage  {} after {}\n", Span(outage.to - outage.from), Span(outage.from));
    }
    text += &format!("\n{}", table(figures));
    if figures.iter().any(Figures::is_unstable) {
        text += "\nUNSTABLE: more arrives than can be recorded, so the lag grows for as long as messages arrive\n";
    }
    let changes = changes(figures);
    if !changes.is_empty() {
        text += "\nWhat one change buys\n";
    }
    for change in changes {
        text += &format!("  {change}\n");
    }
    text
}
