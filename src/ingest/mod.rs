//! Ingestion: records facts that come from outside the API, at present the lines of a file, through the write path.
//!
//! An ingestion is idempotent and can therefore be resumed: if it is stopped at any point and run again, no fact is lost and
//! none is recorded twice. The caller passes an observer that shows the progress. This module does not know about terminals.

pub mod file;
mod format;
pub mod record;

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::file::Line;
use self::record::Record;
use crate::app::App;
use crate::app::error::Error;
use crate::app::recorder::fact::{Answer, Fact};
use crate::app::refund::{RecordRefund, find_purchases, may_be_allowed_by_another};

/// The maximum number of facts that are queued but not yet committed.
const MAX_WAITING: usize = 4_096;
/// The number of refunds whose purchases are looked up together.
const REFUND_CHUNK: usize = 512;
/// The maximum number of refunds that are kept until the end of the file because their purchase was not found, or no content of it
/// allows them yet. Beyond it, such refunds are skipped immediately.
const MAX_KEPT_REFUNDS: usize = 1_000_000;
const NO_PURCHASE: &str = "purchaseExternalId: no such purchase has been recorded";

/// The number of processed lines, by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Lines whose fact was new.
    pub recorded: u64,
    /// Lines whose fact had been recorded before.
    pub replayed: u64,
    /// Lines that were malformed or refused.
    pub skipped: u64,
}

/// How an ingestion ended.
pub enum End {
    /// All lines were processed.
    Whole,
    /// With `strict`, a line was skipped.
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
    /// A line was skipped.
    Skipped {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with the line.
        reason: &'a str,
    },
}

/// Records all lines. With `strict`, stops when a line is skipped. When `stop` is cancelled, stops before the next line.
pub async fn ingest(
    app: &App,
    lines: mpsc::Receiver<Line>,
    strict: bool,
    stop: CancellationToken,
    observe: impl FnMut(Event<'_>),
) -> (End, Counts) {
    let mut ingestion = Ingestion {
        app,
        observe,
        strict,
        counts: Counts::default(),
        waiting: VecDeque::new(),
        refunds: Vec::new(),
        kept: Vec::new(),
        stop,
    };
    let end = ingestion.run(lines).await;
    (end, ingestion.counts)
}

struct Ingestion<'a, O> {
    app: &'a App,
    observe: O,
    strict: bool,
    counts: Counts,
    /// Queued lines that are not committed yet, in order.
    waiting: VecDeque<(u64, oneshot::Receiver<Answer>)>,
    /// Refunds whose purchases have not been looked up yet.
    refunds: Vec<(u64, RecordRefund)>,
    /// Refunds whose purchase was not found, or allows them in no content, with what is wrong. They are retried after the last line.
    kept: Vec<(u64, RecordRefund, String)>,
    stop: CancellationToken,
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

    /// Processes a line. Returns `false` if a line was skipped and the ingestion must stop because of that.
    async fn take(&mut self, line: Line) -> Result<bool, Error> {
        (self.observe)(Event::Taken(line.sent_bytes));
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

    /// Records the refunds that are left after the last line.
    async fn finish(&mut self) -> Result<End, Error> {
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        // Retries the refunds that came before their purchase, or before the revision that allows them.
        self.refunds = std::mem::take(&mut self.kept).into_iter().map(|(number, refund, _)| (number, refund)).collect();
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        if self.stop.is_cancelled() {
            return self.settle_all().await.map(|_| End::Stopped);
        }
        for (number, _, reason) in std::mem::take(&mut self.kept) {
            if !self.skip(number, &reason) {
                return Ok(End::Strict);
            }
        }
        Ok(if self.settle_all().await? { End::Whole } else { End::Strict })
    }

    /// Records the refunds that their purchases allow, and keeps the others. Returns `false` if a line was skipped and the
    /// ingestion must stop because of that.
    async fn record_refunds(&mut self) -> Result<bool, Error> {
        // The purchases of earlier lines can be found only once they are committed.
        let mut go_on = self.settle_all().await?;
        let mut refunds = std::mem::take(&mut self.refunds);
        while !refunds.is_empty() && go_on && !self.stop.is_cancelled() {
            let rest = refunds.split_off(refunds.len().min(REFUND_CHUNK));
            let ids = refunds.iter().map(|(_, refund)| refund.purchase_external_id.clone()).collect();
            let purchases = find_purchases(&self.app.database, ids).await?;
            for (number, refund) in std::mem::replace(&mut refunds, rest) {
                let purchase = purchases.get(&refund.purchase_external_id);
                let has_room = self.kept.len() < MAX_KEPT_REFUNDS;
                if purchase.is_none() && has_room {
                    self.kept.push((number, refund, NO_PURCHASE.to_owned()));
                    continue;
                }
                match refund.clone().check_by(&self.app.database, &self.app.clock, &[], purchase).await {
                    Ok(refund) => {
                        let answer = self.app.recorder.record_when_free(Fact::Refund(refund)).await?;
                        self.waiting.push_back((number, answer));
                    }
                    Err(error) if has_room && may_be_allowed_by_another(&error) => {
                        self.kept.push((number, refund, error.to_string()));
                    }
                    Err(error) => go_on &= self.skip(number, &error.to_string()),
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
        let Some((number, answer)) = self.waiting.pop_front() else { return Ok(true) };
        match answer.await.map_err(|_| Error::Unavailable)?? {
            Ok(recorded) if recorded.replayed => self.counts.replayed += 1,
            Ok(_) => self.counts.recorded += 1,
            Err(refusal) => return Ok(self.skip(number, &refusal.at(&[]).to_string())),
        }
        (self.observe)(Event::Settled(self.counts));
        Ok(true)
    }

    /// Counts and reports a skipped line. Returns `false` if the ingestion must stop.
    fn skip(&mut self, line: u64, reason: &str) -> bool {
        self.counts.skipped += 1;
        (self.observe)(Event::Skipped { line, reason });
        !self.strict
    }
}
