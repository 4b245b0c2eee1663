//! Applies the cap on the awards of a customer to what was reached (see [`crate::engine::cap`]). If the cap may exclude recorded
//! awards after a folded stretch, the last of these are loaded. If the cap may let in further awards, the search for them begins
//! after the last recorded one.

use std::cmp::Reverse;
use std::collections::HashMap;

use entity::award;
use sea_orm::FromQueryResult;

use super::folded::Folded;
use super::folding::{self, Fold, Job};
use super::touched::{Batch, Customers};
use crate::app::error::Error;
use crate::app::rows::first_of_each;
use crate::app::stored::award as awards;
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::award::Reached;
use crate::engine::cap::{self, Following, Further};
use crate::engine::stretch::Stretch;

/// Removes the reached awards that the cap does not leave, and adds the awards after the folded stretches that change because of
/// the cap.
pub(super) async fn cap(batch: &Batch<'_>, customers: &Customers, folded: &mut [Folded<'_>]) -> Result<(), Error> {
    let following: Vec<Following> = folded
        .iter()
        .map(|one| cap::following(&one.campaign.rule, &one.outcome, one.recorded_in_all(customers), one.recorded.len()))
        .collect();
    let mut last = load_last(batch, folded, &following).await?;
    let mut entering = enter(batch, customers, folded, &following, &last).await?;
    for (index, one) in folded.iter_mut().enumerate() {
        let (in_all, in_stretch) = (one.recorded_in_all(customers), one.recorded.len());
        let mut leaving = last.remove(&index).unwrap_or_default();
        leaving.truncate(if let Following::Leave(most) = following[index] { most } else { 0 });
        cap::cut(&one.campaign.rule, &mut one.outcome, in_all, in_stretch, leaving.len());
        one.recorded.extend(leaving);
        one.outcome.awards.extend(entering.remove(&index).unwrap_or_default());
    }
    Ok(())
}

/// Loads the last recorded awards after the stretches, latest first: as many as the cap may exclude, or the one after which the
/// search for further awards begins.
async fn load_last(
    batch: &Batch<'_>,
    folded: &[Folded<'_>],
    following: &[Following],
) -> Result<HashMap<usize, Vec<award::Model>>, Error> {
    let mut asked = Stretches::new(batch.backend());
    let mut places = Vec::new();
    let mut most = 0;
    for ((place, one), following) in folded.iter().enumerate().zip(following) {
        most = match following {
            Following::Stay => continue,
            Following::Leave(leave) => most.max(*leave),
            Following::Enter(_) => most.max(1),
        };
        if one.outcome.stretch.to.is_some() {
            let behind = Stretch { after: one.outcome.stretch.to.clone(), to: None };
            asked.push_in(one.customer_id, one.campaign.id(), &behind);
            places.push(place);
        }
    }
    let mut last: HashMap<usize, Vec<award::Model>> = HashMap::new();
    if asked.is_empty() {
        return Ok(last);
    }
    let conditions = format!("{} AND s.status <> 'reversed'", lies_in("s", Stored::Awards, Ends::After));
    let order = "s.earned_at DESC, s.purchase_external_id DESC, s.nth DESC";
    let what = format!("{INDEX}, t.*");
    for row in first_of_each(batch.tx, &what, "award", asked.into_rows(), &conditions, order, most).await? {
        if let Some(place) = places.get(index(&row)?) {
            last.entry(*place).or_default().push(award::Model::from_query_result(&row, "")?);
        }
    }
    let latest_first = |row: &award::Model| Reverse((awards::reaching_key(row), row.nth));
    last.values_mut().for_each(|rows| rows.sort_by_key(latest_first));
    Ok(last)
}

/// Finds the awards that were beyond the cap until now and that the cap lets in.
async fn enter(
    batch: &Batch<'_>,
    customers: &Customers,
    folded: &[Folded<'_>],
    following: &[Following],
    last: &HashMap<usize, Vec<award::Model>>,
) -> Result<HashMap<usize, Vec<Reached>>, Error> {
    let mut indexes = Vec::new();
    let mut jobs = Vec::new();
    for (index, (one, following)) in folded.iter().zip(following).enumerate() {
        let Following::Enter(room) = *following else { continue };
        let campaign = one.campaign.engine();
        let further = match (last.get(&index).and_then(|rows| rows.first()), &one.outcome.met) {
            (Some(last), _) => Further::after_award(campaign, awards::place(last), room),
            (None, Some(met)) => Further::after_stretch(campaign, met.clone(), room),
            (None, None) => continue,
        };
        indexes.push(index);
        let (fold, until) = (Fold::Further(Box::new(further)), one.until.clone());
        let Folded { customer, customer_id, campaign, .. } = *one;
        let running = customers.get(customer).map(|customer| &customer.running);
        jobs.push(Job {
            customer,
            customer_id,
            campaign,
            fold,
            until,
            has_checkpoints: running.is_some_and(|running| running.has_checkpoints(campaign.id())),
            prepared: None,
            most_purchases: None,
        });
    }
    folding::run(batch, &mut jobs).await?;
    let found = |job: Job<'_>| if let Fold::Further(further) = job.fold { further.finish() } else { Vec::new() };
    Ok(indexes.into_iter().zip(jobs.into_iter().map(found)).collect())
}
