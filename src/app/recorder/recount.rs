//! Counts again what is recorded of a customer under repair.

use std::collections::{BTreeMap, HashMap};

use entity::{
    AwardStatus, CampaignId, CustomerId, award, budget_decision, customer, ledger_entry, purchase, purchase_revision,
    refund,
};
use futures_util::TryStreamExt as _;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::drafts::Drafts;
use crate::app::error::Error;
use crate::app::stored::award::dates as stored_dates;
use crate::app::stored::budget::decided_status;
use crate::app::stored::running::Running;
use crate::app::stored::{ledger_entry as ledger, redemption as redemptions};
use crate::engine::account::Draft;
use crate::engine::dates::Dates;
use crate::engine::lot::Place;
use crate::engine::purse::Purse;
use crate::engine::replay::Replay;
use crate::engine::time::Instant;

/// The data of a repair of one customer.
#[derive(Default)]
pub(super) struct Repair {
    pub(super) recount: Recount,
    /// The running states as they were recorded before the repair.
    pub(super) recorded: Running,
    /// The awards whose status was not the decided one: their numbers and the decided statuses.
    pub(super) restored: HashMap<i64, AwardStatus>,
    /// The purchases that entries of the repair name, by award number. Contains the awards for which the ledger is wrong.
    pub(super) purchases: HashMap<i64, Option<String>>,
}

/// The recorded awards and entries of a customer, and the counters that follow from them.
#[derive(Default)]
pub(super) struct Recount {
    /// The awards by number. Only a few fields are kept, because there may be hundreds of thousands.
    pub(super) awards: BTreeMap<i64, Counted>,
    /// The sum of the points that the ledger posted for each award number.
    pub(super) posted: HashMap<i64, i64>,
    /// The dates of the awards whose points wait or expire.
    dates: HashMap<i64, Dates>,
    /// What the customer holds according to the ledger.
    replay: Replay,
    /// The decisions of budgets about the awards with numbers up to `decided_to`.
    decided: HashMap<(CampaignId, i64), AwardStatus>,
    decided_to: i64,
    /// The highest version in which a fact, an award or an entry was recorded.
    pub(super) version: i64,
    pub(super) balance: i64,
    /// The sequence of the last entry.
    pub(super) sequence: i64,
    /// When the last entry was posted.
    pub(super) posted_at: i64,
    /// Fields of the customer's row from the time when it was last counted.
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
    pub(super) points: i64,
}

impl Counted {
    /// Returns the points that the ledger should contain for the award.
    pub(super) fn stands_for(self) -> i64 {
        if self.status == AwardStatus::Standing { self.points } else { 0 }
    }
}

impl Repair {
    /// Begins a repair of a customer with these recorded running states.
    pub(super) fn of(recorded: Running) -> Self {
        Self { recorded, ..Self::default() }
    }

    /// Adds the awards of the customer that the commit writes; `written` may contain awards of others. Then sets `lifetime` of
    /// the customer, and returns the entries that the ledger lacks at `now`.
    pub(super) fn settle<'a>(
        &mut self,
        customer: &mut customer::Model,
        written: impl Iterator<Item = &'a award::Model>,
        now: Instant,
    ) -> Drafts {
        let Recount { awards, posted, dates, replay, .. } = &mut self.recount;
        for award in written.filter(|award| award.customer_id == customer.id) {
            let (campaign, status, points) = (award.campaign_id, award.status, award.points);
            awards.insert(award.number, Counted { campaign, status, points });
            dates.insert(award.number, stored_dates(award));
            self.purchases.insert(award.number, Some(award.purchase_external_id.clone()));
        }
        customer.lifetime = awards.values().map(|award| award.stands_for()).sum();
        let mut drafts = Drafts::default();
        let mut draft = |award_number, points, redated| {
            let (had, wanted) = (replay.dates(award_number), dates.get(&award_number).copied().unwrap_or_default());
            let purchase = self.purchases.get(&award_number).cloned().flatten();
            let (dates, other) = if points < 0 { (had, wanted) } else { (wanted, had) };
            let redated = Some(other).filter(|_| redated);
            let draft = Draft { points, award_number, purchase, dates, redated };
            (if points < 0 { &mut drafts.reversals } else { &mut drafts.awards }).push(draft);
        };
        let place = |dates| Place::of(dates, now);
        for (number, award) in awards.iter() {
            let (of_ledger, points) = (posted.remove(number).unwrap_or_default(), award.stands_for());
            let stays = of_ledger.min(points);
            let wanted = dates.get(number).copied().unwrap_or_default();
            let is_redated = stays > 0 && place(replay.dates(*number)) != place(wanted);
            if points < of_ledger {
                draft(*number, points - of_ledger, false);
            }
            if is_redated {
                draft(*number, -stays, true);
                draft(*number, stays, true);
            }
            if points > of_ledger {
                draft(*number, points - of_ledger, false);
            }
        }
        // Points that were posted for awards that do not exist are taken back.
        let mut without_award: Vec<(i64, i64)> = posted.drain().filter(|(_, points)| *points != 0).collect();
        without_award.sort_unstable();
        for (number, points) in without_award {
            draft(number, -points, false);
        }
        drafts
    }

    /// Returns what the customer holds according to the ledger.
    pub(super) fn into_purse(self) -> Purse {
        self.recount.replay.finish().0
    }
}

impl Recount {
    /// Adds to a recount on a snapshot what was recorded since. If that cannot be determined, counts everything.
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

    /// Counts everything that is recorded of the customer.
    pub(super) async fn read(tx: &DatabaseTransaction, customer: &customer::Model) -> Result<Self, Error> {
        let (decided, version) = (load_decided(tx, customer.id).await?, load_fact_version(tx, customer.id).await?);
        let mut recount = Self { decided, version, ..Self::default() };
        recount.read_since(tx, customer).await?;
        recount.decided_to = recount.last_award();
        Ok(recount)
    }

    /// Whether versions and sequences show what was recorded since the recount. That is the case if nothing was recorded, or if
    /// the version and the sequence in the customer's row were right.
    fn holds_for(&self, customer: &customer::Model) -> bool {
        let Some(read_at) = self.read_at else { return false };
        let were_right = read_at.version >= self.version && read_at.sequence == self.sequence;
        read_at.stamp == customer.stamp || were_right
    }

    /// Adds the awards and entries that were recorded since the customer was last counted.
    async fn read_since(&mut self, tx: &DatabaseTransaction, customer: &customer::Model) -> Result<(), Error> {
        let (since_version, since_sequence) = match self.read_at {
            Some(read_at) => (read_at.version, read_at.sequence),
            None => (i64::MIN, i64::MIN),
        };
        use award::Column as A;
        let mut found = award::Entity::find()
            .select_only()
            .columns([A::Number, A::CampaignId, A::Status, A::Points, A::Version, A::AvailableAt, A::ExpiresAt])
            .filter(A::CustomerId.eq(customer.id))
            .filter(A::Version.gt(since_version))
            .into_tuple::<(i64, CampaignId, AwardStatus, i64, i64, Option<i64>, Option<i64>)>()
            .stream(tx)
            .await?;
        while let Some((number, campaign, status, points, version, available_at, expires_at)) = found.try_next().await?
        {
            self.awards.insert(number, Counted { campaign, status, points });
            if available_at.or(expires_at).is_some() {
                let dates = Dates { available_at: available_at.map(Instant), expires_at: expires_at.map(Instant) };
                self.dates.insert(number, dates);
            }
            self.version = self.version.max(version);
        }
        drop(found);
        let (rows, takings) = redemptions::load_all(tx, customer.id).await?;
        redemptions::tell(&mut self.replay, &rows, takings);
        use ledger_entry::Column as L;
        let mut found = ledger_entry::Entity::find()
            .filter(L::CustomerId.eq(customer.id))
            .filter(L::Sequence.gt(since_sequence))
            .order_by_asc(L::Sequence)
            .stream(tx)
            .await?;
        while let Some(entry) = found.try_next().await? {
            self.balance += entry.points;
            (self.sequence, self.posted_at) = (entry.sequence, entry.created_at);
            self.version = self.version.max(entry.version);
            if let Some(number) = entry.award_number {
                *self.posted.entry(number).or_default() += entry.points;
            }
            self.replay.push(ledger::to_replay(&entry));
        }
        self.replay.end_commit();
        let customer::Model { stamp, version, ledger_sequence, .. } = *customer;
        self.read_at = Some(ReadAt { stamp, version, sequence: ledger_sequence });
        Ok(())
    }

    /// Returns the highest number of an award, including awards that exist only in the ledger.
    pub(super) fn last_award(&self) -> i64 {
        let last = self.awards.keys().next_back().copied();
        self.posted.keys().copied().chain(last).max().unwrap_or_default()
    }

    /// Whether the ledger posted these points for the award, with the dates that the award has.
    pub(super) fn agrees(&self, number: i64, award: Counted) -> bool {
        let posted = self.posted.get(&number).copied().unwrap_or_default();
        award.stands_for() == posted
            && self.replay.dates(number) == self.dates.get(&number).copied().unwrap_or_default()
    }

    /// Returns the status that an award should have. A reached award is `STANDING` unless a budget declined it.
    pub(super) fn decided(&self, number: i64, award: Counted) -> AwardStatus {
        if award.status == AwardStatus::Reversed || number > self.decided_to {
            return award.status;
        }
        self.decided.get(&(award.campaign, number)).copied().unwrap_or(AwardStatus::Standing)
    }
}

/// Returns the highest version in which a purchase or refund of the customer was recorded, or a content of a purchase ended.
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
    let of_contents = async |version: purchase_revision::Column| -> Result<Option<i64>, Error> {
        let highest: Option<Option<i64>> = purchase_revision::Entity::find()
            .select_only()
            .column_as(version.max(), "version")
            .filter(purchase_revision::Column::CustomerId.eq(customer))
            .into_tuple()
            .one(tx)
            .await?;
        Ok(highest.flatten())
    };
    let recorded = of_contents(purchase_revision::Column::Version).await?;
    let ended = of_contents(purchase_revision::Column::EndedVersion).await?;
    let highest = [of_purchases.flatten(), of_refunds.flatten(), recorded, ended];
    Ok(highest.into_iter().flatten().max().unwrap_or_default())
}

/// Loads the last budget decision about each award of the customer. There is no index for this query, because repairs are rare.
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
