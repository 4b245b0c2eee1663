//! Where the costs come from: a running server, a calibration, or the command line.

use std::time::Duration;

use anyhow::Context as _;

use super::calibration::{MAX_CALIBRATION, calibrate};
use super::source::between;
use crate::cli::span::parse_span;
use crate::config::Config;
use crate::ingest::simulation::costs::{Costs, Fit, MAX_COST, of_metrics};

/// How long the server may take to tell its metrics.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest text of metrics, in bytes.
const MAX_METRICS_BYTES: usize = 16 << 20;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    #[command(flatten)]
    measured: Measured,
    /// What each message of a batch costs, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = between(0.0001, MAX_COST * 1e3), requires = "cost_batch_ms")]
    cost_message_ms: Option<f64>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Measured {
    /// Take the costs from a running server, such as http://127.0.0.1:9090/metrics.
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// Measure the costs on this machine for this long, at most 2m, with a throwaway SQLite database.
    #[arg(long, value_name = "SPAN", num_args = 0..=1, default_missing_value = "30s", value_parser = parse_calibration)]
    calibrate: Option<Duration>,
    /// What a batch costs, however large it is, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = between(0.0, MAX_COST * 1e3), requires = "cost_message_ms")]
    cost_batch_ms: Option<f64>,
}

fn parse_calibration(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if span > MAX_CALIBRATION { Err("a calibration takes at most 2m".to_owned()) } else { Ok(span) }
}

impl Args {
    /// Finds the costs. The text says where they are from.
    pub(super) async fn find(&self, config: &Config) -> anyhow::Result<(Costs, String)> {
        if let Some(url) = &self.measured.metrics {
            let text = fetch(url).await.with_context(|| format!("--metrics {url}"))?;
            let sums = of_metrics(&text)
                .with_context(|| format!("--metrics {url}: these are not the metrics of a Windfall server"))?;
            let (costs, fit) = Costs::fit(&sums).with_context(|| format!("--metrics {url}"))?;
            return Ok((costs, format!("{} batches of a server{}", sums.batches, caution(fit))));
        }
        if let Some(span) = self.measured.calibrate {
            let sums = calibrate(config, span).await.context("the calibration failed")?;
            let (costs, fit) = Costs::fit(&sums).context("the calibration was too short")?;
            return Ok((costs, format!("{} batches on a throwaway SQLite database{}", sums.batches, caution(fit))));
        }
        let (batch, item) = self.measured.cost_batch_ms.zip(self.cost_message_ms).unwrap_or_default();
        Ok((Costs { batch: batch / 1e3, item: item / 1e3 }, "given".to_owned()))
    }
}

/// What the costs do not tell.
fn caution(fit: Fit) -> &'static str {
    match fit {
        Fit::Both => "",
        Fit::ItemOnly => "; from their sizes, only the cost of a message can be told",
        Fit::BatchOnly => "; larger ones were no slower",
    }
}

async fn fetch(url: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(METRICS_TIMEOUT).build()?;
    let mut answer = client.get(url).send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        anyhow::ensure!(text.len() + chunk.len() <= MAX_METRICS_BYTES, "the answer has more than 16 MiB");
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8(text)?)
}
