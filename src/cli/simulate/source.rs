//! Where the trace comes from: a topic, a file, or a pattern.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

use super::micros;
use crate::app::clock::Clock;
use crate::app::message::{Message, OVERHEAD_BYTES};
use crate::cli::ingest::configured;
use crate::cli::span::parse_span;
use crate::config::Config;
use crate::ingest::excerpt::{End, Limits, READ_TIMEOUT, read_since};
use crate::ingest::simulation::pattern::{MAX_CUSTOMERS, Pattern, Shape};
use crate::ingest::simulation::trace::{MAX_ARRIVALS, Sent, Trace, hash};
use crate::ingest::topics::{HAS_CLIENT, check_build};

/// The most that is read of a topic, in bytes. Only sizes are kept.
const MAX_BYTES: u64 = 4 << 30;
/// The longest line of a file, in bytes.
const MAX_LINE_BYTES: u64 = 1_024;
/// The bounds of a pattern.
const MAX_RATE: f64 = 1e6;
const MAX_PEAK: f64 = 1e4;
const MAX_SKEW: f64 = 4.0;
const MAX_MESSAGE_BYTES: i64 = 1 << 20;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// How far back messages of the topic are taken.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = parse_span, conflicts_with_all = ["trace", "pattern"])]
    last: Duration,
    #[command(flatten)]
    made_up: MadeUp,
    /// Write the trace to this file, for --trace. Keys are replaced by their hashes.
    #[arg(long, value_name = "FILE")]
    save_trace: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Take what was sent to this topic lately.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Take the messages of this file: a line such as {"at": "2026-11-27T09:00:00Z", "bytes": 900, "key": "ada"} for each.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Make up messages.
    #[arg(long, value_name = "NAME")]
    pattern: Option<Name>,
}

/// The sources that are no pattern.
const NO_PATTERN: [&str; 2] = ["topic", "trace"];

/// What a pattern looks like.
#[derive(Debug, clap::Args)]
struct MadeUp {
    /// The lowest rate of the pattern, in messages a second.
    #[arg(long, value_name = "RATE", default_value_t = 50.0, value_parser = between(0.001, MAX_RATE), conflicts_with_all = NO_PATTERN)]
    rate: f64,
    /// How long the pattern is.
    #[arg(long, value_name = "SPAN", default_value = "30m", value_parser = parse_span, conflicts_with_all = NO_PATTERN)]
    duration: Duration,
    /// How many times the lowest rate the highest one is.
    #[arg(long, value_name = "FACTOR", default_value_t = 20.0, value_parser = between(1.0, MAX_PEAK), conflicts_with_all = NO_PATTERN)]
    peak: f64,
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CUSTOMERS)), conflicts_with_all = NO_PATTERN)]
    customers: u32,
    /// How unequal the customers are: the exponent of Zipf's law. 0: all send the same.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.0, value_parser = between(0.0, MAX_SKEW), conflicts_with_all = NO_PATTERN)]
    skew: f64,
    /// The size of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=MAX_MESSAGE_BYTES), conflicts_with_all = NO_PATTERN)]
    bytes: u32,
}

/// The name of a pattern.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    Steady,
    /// Most of it comes in a tenth of the time.
    FlashSale,
    /// Quiet nights and busy days.
    Daily,
}

/// Returns a parser of numbers within these bounds.
pub(super) fn between(least: f64, most: f64) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("write a number from {least} to {most}"))
    }
}

impl Args {
    pub(super) async fn trace(&self, config: &Config) -> anyhow::Result<Trace> {
        let trace = match (&self.source.topic, &self.source.trace) {
            (Some(topic), _) => of_topic(config, topic.clone(), self.last).await?,
            (None, Some(path)) => of_file(path)?,
            (None, None) => self.pattern()?,
        };
        if let Some(path) = &self.save_trace {
            save(&trace, path).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(trace)
    }

    fn pattern(&self) -> anyhow::Result<Trace> {
        let MadeUp { rate, duration, peak, customers, skew, bytes } = self.made_up;
        let shape = match self.source.pattern {
            Some(Name::FlashSale) => Shape::FlashSale,
            Some(Name::Daily) => Shape::Daily,
            Some(Name::Steady) | None => Shape::Steady,
        };
        let pattern = Pattern { shape, rate, peak, length: micros(duration), customers, skew, bytes };
        pattern.trace().context("--pattern: choose another --rate, --peak or --duration")
    }
}

async fn of_topic(config: &Config, topic: String, last: Duration) -> anyhow::Result<Trace> {
    check_build(config.kafka.as_ref(), HAS_CLIENT)?;
    let kafka = configured(config)?.clone();
    let now = Clock::System.now();
    let since = now.minus(i64::try_from(micros(last)).unwrap_or(i64::MAX));
    let named = topic.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut sent = Vec::new();
        let limits = Limits { messages: MAX_ARRIVALS as u64, bytes: MAX_BYTES };
        let read = read_since(&kafka, &named, since, limits, |message| sent.extend(sent_of(message)))?;
        anyhow::Ok((read, sent))
    });
    let (read, sent) = reading.await?.with_context(|| format!("the topic `{topic}` cannot be read"))?;
    // Some partitions would lack their end, and seem to have fewer messages than others.
    let shorter =
        |what: String| anyhow::anyhow!("the topic `{topic}` has {what} in this time: choose a shorter --last");
    match read.end {
        End::Whole => {}
        End::Messages => return Err(shorter(format!("more than {MAX_ARRIVALS} messages"))),
        End::Bytes => return Err(shorter(format!("more than {} MiB", MAX_BYTES >> 20))),
        End::Time => return Err(shorter(format!("more messages than can be read in {} s", READ_TIMEOUT.as_secs()))),
    }
    Trace::new(sent).with_context(|| format!("the topic `{topic}`, since {since}"))
}

fn sent_of(message: &Message) -> Option<Sent> {
    let bytes = message.bytes().saturating_sub(OVERHEAD_BYTES);
    Some(Sent {
        at: message.sent_at?,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        key: message.key.as_deref().map(hash),
    })
}

fn of_file(path: &Path) -> anyhow::Result<Trace> {
    let named = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(named)?;
    let mut input = BufReader::new(file);
    let lines = std::iter::from_fn(|| {
        let mut line = String::new();
        match (&mut input).take(MAX_LINE_BYTES).read_line(&mut line) {
            Ok(0) => None,
            read => Some(read.map(|_| line)),
        }
    });
    Trace::parse(lines).with_context(named)
}

fn save(trace: &Trace, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    trace.lines().try_for_each(|line| writeln!(file, "{line}"))?;
    file.flush()
}
