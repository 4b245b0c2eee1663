//! Records messages of one partition together, through the write path.
//!
//! Purchases and adjustments are recorded first, then refunds, whose purchases may be among them. Recording is idempotent, so messages can
//! be recorded again as a whole after any failure.

use tokio::sync::oneshot;

use super::json::JsonMap;
use super::message;
use super::record::{Parsed, Record};
use super::{MAX_WAITING, REFUND_CHUNK};
use crate::app::App;
use crate::app::error::Error;
use crate::app::message::Message;
use crate::app::model::WaitingFact;
use crate::app::recorder::fact::{Answer, Fact};
use crate::app::refund::{RecordRefund, find_purchases, may_be_allowed_by_another};
use crate::app::waiting_fact::{self as waiting, MAX_ROWS};

/// What became of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Its facts that were new, and those that had been recorded before.
    pub(super) recorded: u64,
    pub(super) replayed: u64,
    /// A rule of the map left the order out.
    pub(super) left_out: u64,
    pub(super) unknown_fields: u64,
    /// Refunds of the message that wait for their purchase.
    pub(super) waiting: Vec<WaitingFact>,
    /// Why the message is a dead letter.
    pub(super) fault: Option<String>,
}

/// Records the messages. Returns one outcome per message, in order. Fails if the messages may be recorded later.
pub(super) async fn record(app: &App, map: Option<&JsonMap>, messages: &[Message]) -> Result<Vec<Outcome>, Error> {
    let mut batch = Batch { app, messages, outcomes: vec![Outcome::default(); messages.len()], answers: Vec::new() };
    let mut refunds: Vec<(usize, RecordRefund)> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let fact = match message::parse(message, map, &app.clock) {
            Ok(fact) => fact,
            // The reason may be that the purchase is in the future.
            Err(_) if app.clock.is_in_doubt() => return Err(Error::ClockInDoubt),
            Err(fault) => {
                batch.outcomes[index].fault = Some(fault);
                continue;
            }
        };
        batch.outcomes[index].unknown_fields = fact.unknown_fields.len() as u64;
        let Parsed { record, refunds: more, .. } = fact.parsed;
        match record {
            Record::Purchase(purchase) => batch.queue(index, Fact::Purchase(*purchase)).await?,
            Record::Adjustment(adjustment) => batch.queue(index, Fact::Adjustment(*adjustment)).await?,
            Record::Refund(refund) => refunds.push((index, *refund)),
            Record::LeftOut(_) => batch.outcomes[index].left_out = 1,
        }
        refunds.extend(more.into_iter().map(|refund| (index, refund)));
    }
    batch.settle().await?;
    while !refunds.is_empty() {
        let rest = refunds.split_off(refunds.len().min(REFUND_CHUNK));
        batch.record_refunds(std::mem::replace(&mut refunds, rest)).await?;
    }
    Ok(batch.outcomes)
}

struct Batch<'a> {
    app: &'a App,
    messages: &'a [Message],
    outcomes: Vec<Outcome>,
    /// The facts that are queued, by the index of their message.
    answers: Vec<(usize, oneshot::Receiver<Answer>)>,
}

impl Batch<'_> {
    async fn queue(&mut self, index: usize, fact: Fact) -> Result<(), Error> {
        if self.answers.len() >= MAX_WAITING {
            self.settle().await?;
        }
        self.answers.push((index, self.app.recorder.record_when_free(fact).await?));
        Ok(())
    }

    /// Awaits the results of all queued facts.
    async fn settle(&mut self) -> Result<(), Error> {
        for (index, answer) in std::mem::take(&mut self.answers) {
            let outcome = &mut self.outcomes[index];
            match answer.await.map_err(|_| Error::Unavailable)? {
                Ok(Ok(recorded)) if recorded.replayed => outcome.replayed += 1,
                Ok(Ok(_)) => outcome.recorded += 1,
                Ok(Err(refusal)) => outcome.fault = Some(refusal.at(&[]).to_string()),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => outcome.fault = Some(internal(&error, &self.messages[index])),
            }
        }
        Ok(())
    }

    /// Records the refunds that their purchases allow, and keeps those that a later content may allow.
    async fn record_refunds(&mut self, refunds: Vec<(usize, RecordRefund)>) -> Result<(), Error> {
        let now = self.app.clock.now();
        let ids = refunds.iter().map(|(_, refund)| refund.purchase_external_id.clone()).collect();
        let purchases = find_purchases(self.app, ids).await?;
        for (index, refund) in refunds {
            let purchase = purchases.get(&refund.purchase_external_id);
            match refund.clone().check_by(&self.app.database, &self.app.clock, &[], purchase).await {
                Ok(refund) => self.queue(index, Fact::Refund(refund)).await?,
                Err(error) if may_be_allowed_by_another(&error) && self.app.waiting_facts() < MAX_ROWS => {
                    let row = waiting::row(&self.messages[index], &refund, &error.to_string(), now)?;
                    self.outcomes[index].waiting.push(row);
                }
                Err(error @ Error::Refused(_)) => self.outcomes[index].fault = Some(error.to_string()),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => self.outcomes[index].fault = Some(internal(&error, &self.messages[index])),
            }
        }
        self.settle().await
    }
}

/// Logs an error that is no fault of the message. Returns the reason as admins see it.
fn internal(error: &Error, message: &Message) -> String {
    let reason = error.masked();
    let Message { topic, partition, offset, .. } = message;
    tracing::error!(reason, topic = &**topic, partition, offset, error = %error, "a message could not be recorded");
    reason
}
