//! A repair: everything of a customer is evaluated anew, and nothing that is recorded is believed where it follows from
//! something else. Its counters and the statuses of its awards are restored before the evaluation ([`recount`]), the
//! awards' points in it ([`restore_points`]); what the ledger then lacks, or has too much, is posted
//! ([`Repair::settle`]).

use std::collections::{BTreeMap, HashMap};

use entity::{AwardStatus, CampaignId, CustomerId, award, budget_decision, customer, ledger_entry, purchase, refund};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::batch::{Batch, Customers, Touched};
use super::posting::Draft;
use crate::app::audit::budgets::decided_status;
use crate::app::audit::customer::last_award;
use crate::app::award as awards;
use crate::app::error::Error;
use crate::app::rows::{any, update};
use crate::app::running::Running;
use crate::engine::award::Reached;
use crate::engine::purchase::Key;

/// What budgets decided of awards, by campaign, customer and award.
type Decided = HashMap<(CampaignId, i64, i64), AwardStatus>;

/// What a repair goes by.
#[derive(Default)]
pub(super) struct Repair {
    /// The customer's awards, by number.
    awards: BTreeMap<i64, award::Model>,
    /// The points that the ledger posted by award, with the purchase that it names.
    posted: BTreeMap<i64, (i64, Option<String>)>,
}

impl Repair {
    /// With the awards as they are `written` (among others): sets what the customer's stand for, and answers what the
    /// ledger lacks of them, reversals first.
    pub(super) fn settle<'a>(
        mut self,
        customer: &mut customer::Model,
        written: impl Iterator<Item = &'a award::Model>,
    ) -> Vec<Draft> {
        let own = written.filter(|award| award.customer_id == customer.id);
        self.awards.extend(own.map(|award| (award.number, award.clone())));
        customer.lifetime = 0;
        let mut drafts = Vec::new();
        for (award_number, award) in self.awards {
            let stands = if award.status == AwardStatus::Standing { award.points } else { 0 };
            customer.lifetime += stands;
            let points = stands - self.posted.remove(&award_number).unwrap_or_default().0;
            drafts.push(Draft { points, award_number, purchase: Some(award.purchase_external_id) });
        }
        // Posted for awards that do not exist.
        let void = self.posted.into_iter();
        drafts.extend(void.map(|(award_number, (points, purchase))| Draft { points: -points, award_number, purchase }));
        drafts.retain(|draft| draft.points != 0);
        drafts.sort_by_key(|draft| (draft.points > 0, draft.award_number));
        drafts
    }
}

/// An award that is reached under its name has the points of that; answers the rows that had others.
pub(super) fn restore_points(rows: &mut [award::Model], reached: &[Reached]) -> Vec<award::Model> {
    let mut points: HashMap<(Key, i32), i64> =
        reached.iter().map(|award| ((award.by.clone(), award.nth), award.points)).collect();
    let mut restored = Vec::new();
    for row in rows {
        // Removed: of two rows with one name the second is no award.
        match points.remove(&(awards::reaching_key(row), row.nth)) {
            Some(points) if points != row.points => {
                row.points = points;
                restored.push(row.clone());
            }
            _ => {}
        }
    }
    restored
}

/// Counts again what belongs to the customers under repair, and notes what their repair goes by.
pub(super) async fn recount(batch: &Batch<'_>, customers: &mut Customers) -> Result<(), Error> {
    let ids: Vec<i64> = customers.values().filter(|one| one.repair.is_some()).map(|one| one.row.id.0).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let decided = decisions(batch, &ids).await?;
    let of_customers = any(batch.backend(), award::Column::CustomerId, ids.clone());
    let awards = award::Entity::find().filter(of_customers).all(batch.tx).await?;
    let of_customers = any(batch.backend(), ledger_entry::Column::CustomerId, ids.clone());
    let entries = ledger_entry::Entity::find()
        .filter(of_customers)
        .order_by_asc(ledger_entry::Column::Sequence)
        .all(batch.tx)
        .await?;
    let versions = fact_versions(batch, &ids).await?;
    let mut restored = Vec::new();
    for customer in customers.values_mut().filter(|one| one.repair.is_some()) {
        let id = customer.row.id;
        let entries: Vec<&ledger_entry::Model> = entries.iter().filter(|entry| entry.customer_id == id).collect();
        let mut awards: Vec<award::Model> = awards.iter().filter(|award| award.customer_id == id).cloned().collect();
        let versions = versions.get(&id).copied().into_iter().chain(awards.iter().map(|award| award.version));
        let versions = versions.chain(entries.iter().map(|entry| entry.version));
        customer.row.version = versions.fold(customer.row.version, i64::max);
        restored.extend(restore_statuses(customer, &mut awards, &decided));
        customer.row.award_number = last_award(&awards, entries.iter().copied());
        count_awards(customer, &awards);
        let posted = count_entries(customer, &entries);
        let awards = awards.into_iter().map(|award| (award.number, award)).collect();
        customer.repair = Some(Repair { awards, posted });
        customer.changed = true;
    }
    // Before the evaluation, which reads them.
    update::<award::Entity>(batch.tx, &restored).await?;
    Ok(())
}

/// The latest version that a fact of each customer was recorded in.
async fn fact_versions(batch: &Batch<'_>, customers: &[i64]) -> Result<HashMap<CustomerId, i64>, Error> {
    let ids = || customers.iter().copied();
    let purchases: Vec<(CustomerId, i64)> = purchase::Entity::find()
        .select_only()
        .column(purchase::Column::CustomerId)
        .column_as(purchase::Column::Version.max(), "version")
        .filter(any(batch.backend(), purchase::Column::CustomerId, ids()))
        .group_by(purchase::Column::CustomerId)
        .into_tuple()
        .all(batch.tx)
        .await?;
    let refunds: Vec<(CustomerId, i64)> = refund::Entity::find()
        .select_only()
        .column(refund::Column::CustomerId)
        .column_as(refund::Column::Version.max(), "version")
        .filter(any(batch.backend(), refund::Column::CustomerId, ids()))
        .group_by(refund::Column::CustomerId)
        .into_tuple()
        .all(batch.tx)
        .await?;
    let mut versions = HashMap::new();
    for (customer, version) in purchases.into_iter().chain(refunds) {
        let latest = versions.entry(customer).or_default();
        *latest = version.max(*latest);
    }
    Ok(versions)
}

/// The last decision about each award of these customers. No index helps: repairs are rare.
async fn decisions(batch: &Batch<'_>, customers: &[i64]) -> Result<Decided, Error> {
    let rows = budget_decision::Entity::find()
        .filter(any(batch.backend(), budget_decision::Column::CustomerId, customers.iter().copied()))
        .order_by_asc(budget_decision::Column::DecisionNo)
        .all(batch.tx)
        .await?;
    let decided = |row: budget_decision::Model| {
        Some(((row.campaign_id, row.customer_id?, row.award_number?), decided_status(row.kind)?))
    };
    Ok(rows.into_iter().filter_map(decided).collect())
}

/// An award that is reached stands unless a budget declined it. Answers those that said otherwise.
fn restore_statuses(customer: &Touched, awards: &mut [award::Model], decided: &Decided) -> Vec<award::Model> {
    let mut restored = Vec::new();
    for award in awards.iter_mut().filter(|award| award.status != AwardStatus::Reversed) {
        let key = (award.campaign_id, award.customer_id.0, award.number);
        let status = decided.get(&key).copied().unwrap_or(AwardStatus::Standing);
        if award.status != status {
            award.status = status;
            award.version = customer.next_version();
            restored.push(award.clone());
        }
    }
    restored
}

/// Counts the ledger; the points that it posted by award, with the purchase that it names.
fn count_entries(customer: &mut Touched, entries: &[&ledger_entry::Model]) -> BTreeMap<i64, (i64, Option<String>)> {
    let mut posted: BTreeMap<i64, (i64, Option<String>)> = BTreeMap::new();
    (customer.row.balance, customer.row.ledger_sequence, customer.row.posted_at) = (0, 0, 0);
    for entry in entries {
        customer.row.balance += entry.points;
        (customer.row.ledger_sequence, customer.row.posted_at) = (entry.sequence, entry.created_at);
        if let Some(number) = entry.award_number {
            let posted = posted.entry(number).or_default();
            posted.0 += entry.points;
            posted.1.clone_from(&entry.purchase_external_id);
        }
    }
    posted
}

/// Counts the awards by campaign and status.
fn count_awards(customer: &mut Touched, awards: &[award::Model]) {
    customer.running = Running::default();
    for award in awards {
        let standing = customer.running.entry(award.campaign_id);
        match award.status {
            AwardStatus::Standing => standing.standing += 1,
            AwardStatus::Declined => standing.declined += 1,
            AwardStatus::Reversed => {}
        }
    }
}
