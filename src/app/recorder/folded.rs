//! The result of a fold, together with the recorded awards of the same stretch.

use std::sync::Arc;

use entity::{CustomerId, award};
use sea_orm::{FromQueryResult, QueryResult};

use super::folding::{Fold, Job};
use super::prepared::PreparedFold;
use super::touched::{Batch, Customers};
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::join_each;
use crate::app::stored::running::CampaignState;
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::cap::Sum;
use crate::engine::evaluate::Outcome;
use crate::engine::purchase::Key;
use crate::engine::stretch::Stretch;

/// The result of a fold, together with the recorded awards of its stretch.
pub(super) struct Folded<'a> {
    /// The external id of the customer.
    pub(super) customer: &'a str,
    pub(super) customer_id: CustomerId,
    pub(super) campaign: &'a Arc<Campaign>,
    pub(super) outcome: Box<Outcome>,
    /// The recorded awards of the folded stretch.
    pub(super) recorded: Vec<award::Model>,
    /// The stretch whose recorded awards have not been loaded yet.
    pub(super) unloaded: Option<Stretch>,
    /// The same as [`Job::until`].
    pub(super) until: Option<Key>,
}

impl Folded<'_> {
    /// Returns the sum over the awards that the customer has in the whole campaign according to the running state.
    pub(super) fn recorded_in_all(&self, customers: &Customers) -> Sum {
        let standing = customers.get(self.customer).and_then(|customer| customer.running.get(self.campaign.id()));
        standing.map(CampaignState::reached).unwrap_or_default()
    }

    /// Returns the sum over the recorded awards of the stretch.
    pub(super) fn recorded_in_stretch(&self) -> Sum {
        self.recorded.iter().fold(Sum::default(), |sum, row| sum + Sum { awards: 1, points: row.points })
    }
}

/// Finishes a job. If the job continued a prepared fold, combines both results.
pub(super) fn finish(job: Job<'_>) -> Folded<'_> {
    let Job { customer, customer_id, campaign, fold, until, prepared, .. } = job;
    let found = match fold {
        Fold::Append(append) => Some(append.finish()),
        Fold::Refold(refold) => Some(refold.finish()),
        // `Through` adds nothing to a prepared fold. `Further` is used only by `capping`, which does not call this function.
        Fold::Through | Fold::Further(_) => None,
    };
    let Some(prepared) = prepared else {
        let outcome = found.unwrap_or_else(Outcome::unchanged);
        // No awards are recorded after the tail.
        let unloaded = (!outcome.appended).then(|| outcome.stretch.clone());
        let outcome = Box::new(outcome);
        return Folded { customer, customer_id, campaign, outcome, recorded: Vec::new(), unloaded, until };
    };
    let unloaded = prepared.seen.clone().map(|seen| Stretch { after: Some(seen), to: None });
    let PreparedFold { outcome, recorded, .. } = *prepared;
    let outcome = if let Some(found) = found { outcome.followed_by(found) } else { outcome };
    Folded { customer, customer_id, campaign, outcome: Box::new(outcome), recorded, unloaded, until }
}

/// Loads the recorded awards of the stretches that were folded again.
pub(super) async fn load_recorded(batch: &Batch<'_>, folded: &mut [Folded<'_>]) -> Result<(), Error> {
    let mut asked = Stretches::new(batch.backend());
    let mut places = Vec::new();
    for (place, one) in folded.iter().enumerate() {
        let Some(stretch) = &one.unloaded else { continue };
        asked.push_in(one.customer_id, one.campaign.id(), stretch);
        places.push(place);
    }
    if asked.is_empty() {
        return Ok(());
    }
    let on = format!("{} AND t.status <> 'reversed'", lies_in("t", Stored::Awards, Ends::AfterTo));
    let take = |row: QueryResult| {
        if let Some(place) = places.get(index(&row)?) {
            folded[*place].recorded.push(award::Model::from_query_result(&row, "")?);
        }
        Ok(())
    };
    Ok(join_each(batch.tx, &format!("{INDEX}, t.*"), "award", asked.into_rows(), &on, take).await?)
}
