//! A repair: everything of a customer is evaluated anew, and nothing that is recorded is believed where it follows from
//! something else. Its counters and the statuses of its awards are restored before the evaluation ([`recount`]), the
//! awards' points in it ([`restore_points`]); what the ledger then lacks, or has too much, is posted
//! ([`Repair::settle`]).
//!
//! A repair reads all that is recorded of the customer. It does so on a snapshot (`prepared`), and in the transaction it reads
//! what came in since.

use std::collections::{BTreeMap, HashMap};

use entity::{AwardStatus, CampaignId, CustomerId, award, budget_decision, customer, ledger_entry, purchase, refund};
use futures_util::TryStreamExt as _;
use sea_orm::{
    ColumnTrait, ConnectionTrait as _, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::batch::{Batch, Customers, Touched};
use super::posting::Draft;
use super::prepared::Prepared;
use crate::app::error::Error;
use crate::app::rows::{any, update};
use crate::app::stored::award as awards;
use crate::app::stored::award::decided_status;
use crate::app::stored::running::Running;
use crate::engine::award::Reached;
use crate::engine::purchase::Key;

/// What a repair goes by.
#[derive(Default)]
pub(super) struct Repair {
    recount: Recount,
    /// The running states as they were recorded.
    pub(super) recorded: Running,
    /// Awards whose status was not what was decided, with what was.
    pub(super) restored: HashMap<i64, AwardStatus>,
    /// The purchase that an entry names, by award: of awards that the ledger does not agree with.
    purchases: HashMap<i64, Option<String>>,
}

/// What is recorded of a customer, counted.
#[derive(Default)]
pub(super) struct Recount {
    /// By number. Compact: it may be hundreds of thousands.
    awards: BTreeMap<i64, Counted>,
    /// The points that the ledger posted by award.
    posted: HashMap<i64, i64>,
    /// What budgets decided of awards, up to the number `decided_to`.
    decided: HashMap<(CampaignId, i64), AwardStatus>,
    decided_to: i64,
    /// The latest version that a fact, an award or an entry was recorded in.
    version: i64,
    balance: i64,
    /// Of the last entry.
    sequence: i64,
    posted_at: i64,
    /// As the customer's row had them.
    read_at: Option<ReadAt>,
}

#[derive(Clone, Copy)]
struct ReadAt {
    stamp: i64,
    version: i64,
    sequence: i64,
}

#[derive(Clone, Copy)]
struct Counted {
    campaign: CampaignId,
    status: AwardStatus,
    points: i64,
}

impl Counted {
    /// The points that the ledger should have posted.
    fn stands_for(self) -> i64 {
        if self.status == AwardStatus::Standing { self.points } else { 0 }
    }
}

impl Repair {
    /// Of a customer whose running states are recorded so.
    pub(super) fn of(recorded: Running) -> Self {
        Self { recorded, ..Self::default() }
    }

    /// With the awards as they are `written` (among others): sets what the customer's stand for, and returns what the
    /// ledger lacks of them, reversals first.
    pub(super) fn settle<'a>(
        mut self,
        customer: &mut customer::Model,
        written: impl Iterator<Item = &'a award::Model>,
    ) -> Vec<Draft> {
        let Recount { awards, posted, .. } = &mut self.recount;
        for award in written.filter(|award| award.customer_id == customer.id) {
            let (campaign, status, points) = (award.campaign_id, award.status, award.points);
            awards.insert(award.number, Counted { campaign, status, points });
            self.purchases.insert(award.number, Some(award.purchase_external_id.clone()));
        }
        customer.lifetime = awards.values().map(|award| award.stands_for()).sum();
        let mut lacking: Vec<(i64, i64)> = awards
            .iter()
            .map(|(number, award)| (*number, award.stands_for() - posted.remove(number).unwrap_or_default()))
            .collect();
        // Posted for awards that do not exist.
        lacking.extend(posted.drain().map(|(number, points)| (number, -points)));
        lacking.retain(|(_, points)| *points != 0);
        lacking.sort_by_key(|(number, points)| (*points > 0, *number));
        let draft = |(award_number, points)| Draft {
            points,
            award_number,
            purchase: self.purchases.remove(&award_number).flatten(),
        };
        lacking.into_iter().map(draft).collect()
    }
}

/// An award that is reached under its name has the points of that; returns the rows that had others.
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
pub(super) async fn recount(
    batch: &Batch<'_>,
    customers: &mut Customers,
    prepared: Option<&mut Prepared>,
) -> Result<(), Error> {
    let mut prepared = prepared.and_then(|prepared| prepared.recount.take());
    for customer in customers.values_mut() {
        let Some(mut repair) = customer.repair.take() else { continue };
        // Only one customer is prepared at a time.
        repair.recount = Recount::go_on(prepared.take(), batch.tx, &customer.row).await?;
        customer.row.version = customer.row.version.max(repair.recount.version);
        repair.restore_statuses(batch, customer).await?;
        repair.count(customer);
        repair.load_purchases(batch.tx, customer.row.id).await?;
        customer.repair = Some(repair);
        customer.changed = true;
    }
    Ok(())
}

impl Recount {
    /// What was counted on a snapshot, with what came in since; everything, where that cannot be told.
    async fn go_on(
        prepared: Option<Self>,
        tx: &DatabaseTransaction,
        customer: &customer::Model,
    ) -> Result<Self, Error> {
        let Some(mut recount) = prepared.filter(|prepared| prepared.holds_for(customer)) else {
            return Self::read(tx, customer).await;
        };
        if recount.read_at.is_some_and(|read_at| read_at.stamp != customer.stamp) {
            recount.read_since(tx, customer).await?;
        }
        Ok(recount)
    }

    /// Counts all that is recorded.
    pub(super) async fn read(tx: &DatabaseTransaction, customer: &customer::Model) -> Result<Self, Error> {
        let mut recount =
            Self { decided: load_decided(tx, customer.id).await?, decided_to: i64::MAX, ..Self::default() };
        recount.version = load_fact_version(tx, customer.id).await?;
        recount.read_since(tx, customer).await?;
        recount.decided_to = recount.last_award();
        Ok(recount)
    }

    /// Whether what came in since can be told by versions and sequences: nothing came, or the customer's were right.
    fn holds_for(&self, customer: &customer::Model) -> bool {
        let Some(read_at) = self.read_at else { return false };
        let were_right = read_at.version >= self.version && read_at.sequence == self.sequence;
        read_at.stamp == customer.stamp || were_right
    }

    /// Counts what was recorded since the last time.
    async fn read_since(&mut self, tx: &DatabaseTransaction, customer: &customer::Model) -> Result<(), Error> {
        let (since_version, since_sequence) = match self.read_at {
            Some(read_at) => (read_at.version, read_at.sequence),
            None => (i64::MIN, i64::MIN),
        };
        use award::Column as A;
        let mut found = award::Entity::find()
            .select_only()
            .columns([A::Number, A::CampaignId, A::Status, A::Points, A::Version])
            .filter(A::CustomerId.eq(customer.id))
            .filter(A::Version.gt(since_version))
            .into_tuple::<(i64, CampaignId, AwardStatus, i64, i64)>()
            .stream(tx)
            .await?;
        while let Some((number, campaign, status, points, version)) = found.try_next().await? {
            self.awards.insert(number, Counted { campaign, status, points });
            self.version = self.version.max(version);
        }
        drop(found);
        use ledger_entry::Column as L;
        let mut found = ledger_entry::Entity::find()
            .select_only()
            .columns([L::Sequence, L::Points, L::AwardNumber, L::CreatedAt, L::Version])
            .filter(L::CustomerId.eq(customer.id))
            .filter(L::Sequence.gt(since_sequence))
            .order_by_asc(L::Sequence)
            .into_tuple::<(i64, i64, Option<i64>, i64, i64)>()
            .stream(tx)
            .await?;
        while let Some((sequence, points, award_number, created_at, version)) = found.try_next().await? {
            self.balance += points;
            (self.sequence, self.posted_at) = (sequence, created_at);
            self.version = self.version.max(version);
            if let Some(number) = award_number {
                *self.posted.entry(number).or_default() += points;
            }
        }
        let customer::Model { stamp, version, ledger_sequence, .. } = *customer;
        self.read_at = Some(ReadAt { stamp, version, sequence: ledger_sequence });
        Ok(())
    }

    /// The number of the last award that there was.
    fn last_award(&self) -> i64 {
        let last = self.awards.keys().next_back().copied();
        self.posted.keys().copied().chain(last).max().unwrap_or_default()
    }

    /// What was decided of an award that is reached: it stands unless a budget declined it.
    fn decided(&self, number: i64, award: Counted) -> AwardStatus {
        if award.status == AwardStatus::Reversed || number > self.decided_to {
            return award.status;
        }
        self.decided.get(&(award.campaign, number)).copied().unwrap_or(AwardStatus::Standing)
    }
}

impl Repair {
    /// Gives awards the status that was decided. Before the evaluation, which reads them.
    async fn restore_statuses(&mut self, batch: &Batch<'_>, customer: &Touched) -> Result<(), Error> {
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
        }
        Ok(update::<award::Entity>(batch.tx, &rows).await?)
    }

    /// Sets the customer's counters.
    fn count(&self, customer: &mut Touched) {
        let Recount { awards, balance, sequence, posted_at, .. } = &self.recount;
        customer.row.award_number = self.recount.last_award();
        (customer.row.balance, customer.row.ledger_sequence, customer.row.posted_at) =
            (*balance, *sequence, *posted_at);
        customer.running = Running::default();
        for award in awards.values() {
            match award.status {
                AwardStatus::Standing => customer.running.entry(award.campaign).standing += 1,
                AwardStatus::Declined => customer.running.entry(award.campaign).declined += 1,
                AwardStatus::Reversed => {}
            }
        }
    }

    /// Loads which purchases the entries name that are lacking by what is counted.
    async fn load_purchases(&mut self, tx: &DatabaseTransaction, customer: CustomerId) -> Result<(), Error> {
        let Recount { awards, posted, .. } = &self.recount;
        let of_ledger = |number: &i64| posted.get(number).copied().unwrap_or_default();
        let lacking = awards.iter().filter(|(number, award)| award.stands_for() != of_ledger(number));
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

/// A customer's awards with these numbers.
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

/// The latest version that a fact of the customer was recorded in.
async fn load_fact_version(tx: &DatabaseTransaction, customer: CustomerId) -> Result<i64, Error> {
    let of_purchases: Option<Option<i64>> = purchase::Entity::find()
        .select_only()
        .column_as(purchase::Column::Version.max(), "version")
        .filter(purchase::Column::CustomerId.eq(customer))
        .into_tuple()
        .one(tx)
        .await?;
    let of_refunds: Option<Option<i64>> = refund::Entity::find()
        .select_only()
        .column_as(refund::Column::Version.max(), "version")
        .filter(refund::Column::CustomerId.eq(customer))
        .into_tuple()
        .one(tx)
        .await?;
    Ok(of_purchases.flatten().max(of_refunds.flatten()).unwrap_or_default())
}

/// The last decision about each award of the customer. No index helps: repairs are rare.
async fn load_decided(
    tx: &DatabaseTransaction,
    customer: CustomerId,
) -> Result<HashMap<(CampaignId, i64), AwardStatus>, Error> {
    let mut found = budget_decision::Entity::find()
        .filter(budget_decision::Column::CustomerId.eq(customer.0))
        .order_by_asc(budget_decision::Column::DecisionNo)
        .stream(tx)
        .await?;
    let mut decided = HashMap::new();
    while let Some(row) = found.try_next().await? {
        if let Some((number, status)) = row.award_number.zip(decided_status(row.kind)) {
            decided.insert((row.campaign_id, number), status);
        }
    }
    Ok(decided)
}
