//! Facts from outside, through the write path: lines of a file today.
//!
//! An ingestion is idempotent and therefore resumable: if it is stopped anywhere and run again, it loses nothing and changes
//! nothing twice. The observer of an ingestion shows its progress; this module knows no terminal.

pub mod file;
pub mod record;

use std::collections::VecDeque;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::file::Line;
use self::record::{Record, reason};
use crate::app::App;
use crate::app::error::Error;
use crate::app::recorder::fact::{Answer, Fact};
use crate::app::refund::{RecordRefund, find_purchases};

/// The most facts that are queued and not yet committed.
const MAX_WAITING: usize = 4_096;
/// The number of refunds whose purchases are looked up together.
const REFUND_CHUNK: usize = 512;
/// The most refunds that are kept for the end of the file. Further refunds without a purchase are skipped at once.
const MAX_KEPT_REFUNDS: usize = 1_000_000;

/// What became of the lines.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// New facts.
    pub recorded: u64,
    /// Facts that had been recorded before.
    pub replayed: u64,
    /// Lines that were wrong.
    pub skipped: u64,
}

/// How an ingestion ended.
pub enum End {
    /// All lines were taken.
    Whole,
    /// At the first wrong line, with `strict`.
    Strict,
    /// The caller stopped it. What had been queued was committed.
    Stopped,
    /// The database failed.
    Failed(Error),
}

/// What an observer is told.
pub enum Event<'a> {
    /// The lines up to this byte were taken.
    Taken(u64),
    /// A fact was committed; the counts include it.
    Settled(Counts),
    /// A line was skipped.
    Skipped {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with the line.
        reason: &'a str,
    },
}

/// Takes all lines. Stops at the first wrong one if `strict`, and before the next line once `stop` is cancelled.
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
    /// Refunds whose purchases are to be looked up.
    refunds: Vec<(u64, RecordRefund)>,
    /// Refunds whose purchase was not found. They are tried again after the last line.
    kept: Vec<(u64, RecordRefund)>,
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

    /// Takes a line. Returns `false` if the line is wrong and that stops the ingestion.
    async fn take(&mut self, line: Line) -> Result<bool, Error> {
        (self.observe)(Event::Taken(line.end_byte));
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

    /// Finishes after the last line.
    async fn finish(&mut self) -> Result<End, Error> {
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        // Refunds that came before their purchase.
        self.refunds = std::mem::take(&mut self.kept);
        if !self.record_refunds().await? {
            return Ok(End::Strict);
        }
        if self.stop.is_cancelled() {
            return self.settle_all().await.map(|_| End::Stopped);
        }
        for (number, _) in std::mem::take(&mut self.kept) {
            if !self.skip(number, "purchaseExternalId: no such purchase has been recorded") {
                return Ok(End::Strict);
            }
        }
        Ok(if self.settle_all().await? { End::Whole } else { End::Strict })
    }

    /// Records the refunds whose purchases are stored, and keeps the others. Returns `false` if a wrong one stops the ingestion.
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
                if purchase.is_none() && self.kept.len() < MAX_KEPT_REFUNDS {
                    self.kept.push((number, refund));
                    continue;
                }
                match refund.check(&[], purchase) {
                    Ok(refund) => {
                        let answer = self.app.recorder.record_when_free(Fact::Refund(refund)).await?;
                        self.waiting.push_back((number, answer));
                    }
                    Err(error) => go_on &= self.skip(number, &reason(&error)),
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

    /// Awaits the oldest queued fact. Returns `false` if the fact was refused and that stops the ingestion.
    async fn settle_one(&mut self) -> Result<bool, Error> {
        let Some((number, answer)) = self.waiting.pop_front() else { return Ok(true) };
        match answer.await.map_err(|_| Error::Unavailable)?? {
            Ok(recorded) if recorded.replayed => self.counts.replayed += 1,
            Ok(_) => self.counts.recorded += 1,
            Err(refusal) => return Ok(self.skip(number, &reason(&refusal.at(Vec::new())))),
        }
        (self.observe)(Event::Settled(self.counts));
        Ok(true)
    }

    /// Counts and reports a wrong line. Returns `false` if that stops the ingestion.
    fn skip(&mut self, line: u64, reason: &str) -> bool {
        self.counts.skipped += 1;
        (self.observe)(Event::Skipped { line, reason });
        !self.strict
    }
}
