//! Writes the events of a batch to the outbox, if events are kept. Otherwise, this costs nothing.

use entity::outbox;

use super::news::News;
use super::touched::{Batch, Customers, Touched};
use crate::app::error::Error;
use crate::app::rows::{OnConflict, WriteGroup};
use crate::app::stored::running::Held;
use crate::engine::purse::Sums;

/// The number of events of a customer that are written together before the batch ends. A change may move all awards of a customer.
const WRITTEN_AT_ONCE: usize = 16;

/// Begins to write down what the batch changes of its customers.
pub(super) fn begin(batch: &Batch<'_>, customers: &mut Customers) {
    if !batch.campaigns.keeps_events {
        return;
    }
    for customer in customers.values_mut() {
        customer.news = Some(Box::new(News::of(&customer.row, sums(customer), customer.now, batch.now)));
    }
}

fn sums(customer: &Touched) -> Sums {
    customer.running.held.map_or(Sums::default(), Held::sums)
}

/// Writes the events of a customer that has many.
pub(super) async fn write_many(batch: &Batch<'_>, customer: &mut Touched) -> Result<(), Error> {
    let Some(news) = customer.news.as_mut().filter(|news| news.len() >= WRITTEN_AT_ONCE) else { return Ok(()) };
    let rows = news.take_rows()?;
    let mut group = WriteGroup::new(batch.backend());
    insert(&mut group, &rows);
    Ok(group.run(batch.tx).await?)
}

/// Returns the stamp that the customer's next version gets.
pub(super) fn stamp(customer: &Touched) -> i64 {
    customer.news.as_ref().map_or_else(rand::random, |news| news.stamp())
}

/// Returns the rows of the events of all customers that changed, but for those that are written. The rows of the customers are complete.
pub(super) fn close(customers: &mut Customers) -> Result<Vec<outbox::Model>, Error> {
    let mut rows = Vec::new();
    for customer in customers.values_mut() {
        if let Some(news) = customer.news.take().filter(|_| customer.changed) {
            // A commit that posts only a part of what is due leaves the customer at an earlier instant.
            let at = customer.running.held.map_or(customer.now, |held| held.at);
            rows.extend(news.close(&customer.row, sums(customer), at, &customer.entries)?);
        }
    }
    Ok(rows)
}

/// Inserts the rows of events. The database numbers them.
pub(super) fn insert(group: &mut WriteGroup, rows: &[outbox::Model]) {
    group.insert_without::<outbox::Entity>(rows, &[outbox::Column::Id], OnConflict::Fail);
}
