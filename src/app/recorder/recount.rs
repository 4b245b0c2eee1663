//! What is recorded of a customer under repair, counted again.

use std::collections::{BTreeMap, HashMap};

use entity::{AwardStatus, CampaignId, CustomerId, award, budget_decision, customer, ledger_entry, purchase, refund};
use futures_util::TryStreamExt as _;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use crate::app::error::Error;
use crate::app::stored::budget::decided_status;
use crate::app::stored::running::Running;
use crate::engine::account::Draft;

/// What a repair goes by.
#[derive(Default)]
pub(super) struct Repair {
    pub(super) recount: Recount,
    /// The running states as they were recorded.
    pub(super) recorded: Running,
    /// Awards whose status was not what was decided, with what was.
    pub(super) restored: HashMap<i64, AwardStatus>,
    /// The purchase that an entry names, by award: of awards that the ledger does not agree with.
    pub(super) purchases: HashMap<i64, Option<String>>,
}

/// What is recorded of a customer, counted.
#[derive(Default)]
pub(super) struct Recount {
    /// By number. Compact: it may be hundreds of thousands.
    pub(super) awards: BTreeMap<i64, Counted>,
    /// The points that the ledger posted by award.
    pub(super) posted: HashMap<i64, i64>,
    /// What budgets decided of awards, up to the number `decided_to`.
    decided: HashMap<(CampaignId, i64), AwardStatus>,
    decided_to: i64,
    /// The latest version that a fact, an award or an entry was recorded in.
    pub(super) version: i64,
    pub(super) balance: i64,
    /// Of the last entry.
    pub(super) sequence: i64,
    pub(super) posted_at: i64,
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
pub(super) struct Counted {
    pub(super) campaign: CampaignId,
    pub(super) status: AwardStatus,
    points: i64,
}

impl Counted {
    /// The points that the ledger should have posted.
    pub(super) fn stands_for(self) -> i64 {
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

impl Recount {
    /// What was counted on a snapshot, with what came in since; everything, where that cannot be told.
    pub(super) async fn go_on(
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
        let (decided, version) = (load_decided(tx, customer.id).await?, load_fact_version(tx, customer.id).await?);
        let mut recount = Self { decided, version, ..Self::default() };
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
    pub(super) fn last_award(&self) -> i64 {
        let last = self.awards.keys().next_back().copied();
        self.posted.keys().copied().chain(last).max().unwrap_or_default()
    }

    /// What was decided of an award that is reached: it stands unless a budget declined it.
    pub(super) fn decided(&self, number: i64, award: Counted) -> AwardStatus {
        if award.status == AwardStatus::Reversed || number > self.decided_to {
            return award.status;
        }
        self.decided.get(&(award.campaign, number)).copied().unwrap_or(AwardStatus::Standing)
    }
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
