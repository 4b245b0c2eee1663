//! `windfall import`: a file of purchases and refunds through the write path.
//!
//! Idempotent, therefore resumable: stopped anywhere and run again it loses nothing and changes nothing twice. Lines
//! are read and checked in a thread of their own ([`reader`]) while the writers commit.

pub(super) mod campaigns;
mod reader;
mod summary;

use std::collections::VecDeque;
use std::io::stderr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::reader::{Line, Record};
use super::printable::Printable;
use super::start_app;
use crate::app::App;
use crate::app::clock::Clock;
use crate::app::error::Error;
use crate::app::jobs::runner;
use crate::app::recorder::fact::{Answer, Fact};
use crate::app::refund::{RecordRefund, find_purchases};
use crate::config::Config;

/// Lines read ahead of the writers.
const READ_AHEAD: usize = 2_048;
/// Answers awaited at once.
const MAX_WAITING: usize = 4_096;
/// Refunds whose purchases are looked up together.
const REFUND_CHUNK: usize = 512;
/// Refunds kept for the end of the file; more are told at once.
const MAX_KEPT_REFUNDS: usize = 1_000_000;

/// Import purchases and refunds from a file. Running it again changes nothing and goes on where it stopped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// NDJSON (one purchase a line, or `{"refund": {…}}`) or CSV with a header (a name that ends in .csv); `-`: NDJSON
    /// from the standard input.
    file: PathBuf,
    /// A JSON array of campaigns (the input of createCampaign) to create and activate first.
    #[arg(long, value_name = "FILE")]
    campaigns: Option<PathBuf>,
    /// Stop at the first line that is wrong.
    #[arg(long)]
    strict: bool,
}

/// What became of the lines.
#[derive(Debug, Default)]
struct Counts {
    recorded: u64,
    replayed: u64,
    skipped: u64,
}

pub(super) async fn run(args: Args, config: &Config) -> anyhow::Result<ExitCode> {
    // What can be refused without the database is refused first.
    let bytes = reader::length(&args.file)?;
    let campaigns = args.campaigns.as_deref().map(campaigns::read).transpose()?;
    let app = start_app(config).await?;
    let started = app.clock.now();
    campaigns::activate(&app, campaigns.unwrap_or_default()).await?;
    runner::finish(&app).await?;
    let bar = progress_bar(bytes);
    let (lines, reading) = read_ahead(args.file, app.clock.clone());
    let mut import = Import {
        app: &app,
        bar: &bar,
        strict: args.strict,
        counts: Counts::default(),
        waiting: VecDeque::new(),
        refunds: Vec::new(),
        kept: Vec::new(),
        interrupted: interrupted()?,
    };
    let end = import.run(lines).await;
    let counts = import.counts;
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
        // As a shell says it: 128 + SIGINT.
        End::Interrupted => Ok(ExitCode::from(130)),
        End::Failed(error) => Err(error.into()),
    }
}

/// Reads in a thread that the end of the process does not wait for: nothing interrupts the reading of a terminal or of
/// an open pipe.
fn read_ahead(file: PathBuf, clock: Clock) -> (mpsc::Receiver<Line>, oneshot::Receiver<anyhow::Result<()>>) {
    let (sender, lines) = mpsc::channel(READ_AHEAD);
    let (done, reading) = oneshot::channel();
    std::thread::spawn(move || {
        // The lines end when the sender is dropped; how they ended must be known by then.
        let _ = done.send(reader::read(&file, &clock, &sender));
    });
    (lines, reading)
}

/// How an import ended.
enum End {
    Whole,
    /// At a wrong line.
    Strict,
    Interrupted,
    Failed(Error),
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

struct Import<'a> {
    app: &'a App,
    bar: &'a ProgressBar,
    strict: bool,
    counts: Counts,
    /// Lines handed to the writers, in order, not answered yet.
    waiting: VecDeque<(u64, oneshot::Receiver<Answer>)>,
    /// Refunds to be looked up.
    refunds: Vec<(u64, RecordRefund)>,
    /// Refunds whose purchase has not come yet.
    kept: Vec<(u64, RecordRefund)>,
    /// By Ctrl-C: what was handed to the writers is awaited, nothing more is.
    interrupted: CancellationToken,
}

/// Is cancelled by Ctrl-C.
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

impl Import<'_> {
    async fn run(&mut self, mut lines: mpsc::Receiver<Line>) -> End {
        let interrupted = self.interrupted.clone();
        loop {
            let line = tokio::select! {
                biased;
                () = interrupted.cancelled() => {
                    lines.close();
                    return match self.settle_all().await {
                        Ok(_) => End::Interrupted,
                        Err(error) => End::Failed(error),
                    };
                }
                line = lines.recv() => line,
            };
            let step = match line {
                Some(line) => self.take(line).await,
                None => return self.finish().await.unwrap_or_else(End::Failed),
            };
            match step {
                Ok(true) => {}
                Ok(false) => {
                    lines.close();
                    return self.settle_all().await.map_or_else(End::Failed, |_| End::Strict);
                }
                Err(error) => return End::Failed(error),
            }
        }
    }

    /// Takes a line; false: it is wrong, and that stops the import.
    async fn take(&mut self, line: Line) -> Result<bool, Error> {
        self.bar.set_position(line.end_byte);
        match line.record {
            Ok(Record::Purchase(purchase)) => {
                let answer = self.app.recorder.record_when_free(Fact::Purchase(*purchase)).await?;
                self.waiting.push_back((line.number, answer));
            }
            Ok(Record::Refund(refund)) => {
                self.refunds.push((line.number, *refund));
                if self.refunds.len() >= REFUND_CHUNK {
                    return self.record_refunds().await;
                }
            }
            Err(reason) => return Ok(self.skip(line.number, &reason)),
        }
        if self.waiting.len() >= MAX_WAITING {
            return self.settle_one().await;
        }
        Ok(true)
    }

    /// After the last line.
    async fn finish(&mut self) -> Result<End, Error> {
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        // Those that came before their purchase.
        self.refunds = std::mem::take(&mut self.kept);
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        if self.interrupted.is_cancelled() {
            return self.settle_all().await.map(|_| End::Interrupted);
        }
        for (number, _) in std::mem::take(&mut self.kept) {
            if !self.skip(number, "purchaseExternalId: no such purchase has been recorded") {
                return Ok(End::Strict);
            }
        }
        Ok(if self.settle_all().await? { End::Whole } else { End::Strict })
    }

    /// Records the refunds whose purchases are there, and keeps the others.
    async fn record_refunds(&mut self) -> Result<bool, Error> {
        // Purchases of earlier lines must be committed before they can be found.
        let mut go_on = self.settle_all().await?;
        let mut refunds = std::mem::take(&mut self.refunds);
        while !refunds.is_empty() && go_on && !self.interrupted.is_cancelled() {
            let rest = refunds.split_off(refunds.len().min(REFUND_CHUNK));
            let ids = refunds.iter().map(|(_, refund)| refund.purchase_external_id.clone()).collect();
            let purchases = find_purchases(&self.app.database, ids).await?;
            for (number, refund) in std::mem::replace(&mut refunds, rest) {
                let purchase = purchases.get(&refund.purchase_external_id);
                if purchase.is_none() && self.kept.len() < MAX_KEPT_REFUNDS {
                    self.kept.push((number, refund));
                    continue;
                }
                match refund.check(&[], purchase) {
                    Ok(refund) => {
                        let answer = self.app.recorder.record_when_free(Fact::Refund(refund)).await?;
                        self.waiting.push_back((number, answer));
                    }
                    Err(error) => go_on &= self.skip(number, &reader::reason(&error)),
                }
            }
            go_on &= self.settle_all().await?;
        }
        Ok(go_on)
    }

    async fn settle_all(&mut self) -> Result<bool, Error> {
        let mut go_on = true;
        while !self.waiting.is_empty() {
            go_on &= self.settle_one().await?;
        }
        Ok(go_on)
    }

    /// Awaits the oldest answer; false: it was refused, and that stops the import.
    async fn settle_one(&mut self) -> Result<bool, Error> {
        let Some((number, answer)) = self.waiting.pop_front() else { return Ok(true) };
        match answer.await.map_err(|_| Error::Unavailable)?? {
            Ok(recorded) if recorded.replayed => self.counts.replayed += 1,
            Ok(_) => self.counts.recorded += 1,
            Err(refusal) => return Ok(self.skip(number, &reader::reason(&refusal.at(Vec::new())))),
        }
        let done = self.counts.recorded + self.counts.replayed;
        if done.is_multiple_of(1_000) {
            let rate = done as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
            self.bar.set_message(format!("{done} lines, {rate:.0}/s"));
        }
        Ok(true)
    }

    /// Tells what is wrong with a line; false: stop here.
    fn skip(&mut self, number: u64, reason: &str) -> bool {
        use std::io::Write as _;
        self.counts.skipped += 1;
        // A line that cannot be told is counted all the same.
        self.bar.suspend(|| drop(writeln!(stderr(), "line {number}: {}", Printable(reason))));
        !self.strict
    }
}
