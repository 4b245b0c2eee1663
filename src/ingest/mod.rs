//! Ingestion: records facts that come from outside the API, through the write path: the lines of a file, and the messages of topics.
//!
//! An ingestion is idempotent and can therefore be resumed: if it is stopped at any point and run again, no fact is lost and
//! none is recorded twice. The caller passes an observer that shows the progress. This module does not know about terminals.

pub mod asyncapi;
mod batch;
mod cell;
pub mod check;
pub mod cluster;
pub mod events;
pub mod excerpt;
pub mod file;
mod form;
mod format;
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kind;
pub mod map;
mod message;
pub mod order;
pub mod partition;
mod purchases;
pub mod record;
pub mod rejects;
mod rows;
mod shopify;
pub mod simulation;
mod table;
pub mod tally;
pub mod topics;
mod unpack;
mod woocommerce;

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use self::cell::Cells;
use self::file::Line;
pub use self::format::Span;
use self::record::{Parsed, Record};
use self::tally::Tally;
use crate::app::App;
use crate::app::error::{Error, UserErrorCode};
use crate::app::recorder::fact::{Answer, Fact, Refusal};
use crate::app::refund::{RecordRefund, find_purchases, may_be_allowed_by_another};

/// The maximum number of facts that are queued but not yet committed.
const MAX_WAITING: usize = 4_096;
/// The number of refunds whose purchases are looked up together.
const REFUND_CHUNK: usize = 512;
/// The maximum number of refunds that are kept until the end of the file because their purchase was not found, or no content of it
/// allows them yet. Beyond it, such refunds are faulty immediately.
const MAX_KEPT_REFUNDS: usize = 1_000_000;
const GIVE_AS_OF: &str = "; if the file is another export, give --as-of with the instant at which it was exported";
const OTHER_EXPORT: &str = "; a file with another content was imported with this --as-of: export the orders again";
const NO_PURCHASE: &str = "purchaseExternalId: no such purchase has been recorded";

/// The number of processed lines, or orders, by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Those whose fact was new.
    pub recorded: u64,
    /// Those whose fact had been recorded before.
    pub replayed: u64,
    /// Those of `recorded` and `replayed` for which a higher revision of the purchase is recorded.
    pub superseded: u64,
    /// Those that a rule left out.
    pub left_out: u64,
    /// Those that were malformed or refused.
    pub faulty: u64,
}

/// What an ingestion did, and what it understood of the file.
#[derive(Default)]
pub struct Report {
    pub counts: Counts,
    pub tally: Tally,
}

/// How an ingestion treats the lines of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    /// Stop at the first faulty line.
    pub strict: bool,
    /// The file has the state of orders.
    pub is_export: bool,
    /// The caller said when the file was exported.
    pub has_as_of: bool,
}

/// How an ingestion ended.
pub enum End {
    /// All lines were processed.
    Whole,
    /// With `strict`, a line was faulty.
    Strict,
    /// The caller stopped the ingestion. The facts that were queued by then were committed.
    Stopped,
    /// An error that no line caused, for example of the database.
    Failed(Error),
}

/// An event that is reported to the observer.
pub enum Event<'a> {
    /// A line was taken. Contains the number of bytes of all lines up to now.
    Taken(u64),
    /// A fact was committed or recognised as a duplicate. The counts include the fact.
    Settled(Counts),
    /// A line is faulty.
    Faulty {
        span: Span,
        /// What is wrong with the line.
        reason: &'a str,
    },
}

/// Records all lines. When `stop` is cancelled, stops before the next line.
pub async fn ingest(
    app: &App,
    lines: mpsc::Receiver<Line>,
    mode: Mode,
    stop: CancellationToken,
    observe: impl FnMut(Event<'_>),
) -> (End, Report) {
    let mut ingestion = Ingestion {
        app,
        observe,
        mode,
        report: Report::default(),
        waiting: VecDeque::new(),
        refunds: Vec::new(),
        kept: Vec::new(),
        stop,
    };
    let end = ingestion.run(lines).await;
    (end, ingestion.report)
}

/// Reads all lines and records nothing.
pub async fn rehearse(
    mut lines: mpsc::Receiver<Line>,
    mode: Mode,
    stop: CancellationToken,
    mut observe: impl FnMut(Event<'_>),
) -> (End, Report) {
    let mut report = Report::default();
    loop {
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => return (End::Stopped, report),
            line = lines.recv() => line,
        };
        let Some(Line { span, sent_bytes, parsed }) = line else { return (End::Whole, report) };
        observe(Event::Taken(sent_bytes));
        let parsed = parsed.and_then(|parsed| match &parsed.record {
            Record::Purchase(purchase) if !purchase.ahead.is_empty() => {
                Err(Error::Refused(purchase.ahead.clone()).to_string())
            }
            _ => Ok(parsed),
        });
        match parsed {
            Ok(parsed) => {
                report.counts.left_out += u64::from(matches!(parsed.record, Record::LeftOut(_)));
                report.tally.note(span, &parsed);
            }
            Err(reason) => {
                report.counts.faulty += 1;
                report.tally.note_fault(span, &reason);
                observe(Event::Faulty { span, reason: &reason });
                if mode.strict {
                    return (End::Strict, report);
                }
            }
        }
    }
}

/// Returns a hash that stands for a value where many must be remembered in bounded memory.
fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

struct Ingestion<'a, O> {
    app: &'a App,
    observe: O,
    mode: Mode,
    report: Report,
    /// Queued lines that are not committed yet, in order.
    waiting: VecDeque<Waiting>,
    /// Refunds whose purchases have not been looked up yet.
    refunds: Vec<(Span, RecordRefund)>,
    /// Refunds whose purchase was not found, or allows them in no content, with what is wrong. They are retried after the last line.
    kept: Vec<(Span, RecordRefund, String)>,
    stop: CancellationToken,
}

/// A queued line.
struct Waiting {
    span: Span,
    /// The external id of the purchase. Empty for another fact.
    purchase: Box<str>,
    answer: oneshot::Receiver<Answer>,
}

impl<O: FnMut(Event<'_>)> Ingestion<'_, O> {
    async fn run(&mut self, mut lines: mpsc::Receiver<Line>) -> End {
        let stop = self.stop.clone();
        loop {
            let line = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    lines.close();
                    return match self.settle_all().await {
                        Ok(_) => End::Stopped,
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

    /// Processes a line. Returns `false` if a line was faulty and the ingestion must stop because of that.
    async fn take(&mut self, line: Line) -> Result<bool, Error> {
        (self.observe)(Event::Taken(line.sent_bytes));
        let span = line.span;
        let Parsed { record, refunds, .. } = match line.parsed {
            Ok(parsed) => {
                self.report.tally.note(span, &parsed);
                parsed
            }
            Err(reason) => return Ok(self.fail(span, &reason)),
        };
        match record {
            Record::Purchase(purchase) => {
                // Only an export needs the name.
                let id = if self.mode.is_export { &*purchase.purchase.key.external_id } else { "" };
                let id = Box::from(id);
                self.queue(span, id, Fact::Purchase(*purchase)).await?;
            }
            Record::Adjustment(adjustment) => {
                self.queue(span, Box::default(), Fact::Adjustment(*adjustment)).await?;
            }
            Record::Refund(refund) => self.refunds.push((span, *refund)),
            Record::LeftOut(_) => self.report.counts.left_out += 1,
        }
        self.refunds.extend(refunds.into_iter().map(|refund| (span, refund)));
        if self.refunds.len() >= REFUND_CHUNK {
            return self.record_refunds().await;
        }
        if self.waiting.len() >= MAX_WAITING {
            return self.settle_one().await;
        }
        Ok(true)
    }

    async fn queue(&mut self, span: Span, purchase: Box<str>, fact: Fact) -> Result<(), Error> {
        let answer = self.app.recorder.record_when_free(fact).await?;
        self.waiting.push_back(Waiting { span, purchase, answer });
        Ok(())
    }

    /// Records the refunds that are left after the last line.
    async fn finish(&mut self) -> Result<End, Error> {
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        // Retries the refunds that came before their purchase, or before the revision that allows them.
        self.refunds = std::mem::take(&mut self.kept).into_iter().map(|(span, refund, _)| (span, refund)).collect();
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        if self.stop.is_cancelled() {
            return self.settle_all().await.map(|_| End::Stopped);
        }
        for (span, _, reason) in std::mem::take(&mut self.kept) {
            if !self.fail(span, &reason) {
                return Ok(End::Strict);
            }
        }
        Ok(if self.settle_all().await? { End::Whole } else { End::Strict })
    }

    /// Records the refunds that their purchases allow, and keeps the others. Returns `false` if a line was faulty and the
    /// ingestion must stop because of that.
    async fn record_refunds(&mut self) -> Result<bool, Error> {
        // The purchases of earlier lines can be found only once they are committed.
        let mut go_on = self.settle_all().await?;
        let mut refunds = std::mem::take(&mut self.refunds);
        while !refunds.is_empty() && go_on && !self.stop.is_cancelled() {
            let rest = refunds.split_off(refunds.len().min(REFUND_CHUNK));
            let ids = refunds.iter().map(|(_, refund)| refund.purchase_external_id.clone()).collect();
            let purchases = find_purchases(self.app, ids).await?;
            for (span, refund) in std::mem::replace(&mut refunds, rest) {
                let purchase = purchases.get(&refund.purchase_external_id);
                let has_room = self.kept.len() < MAX_KEPT_REFUNDS;
                if purchase.is_none() && has_room {
                    self.kept.push((span, refund, NO_PURCHASE.to_owned()));
                    continue;
                }
                match refund.clone().check_by(&self.app.database, &self.app.clock, &[], purchase).await {
                    Ok(refund) => self.queue(span, Box::default(), Fact::Refund(refund)).await?,
                    Err(error) if has_room && may_be_allowed_by_another(&error) => {
                        self.kept.push((span, refund, error.to_string()));
                    }
                    Err(error) => go_on &= self.fail(span, &error.to_string()),
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

    /// Awaits the result of the oldest queued fact. Returns `false` if the fact was refused and the ingestion must stop because
    /// of that.
    async fn settle_one(&mut self) -> Result<bool, Error> {
        let Some(Waiting { span, purchase, answer }) = self.waiting.pop_front() else { return Ok(true) };
        let counts = &mut self.report.counts;
        match answer.await.map_err(|_| Error::Unavailable)?? {
            Ok(recorded) => {
                counts.superseded += u64::from(recorded.superseded);
                if recorded.replayed {
                    counts.replayed += 1;
                } else {
                    counts.recorded += 1;
                }
            }
            Err(Refusal { owner: Some(_), .. }) => {
                counts.left_out += 1;
                let reason = "recorded under another customer: to hand such orders over, give --move";
                self.report.tally.left_out.note(reason, || purchase.into());
            }
            Err(refusal) => {
                let is_conflict = refusal.errors.iter().any(|error| error.code == UserErrorCode::IdempotencyConflict);
                let mut reason = refusal.at(&[]).to_string();
                if self.mode.is_export && is_conflict && !purchase.is_empty() {
                    reason.push_str(if self.mode.has_as_of { OTHER_EXPORT } else { GIVE_AS_OF });
                }
                return Ok(self.fail(span, &reason));
            }
        }
        (self.observe)(Event::Settled(self.report.counts));
        Ok(true)
    }

    /// Counts and reports a faulty line. Returns `false` if the ingestion must stop.
    fn fail(&mut self, span: Span, reason: &str) -> bool {
        self.report.counts.faulty += 1;
        self.report.tally.note_fault(span, reason);
        (self.observe)(Event::Faulty { span, reason });
        !self.mode.strict
    }
}
