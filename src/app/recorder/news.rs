//! What a batch changes of a customer, written down as the events that the outbox gets in the same transaction.

use std::sync::Arc;

use entity::{CustomerId, award, customer, ledger_entry, outbox};
use serde::Serialize;

use crate::app::cursor::Cursor;
use crate::app::error::Error;
use crate::app::event::{Award, Balance, Entry, Erased, Event, MAX_ITEMS};
use crate::app::opaque;
use crate::app::outbox::{bucket, segment};
use crate::engine::external_id::is_erased;
use crate::engine::purse::Sums;
use crate::engine::time::Instant;

/// What a batch changes of a customer, as far as it is known.
pub(super) struct News {
    segment: i32,
    customer: CustomerId,
    /// The external id before the batch, which an erasure replaces.
    name: String,
    /// The version after the batch, and its stamp.
    version: i64,
    stamp: i64,
    at: Instant,
    before: Balance,
    awards: Vec<Award>,
    entries: Vec<Entry>,
    /// The number of events that were completed.
    parts: i32,
    /// Those of them that are not written yet.
    events: Vec<Completed>,
}

impl News {
    /// Begins with a customer as it was loaded. Its next version is committed at this instant of the batch.
    pub(super) fn of(row: &customer::Model, sums: Sums, at: Instant, batch: Instant) -> Self {
        Self {
            segment: segment(batch),
            customer: row.id,
            name: row.external_id.clone(),
            version: row.version + 1,
            stamp: rand::random(),
            at,
            before: Balance::of(row, sums, at),
            awards: Vec::new(),
            entries: Vec::new(),
            parts: 0,
            events: Vec::new(),
        }
    }

    /// Notes that the next version is another one, because a repair has found a later one.
    pub(super) fn set_version(&mut self, version: i64) {
        self.version = version;
    }

    /// The stamp that the next version gets.
    pub(super) fn stamp(&self) -> i64 {
        self.stamp
    }

    /// The number of events that are completed and not written yet.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Adds an award that is new or changed.
    pub(super) fn award(&mut self, row: &award::Model) {
        self.make_room();
        self.awards.push(row.into());
    }

    fn make_room(&mut self) {
        if self.awards.len() + self.entries.len() >= MAX_ITEMS {
            let id = opaque::encode(&format!("part:{}:{}:{}", self.version, self.stamp, self.parts + 1));
            self.complete(id, None);
        }
    }

    /// Completes an event of what was added since the last one. It is the last one of the commit if it has the balance.
    fn complete(&mut self, id: String, balance: Option<Balance>) {
        self.parts += 1;
        let event = Event {
            customer_external_id: self.name.clone(),
            version: self.version,
            part: self.parts,
            last: balance.is_some(),
            committed_at: self.at.to_string(),
            entries: std::mem::take(&mut self.entries),
            awards: std::mem::take(&mut self.awards),
        };
        self.events.push(Completed { id, event, balance });
    }

    /// Takes the rows of the events that are completed.
    pub(super) fn take_rows(&mut self) -> Result<Vec<outbox::Model>, Error> {
        let events = std::mem::take(&mut self.events);
        let row = |Completed { id, event, balance }: Completed| {
            let balance = balance.as_ref().map(to_json).transpose()?;
            Ok(outbox::Model { balance, ..self.row(event.part, id, to_json(&event)?) })
        };
        events.into_iter().map(row).collect()
    }

    fn row(&self, part: i32, event_id: String, event: String) -> outbox::Model {
        outbox::Model {
            // The database chooses it.
            id: 0,
            segment: self.segment,
            bucket: bucket(&self.name),
            customer_id: self.customer,
            version: self.version,
            part,
            key: self.name.clone(),
            event_id,
            event,
            balance: None,
            erases: 0,
            committed_at: self.at.0,
            published: 0,
        }
    }

    /// Completes the events of a customer whose row is as it will be stored, with the ledger entries that the batch posted. Returns the
    /// rows that are not written yet.
    pub(super) fn close(
        mut self,
        row: &customer::Model,
        sums: Sums,
        at: Instant,
        entries: &[Arc<ledger_entry::Model>],
    ) -> Result<Vec<outbox::Model>, Error> {
        let cursor = Cursor::of(row).to_text();
        if is_erased(&row.external_id) {
            // Nothing more is told of a customer that was erased before.
            let erased = if row.external_id == self.name { None } else { Some(self.erased(cursor)?) };
            return Ok(erased.into_iter().collect());
        }
        for entry in entries {
            self.make_room();
            self.entries.push((&**entry).into());
        }
        let balance = Balance::of(row, sums, at);
        let is_empty = self.parts == 0 && self.awards.is_empty() && self.entries.is_empty();
        if is_empty && balance.has_same_points(&self.before) {
            return Ok(Vec::new());
        }
        self.complete(cursor, Some(balance));
        self.take_rows()
    }

    fn erased(&self, cursor: String) -> Result<outbox::Model, Error> {
        let (customer_external_id, erased_at) = (self.name.clone(), self.at.to_string());
        let erased = to_json(&Erased { customer_external_id, version: self.version, erased_at })?;
        Ok(outbox::Model { erases: 1, ..self.row(1, cursor, erased) })
    }
}

/// An event that is completed.
struct Completed {
    id: String,
    event: Event,
    balance: Option<Balance>,
}

fn to_json(event: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(event).map_err(|error| Error::Internal(format!("an event: {error}")))
}
