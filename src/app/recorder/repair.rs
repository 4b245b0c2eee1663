//! Repairs a customer: evaluates its whole history again and trusts no recorded value that follows from others. The counters of
//! the customer and the statuses of its awards are restored before the evaluation ([`begin`]), the points of the awards during
//! it ([`restore_points`]). Then the points that the ledger lacks or has too much are posted ([`Repair::settle`]).
//!
//! A repair reads everything that is recorded of the customer. It does so on a snapshot of the database (`preparation`). The
//! transaction itself reads only what was recorded since.

use std::collections::HashMap;

use entity::{AwardStatus, CustomerId, award, ledger_entry};
use sea_orm::{ColumnTrait, ConnectionTrait as _, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder};

use super::prepared::Prepared;
use super::recount::{Recount, Repair};
use super::touched::{Batch, Customers, Touched};
use crate::app::error::Error;
use crate::app::rows::{any, update};
use crate::app::stored::award as awards;
use crate::app::stored::running::Running;
use crate::engine::award::{AwardName, Reached};

/// Sets the points of each recorded award that is reached under the same name to the reached points. Returns the rows whose
/// points were different.
pub(super) fn restore_points(rows: &mut [award::Model], reached: &[Reached]) -> Vec<award::Model> {
    let mut points: HashMap<AwardName, i64> = reached.iter().map(|award| (award.name(), award.points)).collect();
    let mut restored = Vec::new();
    for row in rows {
        // Removed from the map, because if two rows have the same name, the second one is wrong.
        match points.remove(&awards::name(row)) {
            Some(points) if points != row.points => {
                row.points = points;
                restored.push(row.clone());
            }
            _ => {}
        }
    }
    restored
}

/// Counts again what is recorded of the customers under repair, and restores their counters and the statuses of their awards.
pub(super) async fn begin(
    batch: &Batch<'_>,
    customers: &mut Customers,
    prepared: Option<&mut Prepared>,
) -> Result<(), Error> {
    let mut prepared = prepared.and_then(|prepared| Some((prepared.customer_id, prepared.recount.take()?)));
    for customer in customers.values_mut() {
        let Some(mut repair) = customer.repair.take() else { continue };
        let counted = prepared.take_if(|(id, _)| *id == customer.row.id).map(|(_, counted)| counted);
        repair.recount = Recount::go_on(counted, batch.tx, &customer.row).await?;
        customer.row.version = customer.row.version.max(repair.recount.version);
        let version = customer.next_version();
        if let Some(news) = &mut customer.news {
            news.set_version(version);
        }
        repair.restore_statuses(batch, customer).await?;
        repair.count(batch, customer);
        repair.load_purchases(batch.tx, customer.row.id).await?;
        customer.repair = Some(repair);
        customer.changed = true;
    }
    Ok(())
}

impl Repair {
    /// Gives awards the status that was decided. This must be done before the evaluation, which reads the statuses.
    async fn restore_statuses(&mut self, batch: &Batch<'_>, customer: &mut Touched) -> Result<(), Error> {
        let Recount { awards, .. } = &self.recount;
        let decided = awards.iter().map(|(number, award)| (*number, *award, self.recount.decided(*number, *award)));
        self.restored =
            decided.filter(|(_, award, status)| award.status != *status).map(|(number, _, s)| (number, s)).collect();
        if self.restored.is_empty() {
            return Ok(());
        }
        for (number, status) in &self.restored {
            if let Some(award) = self.recount.awards.get_mut(number) {
                award.status = *status;
            }
        }
        let mut rows = load_awards(batch.tx, customer.row.id, self.restored.keys().copied()).await?;
        for row in &mut rows {
            row.status = self.restored.get(&row.number).copied().unwrap_or(row.status);
            row.version = customer.next_version();
            if let Some(news) = &mut customer.news {
                news.award(row);
            }
        }
        Ok(update::<award::Entity>(batch.tx, &rows).await?)
    }

    /// Sets the counters of the customer to the counted values.
    fn count(&self, batch: &Batch<'_>, customer: &mut Touched) {
        let Recount { awards, balance, sequence, posted_at, .. } = &self.recount;
        customer.row.award_number = self.recount.last_award();
        (customer.row.balance, customer.row.ledger_sequence, customer.row.posted_at) =
            (*balance, *sequence, *posted_at);
        customer.running = Running::default();
        for award in awards.values() {
            let caps_points = batch.campaigns.get(award.campaign).is_some_and(|campaign| campaign.rule.caps_points());
            let state = customer.running.entry(award.campaign);
            match award.status {
                AwardStatus::Standing => state.standing_awards += 1,
                AwardStatus::Declined => state.declined_awards += 1,
                AwardStatus::Reversed => continue,
            }
            state.points += if caps_points { award.points } else { 0 };
        }
    }

    /// Loads the purchases for the entries that the ledger lacks according to the recount.
    async fn load_purchases(&mut self, tx: &DatabaseTransaction, customer: CustomerId) -> Result<(), Error> {
        let Recount { awards, posted, .. } = &self.recount;
        let lacking = awards.iter().filter(|(number, award)| !self.recount.agrees(**number, **award));
        for row in load_awards(tx, customer, lacking.map(|(number, _)| *number)).await? {
            self.purchases.insert(row.number, Some(row.purchase_external_id));
        }
        let without_award: Vec<i64> = posted.keys().filter(|number| !awards.contains_key(number)).copied().collect();
        if without_award.is_empty() {
            return Ok(());
        }
        let entries = ledger_entry::Entity::find()
            .filter(ledger_entry::Column::CustomerId.eq(customer))
            .filter(any(tx.get_database_backend(), ledger_entry::Column::AwardNumber, without_award))
            .order_by_asc(ledger_entry::Column::Sequence)
            .all(tx)
            .await?;
        let named = entries.into_iter().filter_map(|entry| Some((entry.award_number?, entry.purchase_external_id)));
        self.purchases.extend(named);
        Ok(())
    }
}

/// Loads the awards of a customer with these numbers.
async fn load_awards(
    tx: &DatabaseTransaction,
    customer: CustomerId,
    numbers: impl Iterator<Item = i64>,
) -> Result<Vec<award::Model>, Error> {
    let numbers: Vec<i64> = numbers.collect();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let numbered = any(tx.get_database_backend(), award::Column::Number, numbers);
    Ok(award::Entity::find().filter(award::Column::CustomerId.eq(customer)).filter(numbered).all(tx).await?)
}
