//! `windfall import`: records the purchases, refunds and adjustments of a file. This module handles the terminal: the arguments, the
//! progress bar, Ctrl-C and the summary. [`crate::ingest`] reads the file and records the facts.

pub(super) mod campaigns;
mod options;
mod summary;

use std::io::{ErrorKind, Write as _, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::options::Options;
use self::summary::Reading;
use super::printable::Printable;
use super::start_app;
use crate::app::clock::Clock;
use crate::app::jobs::runner;
use crate::app::viewer::Actor;
use crate::config::Config;
use crate::ingest::file::Source;
use crate::ingest::rejects::Rejects;
use crate::ingest::{End, Event, Mode, Report, ingest, rehearse};

/// The number of committed facts between two updates of the progress bar's text.
const FACTS_PER_MESSAGE: u64 = 1_000;
/// The number of faulty lines that are told on stderr.
const MAX_TOLD: u64 = 10;
/// The exit code if some lines were faulty.
const FAULTY: u8 = 2;

/// Import purchases, refunds and adjustments from a file. After an interruption, run the import again: it records only what is
/// missing.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An orders export of Shopify or of a plug-in of WooCommerce, CSV, or NDJSON; also packed with gzip or zstd. The lines are
    /// recorded in the order of time. `-` is the standard input, whose lines are recorded as they come.
    file: PathBuf,
    /// A JSON array of campaigns to create and activate first. Each has the form of the input of createCampaign.
    #[arg(long, value_name = "FILE")]
    campaigns: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Show how the file is understood, and record nothing.
    #[arg(long)]
    dry_run: bool,
    /// Write the faulty lines to this file, as they were and with the reason.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Stop at the first line that is malformed or refused.
    #[arg(long)]
    strict: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    // Whatever can be refused without the database is refused before anything is written.
    let settings = args.options.settings(args.rejects.is_some())?;
    let source = Source::open(&args.file, settings, Clock::System.now())?;
    let campaigns = args.campaigns.as_deref().map(campaigns::read).transpose()?;
    let reading = reading(&source);
    let has_as_of = source.decisions().as_of.is_some();
    let mode = Mode { strict: args.strict, is_export: source.kind().is_export(), has_as_of };
    let rejects = match (&args.rejects, source.lines()) {
        (Some(path), Some(lines)) => Some(Rejects::create(path, lines)?),
        _ => None,
    };
    let mut terminal = Terminal { bar: progress_bar(source.length()), faulty: 0, rejects, failed: None };
    if args.dry_run {
        let (lines, reading_ended) = source.read_ahead(Clock::System);
        let (end, report) = rehearse(lines, mode, interrupted()?, |event| terminal.show(&event)).await;
        let closed = terminal.close();
        quiet(summary::print_rehearsed(&report, &reading).map_err(Into::into))?;
        closed?;
        read_to_end(&end, reading_ended).await?;
        exit_code(end, &report, report.tally.facts())
    } else {
        let app = start_app(config).await?;
        let started = app.clock.now();
        campaigns::activate(&app, &Actor::process("import"), campaigns.unwrap_or_default()).await?;
        runner::finish(&app).await?;
        let (lines, reading_ended) = source.read_ahead(app.clock.clone());
        let (end, report) = ingest(&app, lines, mode, interrupted()?, |event| terminal.show(&event)).await;
        let closed = terminal.close();
        let seconds = app.clock.now().minus(started.0).0 as f64 / 1e6;
        quiet(summary::print(&app, &report, &reading, seconds, &end).await)?;
        closed?;
        app.stop().await?;
        read_to_end(&end, reading_ended).await?;
        let settled = report.counts.recorded + report.counts.replayed;
        exit_code(end, &report, settled)
    }
}

/// Returns the error that ended the reading of a file. If the import was stopped, reading may still go on.
async fn read_to_end(end: &End, reading: tokio::sync::oneshot::Receiver<anyhow::Result<()>>) -> anyhow::Result<()> {
    if !matches!(end, End::Whole) {
        return Ok(());
    }
    reading.await.context("the file could not be read to its end")?
}

/// Whoever reads the output may stop reading, as `head` does.
fn quiet(printed: anyhow::Result<()>) -> anyhow::Result<()> {
    let is_closed = |error: &anyhow::Error| {
        error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    match printed {
        Err(error) if is_closed(&error) => Ok(()),
        printed => printed,
    }
}

/// Returns 0 if everything was recorded or left out by a rule, 2 if some lines were faulty, and 1 if nothing was usable or the import
/// was interrupted. `good` is the number of facts that were recorded, or would be.
fn exit_code(end: End, report: &Report, good: u64) -> anyhow::Result<ExitCode> {
    let counts = &report.counts;
    let is_usable = good + counts.left_out > 0;
    Ok(match end {
        End::Failed(error) => return Err(error.into()),
        End::Stopped => ExitCode::FAILURE,
        End::Whole | End::Strict if counts.faulty == 0 => ExitCode::SUCCESS,
        End::Whole | End::Strict if is_usable => ExitCode::from(FAULTY),
        End::Whole | End::Strict => ExitCode::FAILURE,
    })
}

/// Says how a file is read.
fn reading(source: &Source) -> Reading {
    let decisions = source.decisions();
    let revision = source.kind().is_export().then(|| match decisions.as_of {
        Some(as_of) => format!("as of {as_of}: revision {}", decisions.revision),
        None => format!(
            "as of the newest instant in the file: revision {}. Without --as-of, a refund that is recorded by itself counts only \
             where such refunds exceed what the file states as refunded",
            decisions.revision
        ),
    });
    Reading { named: source.kind().named(), revision }
}

/// What is shown and written while the import runs.
struct Terminal {
    bar: ProgressBar,
    faulty: u64,
    rejects: Option<Rejects>,
    /// Why the file of rejected lines cannot be written.
    failed: Option<anyhow::Error>,
}

impl Terminal {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Taken(bytes) => self.bar.set_position(*bytes),
            Event::Settled(counts) => {
                let done = counts.recorded + counts.replayed;
                if done.is_multiple_of(FACTS_PER_MESSAGE) {
                    let rate = done as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
                    self.bar.set_message(format!("{done} lines, {rate:.0}/s"));
                }
            }
            Event::Faulty { span, reason } => {
                self.faulty += 1;
                if self.faulty <= MAX_TOLD {
                    // If stderr cannot be written, the line is still counted.
                    self.bar.suspend(|| drop(writeln!(stderr(), "line {}: {}", span.number, Printable(reason))));
                }
                if let Some(rejects) = &mut self.rejects
                    && let Err(error) = rejects.write(*span, reason)
                {
                    self.failed = Some(error);
                    self.rejects = None;
                }
            }
        }
    }

    /// Ends the progress bar and the file of rejected lines. Tells how many lines were faulty.
    fn close(&mut self) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        if self.faulty > MAX_TOLD {
            let how = if self.rejects.is_some() {
                "all of them are in the file of --rejects"
            } else {
                "--rejects FILE writes all of them"
            };
            drop(writeln!(stderr(), "{} lines are faulty, of which the first {MAX_TOLD} are told: {how}", self.faulty));
        }
        if let Some(error) = self.failed.take() {
            return Err(error.context("the file of rejected lines cannot be written"));
        }
        let closed = self.rejects.take().map_or(Ok(()), Rejects::close);
        closed.context("the file of rejected lines cannot be written")
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

/// Returns a token that is cancelled by Ctrl-C or SIGTERM.
fn interrupted() -> std::io::Result<CancellationToken> {
    let interrupted = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let token = interrupted.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        token.cancel();
    });
    Ok(interrupted)
}
