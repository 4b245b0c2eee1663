//! What a fold found, beside what is recorded of the same stretch.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CustomerId, award};
use sea_orm::{FromQueryResult, QueryResult};

use super::folding::{Fold, Job};
use super::prepared::PreparedFold;
use super::touched::{Batch, Customers};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, join_each};
use crate::app::stored::award as awards;
use crate::engine::evaluate::{Outcome, Range};
use crate::engine::purchase::Key;
use crate::engine::time::Instant;

/// What a fold found, with what is recorded of it.
pub(super) struct Folded<'a> {
    /// External id.
    pub(super) customer: &'a str,
    pub(super) customer_id: CustomerId,
    pub(super) campaign: &'a Arc<Campaign>,
    pub(super) outcome: Outcome,
    /// The recorded awards of the folded stretch.
    pub(super) recorded: Vec<award::Model>,
    /// Where recorded awards are still to be loaded.
    pub(super) unloaded: Option<Range>,
    /// See [`Job::until`].
    pub(super) until: Option<Key>,
}

impl Folded<'_> {
    /// How many awards of the customer are recorded in the campaign.
    pub(super) fn recorded_in_all(&self, customers: &Customers) -> usize {
        let standing = customers.get(self.customer).and_then(|customer| customer.running.get(self.campaign.id()));
        standing.map_or(0, |standing| usize::try_from(standing.reached()).unwrap_or_default())
    }
}

/// What the fold found, with what was found before it.
pub(super) fn finish(job: Job<'_>) -> Folded<'_> {
    let Job { customer, customer_id, campaign, fold, until, prepared, .. } = job;
    let found = match fold {
        Fold::Append(append) => Some(append.finish()),
        Fold::Refold(refold) => Some(refold.finish()),
        // `capping` searches, and nothing is planned so.
        Fold::Through | Fold::Further(_) => None,
    };
    let Some(prepared) = prepared else {
        let outcome = found.unwrap_or_else(Outcome::unchanged);
        // After the tail nothing is recorded.
        let unloaded = (!outcome.appended).then(|| Range { after: outcome.from.clone(), to: outcome.to.clone() });
        return Folded { customer, customer_id, campaign, outcome, recorded: Vec::new(), unloaded, until };
    };
    let unloaded = prepared.seen.clone().map(|seen| Range { after: Some(seen), to: None });
    let PreparedFold { outcome, recorded, .. } = prepared;
    let outcome = if let Some(found) = found { outcome.followed_by(found) } else { outcome };
    Folded { customer, customer_id, campaign, outcome, recorded, unloaded, until }
}

/// Loads the recorded awards of the stretches that were folded again.
pub(super) async fn load_recorded(batch: &Batch<'_>, folded: &mut [Folded<'_>]) -> Result<(), Error> {
    let columns =
        [("customer_id", Kind::Int), ("campaign_id", Kind::Int), ("from_at", Kind::Int), ("to_at", Kind::Int)];
    let mut rows = Rows::new(batch.backend(), &columns);
    let mut places = HashMap::new();
    for (index, one) in folded.iter().enumerate() {
        let Some(stretch) = &one.unloaded else { continue };
        let at = |key: &Option<Key>, default: Instant| key.as_ref().map_or(default, |key| key.at).0;
        rows.push(vec![
            one.customer_id.0.into(),
            one.campaign.id().0.into(),
            at(&stretch.after, Instant::EPOCH).into(),
            at(&stretch.to, Instant::FOREVER).into(),
        ]);
        places.insert((one.customer_id, one.campaign.id()), index);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let on = "t.customer_id = r.customer_id AND t.campaign_id = r.campaign_id \
        AND t.earned_at >= r.from_at AND t.earned_at <= r.to_at AND t.status <> 'reversed'";
    let take = |row: QueryResult| {
        let row = award::Model::from_query_result(&row, "")?;
        let place = places.get(&(row.customer_id, row.campaign_id));
        let Some(Folded { unloaded, recorded, .. }) = place.map(|index| &mut folded[*index]) else { return Ok(()) };
        if unloaded.as_ref().is_some_and(|stretch| stretch.contains(&awards::reaching_key(&row))) {
            recorded.push(row);
        }
        Ok(())
    };
    Ok(join_each(batch.tx, "t.*", "award", rows, on, take).await?)
}
