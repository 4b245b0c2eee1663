//! Records the messages of one partition, in order, and stores how far it has come.
//!
//! Messages are taken in batches. A batch is done when its facts are committed, and what could not be recorded is kept: only then does
//! the position move. If the database fails, the same batch is tried again. A batch that is under way when the partition is revoked is
//! finished; all later messages are dropped, because another consumer reads them.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, histogram};
use tokio::sync::mpsc;
use tokio::time::Instant as Monotonic;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Outcome};
use super::json::JsonMap;
use crate::app::App;
use crate::app::error::Error;
use crate::app::ingest_position::{self as position, Kept, Last, Place, Stop};
use crate::app::message::Message;
use crate::metrics;

/// The maximum number of messages of a batch.
pub(super) const MAX_BATCH: usize = 1_024;
/// The maximum number of messages of a partition in memory.
pub(super) const MAX_IN_MEMORY: usize = 4_096;
/// How many messages in a row may become dead letters. With one more, the partition stops.
pub const MAX_FAILURES: usize = 100;
/// While messages come in, the position is stored no more often than this. After a crash, at most the messages of this time are read again.
pub(super) const SAVE_PERIOD: Duration = Duration::from_millis(200);
/// The pause after the first failure of the database. It doubles with each further failure, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A partition that this consumer reads.
pub struct Partition {
    pub app: Arc<App>,
    pub place: Place,
    /// How often the position has been set by hand, as of the assignment.
    pub resumes: i64,
    pub map: Option<Arc<JsonMap>>,
    /// Cancelled when the partition is revoked.
    pub revoked: CancellationToken,
}

/// What a partition reports to its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// So many messages are not in memory any more.
    Freed { messages: usize, bytes: usize },
    /// Everything up to this offset is done, and the database knows it.
    Saved { offset: i64 },
    /// The partition is not read any more.
    Stopped(Stop),
}

/// What is done and not stored yet.
#[derive(Default)]
struct Unsaved {
    last: Option<Last>,
    kept: Kept,
}

impl Partition {
    /// Records messages until there are no more, the partition is revoked, or it stops.
    pub async fn run(self, mut messages: mpsc::UnboundedReceiver<Message>, report: impl Fn(Report)) {
        let mut unsaved = Unsaved::default();
        let mut failures = 0;
        let mut saved_at = Monotonic::now();
        loop {
            let mut taken = Vec::new();
            let more = tokio::select! {
                biased;
                () = self.revoked.cancelled() => 0,
                more = messages.recv_many(&mut taken, MAX_BATCH) => more,
                () = tokio::time::sleep_until(saved_at + SAVE_PERIOD), if unsaved.last.is_some() => {
                    self.save(&mut unsaved, &report).await;
                    saved_at = Monotonic::now();
                    continue;
                }
            };
            if more == 0 {
                self.save(&mut unsaved, &report).await;
                return;
            }
            let Some(outcomes) = self.until_it_works(|| batch::record(&self.app, self.map.as_deref(), &taken)).await
            else {
                self.save(&mut unsaved, &report).await;
                return;
            };
            let stopped = self.note(&taken, outcomes, &mut failures, &mut unsaved);
            report(Report::Freed { messages: taken.len(), bytes: taken.iter().map(Message::bytes).sum() });
            let is_urgent = stopped || !unsaved.kept.dead.is_empty() || !unsaved.kept.waiting.is_empty();
            if is_urgent || saved_at.elapsed() >= SAVE_PERIOD {
                self.save(&mut unsaved, &report).await;
                saved_at = Monotonic::now();
            }
            if stopped {
                self.stop(&report).await;
                return;
            }
        }
    }

    /// Adds the outcomes of messages to what is not stored yet. Returns whether too many messages in a row could not be recorded: then
    /// the rest does not count as done.
    fn note(&self, messages: &[Message], outcomes: Vec<Outcome>, failures: &mut usize, unsaved: &mut Unsaved) -> bool {
        let topic = || self.place.topic.clone();
        let count = |outcome: &'static str, number: u64| {
            counter!(metrics::INGEST_MESSAGES, "topic" => topic(), "outcome" => outcome).increment(number);
        };
        let now = self.app.clock.now();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        histogram!(metrics::INGEST_BATCH_MESSAGES).record(messages.len() as f64);
        for (message, outcome) in messages.iter().zip(outcomes) {
            let Outcome { recorded, replayed, left_out, unknown_fields, waiting, fault } = outcome;
            counter!(metrics::INGEST_UNKNOWN_FIELDS, "topic" => topic()).increment(unknown_fields);
            if let Some(fault) = fault {
                *failures += 1;
                if *failures > MAX_FAILURES {
                    return true;
                }
                count("dead", 1);
                unsaved.kept.dead.push(message.dead(&fault, now));
            } else {
                *failures = 0;
                count("waiting", u64::from(!waiting.is_empty()));
                count("left_out", left_out);
                count("replayed", u64::from(recorded == 0 && replayed > 0));
                count("recorded", u64::from(recorded > 0));
            }
            unsaved.kept.waiting.extend(waiting);
            unsaved.last = Some(Last { offset: message.offset, hash: message.hash() });
        }
        false
    }

    async fn save(&self, unsaved: &mut Unsaved, report: &impl Fn(Report)) {
        let Unsaved { last: Some(last), kept } = std::mem::take(unsaved) else { return };
        let (app, place) = (&self.app, &self.place);
        let saved = self.until_it_works(|| position::advance(app, place, self.resumes, &last, &kept)).await;
        if saved.is_none() {
            return;
        }
        report(Report::Saved { offset: last.offset });
        if !kept.waiting.is_empty() {
            // A commit that was under way may not have seen them.
            app.woken(kept.waiting.into_iter().map(|row| row.purchase_external_id));
        }
    }

    async fn stop(&self, report: &impl Fn(Report)) {
        let (app, place) = (&self.app, &self.place);
        let stopped = self.until_it_works(|| position::stop(app, place, self.resumes, Stop::Failing)).await;
        if stopped.is_some() {
            report(Report::Stopped(Stop::Failing));
        }
    }

    /// Repeats a step that may fail because of the database. Returns `None` if the partition is revoked before it works.
    async fn until_it_works<T, F>(&self, step: impl Fn() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            match step().await {
                Ok(done) => return Some(done),
                Err(error) => {
                    let Place { topic, partition, .. } = &self.place;
                    tracing::warn!(topic, partition, error = %error, "messages cannot be recorded now: they are tried again");
                    counter!(metrics::INGEST_RETRIES).increment(1);
                }
            }
            tokio::select! {
                () = self.revoked.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}
