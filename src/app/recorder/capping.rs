//! Applies the caps of a customer to what was reached (see [`crate::engine::cap`]). If the caps may exclude recorded awards after a
//! folded stretch, or parts of them, the last of these are loaded. If the caps may let in further awards, the search for them begins
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
use crate::engine::cap::{self, Excess, Following, Further, Leaving};
use crate::engine::stretch::Stretch;

/// Applies the caps to the reached awards, and adds the awards after the folded stretches that change because of them.
pub(super) async fn cap(batch: &Batch<'_>, customers: &Customers, folded: &mut [Folded<'_>]) -> Result<(), Error> {
    let following: Vec<Following> = folded
        .iter()
        .map(|one| {
            let (recorded, in_stretch) = (one.recorded_in_all(customers), one.recorded_in_stretch());
            cap::following(&one.campaign.rule, &one.outcome, recorded, in_stretch)
        })
        .collect();
    let mut last = load_last(batch, folded, &following).await?;
    let mut entering = enter(batch, customers, folded, &following, &last).await?;
    for (index, one) in folded.iter_mut().enumerate() {
        let (recorded, in_stretch) = (one.recorded_in_all(customers), one.recorded_in_stretch());
        let last = last.remove(&index).unwrap_or_default();
        let leaving: &[award::Model] = if matches!(following[index], Following::Leave(_)) { &last } else { &[] };
        let points: Vec<i64> = leaving.iter().map(|row| row.points).collect();
        let rule = &one.campaign.rule;
        let Leaving { whole, trimmed } = cap::cut(rule, &mut one.outcome, recorded, in_stretch, &points);
        let mut last = last.into_iter();
        one.recorded.extend(last.by_ref().take(whole));
        // An award that is trimmed, or that may have been, changes like one of the stretch.
        if let Some(points) = trimmed
            && let Some(row) = last.next()
        {
            one.outcome.awards.push(Reached { points, ..awards::recorded(&row).reached });
            one.recorded.push(row);
        } else if matches!(following[index], Following::Enter(_)) && Further::finds_last(rule) {
            one.recorded.extend(last.next());
        }
        one.outcome.awards.extend(entering.remove(&index).unwrap_or_default());
    }
    Ok(())
}

/// The last recorded awards after the stretches, latest first, by the index of the stretch.
type Last = HashMap<usize, Vec<award::Model>>;

/// Loads the last recorded awards after the stretches: as many as the caps may exclude, or the one after which the search for further
/// awards begins.
async fn load_last(batch: &Batch<'_>, folded: &[Folded<'_>], following: &[Following]) -> Result<Last, Error> {
    let mut last = Last::new();
    let mut asked: Vec<(usize, Excess)> = Vec::new();
    let mut entering = Vec::new();
    for (place, following) in following.iter().enumerate() {
        match following {
            Following::Stay => {}
            Following::Leave(excess) => asked.push((place, *excess)),
            Following::Enter(_) => entering.push(place),
        }
    }
    last.extend(load_some(batch, folded, &entering, 1).await?);
    // It is not known how many awards have the points of an excess. So twice as many are loaded each time.
    let mut most = asked.iter().map(|(_, excess)| excess.awards()).max().unwrap_or_default();
    while !asked.is_empty() {
        let places: Vec<usize> = asked.iter().map(|(place, _)| *place).collect();
        let found = load_some(batch, folded, &places, most).await?;
        let is_short = |(place, excess): &(usize, Excess)| {
            let rows = found.get(place).map(Vec::as_slice).unwrap_or_default();
            let points: Vec<i64> = rows.iter().map(|row| row.points).collect();
            rows.len() == most && !excess.is_covered_by(&points)
        };
        asked.retain(is_short);
        last.extend(found);
        most *= 2;
    }
    Ok(last)
}

/// Loads the last recorded awards after some of the stretches, at most `most` of each.
async fn load_some(batch: &Batch<'_>, folded: &[Folded<'_>], places: &[usize], most: usize) -> Result<Last, Error> {
    let mut asked = Stretches::new(batch.backend());
    let mut asking = Vec::new();
    for place in places {
        let one = &folded[*place];
        if one.outcome.stretch.to.is_some() {
            let behind = Stretch { after: one.outcome.stretch.to.clone(), to: None };
            asked.push_in(one.customer_id, one.campaign.id(), &behind);
            asking.push(*place);
        }
    }
    let mut last = Last::new();
    if asked.is_empty() {
        return Ok(last);
    }
    let conditions = format!("{} AND s.status <> 'reversed'", lies_in("s", Stored::Awards, Ends::After));
    let order = "s.earned_at DESC, s.purchase_external_id DESC, s.nth DESC";
    let what = format!("{INDEX}, t.*");
    for row in first_of_each(batch.tx, &what, "award", asked.into_rows(), &conditions, order, most).await? {
        if let Some(place) = asking.get(index(&row)?) {
            last.entry(*place).or_default().push(award::Model::from_query_result(&row, "")?);
        }
    }
    let latest_first = |row: &award::Model| Reverse((awards::reaching_key(row), row.nth));
    last.values_mut().for_each(|rows| rows.sort_by_key(latest_first));
    Ok(last)
}

/// Finds the awards that were beyond the caps until now and that the caps let in.
async fn enter(
    batch: &Batch<'_>,
    customers: &Customers,
    folded: &[Folded<'_>],
    following: &[Following],
    last: &Last,
) -> Result<HashMap<usize, Vec<Reached>>, Error> {
    let mut indexes = Vec::new();
    let mut jobs = Vec::new();
    for (index, (one, following)) in folded.iter().zip(following).enumerate() {
        let Following::Enter(room) = *following else { continue };
        let campaign = one.campaign.engine();
        let further = match (last.get(&index).and_then(|rows| rows.first()), &one.outcome.met) {
            (Some(last), _) => Further::after_award(campaign, awards::place(last), last.points, room),
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
