//! `windfall import`: records the purchases and refunds of a file. This module handles the terminal: the arguments, the
//! progress bar, Ctrl-C and the summary. [`crate::ingest`] records the facts.

pub(super) mod campaigns;
mod summary;

use std::io::{Write as _, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::printable::Printable;
use super::start_app;
use crate::app::jobs::runner;
use crate::config::Config;
use crate::ingest::file::{length, read_ahead};
use crate::ingest::{End, Event, ingest};

/// The number of committed facts between two updates of the progress bar's text.
const FACTS_PER_MESSAGE: u64 = 1_000;

/// Import purchases and refunds from a file. After an interruption, run the import again: it records only what is missing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// NDJSON with one purchase or one `{"refund": {…}}` per line, or CSV with a header if the name ends in .csv. The lines
    /// are recorded in the order of time. `-` reads NDJSON from the standard input and records the lines as they come.
    file: PathBuf,
    /// A JSON array of campaigns to create and activate first. Each has the form of the input of createCampaign.
    #[arg(long, value_name = "FILE")]
    campaigns: Option<PathBuf>,
    /// Stop at the first line that is malformed or refused.
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    // Whatever can be refused without the database is refused before anything is written.
    let bytes = length(&args.file)?;
    let campaigns = args.campaigns.as_deref().map(campaigns::read).transpose()?;
    let app = start_app(config).await?;
    let started = app.clock.now();
    campaigns::activate(&app, campaigns.unwrap_or_default()).await?;
    runner::finish(&app).await?;
    let bar = progress_bar(bytes);
    let (lines, reading) = read_ahead(args.file, app.clock.clone());
    let (end, counts) = ingest(&app, lines, args.strict, interrupted()?, |event| show(&bar, &event)).await;
    bar.finish_and_clear();
    let seconds = app.clock.now().minus(started.0).0 as f64 / 1e6;
    summary::print(&app, &counts, seconds, &end).await?;
    app.stop().await?;
    match end {
        End::Whole => {
            reading.await??;
            Ok(ExitCode::SUCCESS)
        }
        End::Strict => Ok(ExitCode::FAILURE),
        // The exit code that shells give a command that Ctrl-C ended: 128 + SIGINT.
        End::Stopped => Ok(ExitCode::from(130)),
        End::Failed(error) => Err(error.into()),
    }
}

fn show(bar: &ProgressBar, event: &Event<'_>) {
    match event {
        Event::Taken(bytes) => bar.set_position(*bytes),
        Event::Settled(counts) => {
            let done = counts.recorded + counts.replayed;
            if done.is_multiple_of(FACTS_PER_MESSAGE) {
                let rate = done as f64 / bar.elapsed().as_secs_f64().max(0.001);
                bar.set_message(format!("{done} lines, {rate:.0}/s"));
            }
        }
        // If stderr cannot be written, the line is still counted.
        Event::Skipped { line, reason } => {
            bar.suspend(|| drop(writeln!(stderr(), "line {line}: {}", Printable(reason))));
        }
    }
}

pub(super) fn progress_bar(bytes: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let bar = match bytes {
        Some(bytes) => ProgressBar::with_draw_target(Some(bytes), target).with_style(
            ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}  {eta} left")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        ),
        None => ProgressBar::with_draw_target(None, target).with_style(
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Returns a token that is cancelled by Ctrl-C.
fn interrupted() -> std::io::Result<CancellationToken> {
    let interrupted = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = interrupted.clone();
    tokio::spawn(async move {
        interrupt.recv().await;
        token.cancel();
    });
    Ok(interrupted)
}
