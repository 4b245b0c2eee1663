//! Before a repair's evaluation: a customer's counters, counted again from the rows that they count.

use std::collections::HashMap;

use entity::{AwardStatus, award, ledger_entry};
use sea_orm::{EntityTrait, QueryFilter, QueryOrder};

use super::batch::{Batch, Customers};
use crate::app::error::Error;
use crate::app::rows::any;
use crate::app::running::Running;

/// Counts again what belongs to the customers under repair, and finds what the ledger lacks of their awards.
pub(super) async fn recount(batch: &Batch<'_>, customers: &mut Customers) -> Result<(), Error> {
    let ids: Vec<i64> = customers.values().filter(|one| one.repair).map(|one| one.row.id.0).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let of_customers = any(batch.backend(), award::Column::CustomerId, ids.clone());
    let awards = award::Entity::find().filter(of_customers).all(batch.tx).await?;
    let of_customers = any(batch.backend(), ledger_entry::Column::CustomerId, ids);
    let entries = ledger_entry::Entity::find()
        .filter(of_customers)
        .order_by_asc(ledger_entry::Column::Sequence)
        .all(batch.tx)
        .await?;
    for customer in customers.values_mut().filter(|one| one.repair) {
        let id = customer.row.id;
        let mut posted: HashMap<i64, i64> = HashMap::new();
        (customer.row.balance, customer.row.ledger_sequence) = (0, 0);
        for entry in entries.iter().filter(|entry| entry.customer_id == id) {
            customer.row.balance += entry.points;
            customer.row.ledger_sequence = entry.sequence;
            if let Some(number) = entry.award_number {
                *posted.entry(number).or_default() += entry.points;
            }
        }
        (customer.row.lifetime, customer.row.award_number) = (0, 0);
        customer.running = Running::default();
        for award in awards.iter().filter(|award| award.customer_id == id) {
            customer.row.award_number = customer.row.award_number.max(award.number);
            let standing = customer.running.entry(award.campaign_id);
            let points = match award.status {
                AwardStatus::Standing => {
                    standing.standing += 1;
                    award.points
                }
                AwardStatus::Declined => {
                    standing.declined += 1;
                    0
                }
                AwardStatus::Reversed => 0,
            };
            customer.row.lifetime += points;
            let lacking = points - posted.remove(&award.number).unwrap_or_default();
            if lacking != 0 {
                customer.corrections.push((award.clone(), lacking));
            }
        }
        customer.changed = true;
    }
    Ok(())
}
