//! Audits the ledger of a customer: compares the entries with each other, with their awards and with the customer's row.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use entity::{
    AwardStatus, CampaignId, CustomerId, LedgerEntryKind, award, customer, ledger_entry, lot, redemption, taking,
};
use sea_orm::sea_query::{Expr, Value};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect};

use super::pages::{Customers, Pages, Row};
use crate::app::audit::difference::{Found, word};
use crate::app::campaign::set::{Campaign, CampaignSet};
use crate::app::error::Error;
use crate::app::rows::Kind;
use crate::app::stored::ledger_entry::to_replay;
use crate::app::stored::lot as lots;
use crate::app::stored::redemption::{self as redemptions, Takings};
use crate::app::stored::running::{Held, Running};
use crate::engine::external_id::is_erased;
use crate::engine::lot::{Lot, LotKey};
use crate::engine::purse::Sums;
use crate::engine::replay::{Replay, Wrong};
use crate::engine::time::Instant;

/// The number of awards in memory when awards are compared with their entries one by one.
const AWARDS_AT_ONCE: u64 = 32_768;

/// The number, points, status and campaign of an award.
type Award = (i64, i64, AwardStatus, CampaignId);

/// A ledger entry, together with what it is compared with.
#[derive(FromQueryResult)]
struct Posted {
    #[sea_orm(nested)]
    entry: ledger_entry::Model,
    award_version: Option<i64>,
    award_by: Option<String>,
    award_status: Option<AwardStatus>,
    award_points: Option<i64>,
    award_campaign: Option<CampaignId>,
    /// The customer of the purchase that the entry names, or the customer of the entry if the purchase belonged to that one once. Loaded
    /// only if another purchase may have reached the award when the entry was posted.
    bought_by: Option<CustomerId>,
}

impl Row for Posted {
    const SELECT: &'static str = "s.*, a.version AS award_version, a.purchase_external_id AS award_by, \
        a.status AS award_status, a.points AS award_points, a.campaign_id AS award_campaign, \
        CASE WHEN a.version > s.version OR s.kind = 'reversal' THEN COALESCE((SELECT v.customer_id FROM purchase_revision AS v \
            WHERE v.external_id = s.purchase_external_id AND v.customer_id = s.customer_id LIMIT 1), p.customer_id) \
        END AS bought_by";
    const FROM: &'static str = "ledger_entry AS s \
        LEFT JOIN award AS a ON a.customer_id = s.customer_id AND a.number = s.award_number \
        LEFT JOIN purchase AS p \
            ON p.external_id = CASE WHEN a.version > s.version OR s.kind = 'reversal' THEN s.purchase_external_id END";
    const ORDER: &'static [(&'static str, Kind)] = &[("customer_id", Kind::Int), ("sequence", Kind::Int)];

    fn position(&self) -> Vec<Value> {
        vec![self.entry.customer_id.0.into(), self.entry.sequence.into()]
    }

    fn customer(&self) -> CustomerId {
        self.entry.customer_id
    }

    fn bytes(&self) -> usize {
        let texts = [&self.entry.purchase_external_id, &self.entry.reason, &self.award_by];
        512 + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// The sum of the points of all awards, where the points of each award are multiplied by a random number of that award. The order
/// of the summands does not matter. Two sums are equal only if every award has the same points in both, except with a
/// probability of about 2⁻⁶⁴. So the awards and the entries of a customer can be compared without keeping them in memory.
#[derive(Clone)]
struct Fingerprint {
    random: RandomState,
    sum: i128,
}

impl Fingerprint {
    fn add(&mut self, award_number: i64, points: i64) {
        let half = |which: u8| i128::from(self.random.hash_one((which, award_number)));
        let factor = (half(0) << 64) | half(1);
        self.sum = self.sum.wrapping_add(factor.wrapping_mul(points.into()));
    }
}

/// What the awards and facts of a customer imply about its ledger and its row.
pub(super) struct Stands {
    fingerprint: Fingerprint,
    lifetime: i64,
    last_award: i64,
    version: i64,
}

impl Stands {
    pub(super) fn new() -> Self {
        let fingerprint = Fingerprint { random: RandomState::new(), sum: 0 };
        Self { fingerprint, lifetime: 0, last_award: 0, version: 0 }
    }

    pub(super) fn see(&mut self, award: &award::Model) {
        let points = standing_points(award.status, award.points);
        self.fingerprint.add(award.number, points);
        self.lifetime += points;
        self.last_award = self.last_award.max(award.number);
        self.see_version(award.version);
    }

    fn see_entry(&mut self, entry: &ledger_entry::Model) {
        self.last_award = self.last_award.max(entry.award_number.unwrap_or_default());
        self.see_version(entry.version);
    }

    /// Notes that a row was written by the commit with this version.
    pub(super) fn see_version(&mut self, version: i64) {
        self.version = self.version.max(version);
    }
}

fn standing_points(status: AwardStatus, points: i64) -> i64 {
    if status == AwardStatus::Standing { points } else { 0 }
}

/// The entries of a range of customers that have not been read yet.
pub(super) struct Ledger<'a> {
    snapshot: &'a DatabaseTransaction,
    entries: Pages<'a, Posted>,
    lots: Pages<'a, lot::Model>,
    redemptions: Pages<'a, redemption::Model>,
    takings: Pages<'a, taking::Model>,
}

impl Row for redemption::Model {
    const SELECT: &'static str = "s.*";
    const FROM: &'static str = "redemption AS s";
    const ORDER: &'static [(&'static str, Kind)] = &[("customer_id", Kind::Int), ("number", Kind::Int)];

    fn position(&self) -> Vec<Value> {
        vec![self.customer_id.0.into(), self.number.into()]
    }

    fn customer(&self) -> CustomerId {
        self.customer_id
    }

    fn bytes(&self) -> usize {
        256 + self.reason.as_ref().map_or(0, String::len)
    }
}

impl Row for taking::Model {
    const SELECT: &'static str = "s.*";
    const FROM: &'static str = "taking AS s";
    const ORDER: &'static [(&'static str, Kind)] =
        &[("customer_id", Kind::Int), ("redemption_number", Kind::Int), ("expires_at", Kind::Int)];

    fn position(&self) -> Vec<Value> {
        vec![self.customer_id.0.into(), self.redemption_number.into(), self.expires_at.into()]
    }

    fn customer(&self) -> CustomerId {
        self.customer_id
    }

    fn bytes(&self) -> usize {
        64
    }
}

impl Row for lot::Model {
    const SELECT: &'static str = "s.*";
    const FROM: &'static str = "lot AS s";
    const ORDER: &'static [(&'static str, Kind)] =
        &[("customer_id", Kind::Int), ("matures_at", Kind::Int), ("expires_at", Kind::Int)];

    fn position(&self) -> Vec<Value> {
        vec![self.customer_id.0.into(), self.matures_at.into(), self.expires_at.into()]
    }

    fn customer(&self) -> CustomerId {
        self.customer_id
    }

    fn bytes(&self) -> usize {
        128
    }
}

impl<'a> Ledger<'a> {
    pub(super) fn of(snapshot: &'a DatabaseTransaction, customers: Customers) -> Self {
        Self {
            snapshot,
            entries: Pages::of(snapshot, customers),
            lots: Pages::of(snapshot, customers),
            redemptions: Pages::of(snapshot, customers),
            takings: Pages::of(snapshot, customers),
        }
    }

    /// Compares the ledger of the next customer.
    pub(super) async fn compare(
        &mut self,
        set: &CampaignSet,
        row: &customer::Model,
        mut stands: Stands,
        found: &mut Found<'_>,
    ) -> Result<(), Error> {
        let mut posted = Fingerprint { sum: 0, ..stands.fingerprint.clone() };
        let (mut sequence, mut balance, mut posted_at) = (0, 0, 0);
        let mut replay = Replay::default();
        let (rows, takings) = self.read_redemptions(row.id).await?;
        compare_takings(&rows, &takings, found);
        rows.iter().for_each(|row| stands.see_version(row.version));
        redemptions::tell(&mut replay, &rows, takings);
        while let Some(next) = self.entries.next_if(row.id, |_| true).await? {
            let entry = &next.entry;
            found.compare(None, "ledger sequence", entry.sequence, sequence + 1);
            (sequence, balance, posted_at) = (entry.sequence, balance + entry.points, entry.created_at);
            let what = format!("balance after ledger entry {sequence}");
            found.compare(None, &what, entry.balance_after, balance);
            stands.see_entry(entry);
            if let Some(award) = entry.award_number {
                posted.add(award, entry.points);
            }
            replay.push(to_replay(entry));
            compare_entry(set, &next, found);
            if !is_erased(&row.external_id) {
                compare_purchase(set, &next, found);
            }
        }
        self.compare_lots(row, replay, found).await?;
        found.compare(None, "last sequence", row.ledger_sequence, sequence);
        found.compare(None, "time of the last entry", row.posted_at, posted_at);
        found.compare(None, "balance", row.balance, balance);
        if posted.sum != stands.fingerprint.sum {
            self.compare_awards(set, row.id, found).await?;
        }
        found.compare(None, "lifetime", row.lifetime, stands.lifetime);
        found.compare(None, "last award number", row.award_number, stands.last_award);
        if row.version < stands.version {
            found.note(None, "version".to_owned(), row.version.to_string(), format!("at least {}", stands.version));
        }
        Ok(())
    }

    async fn read_redemptions(&mut self, customer: CustomerId) -> Result<(Vec<redemption::Model>, Takings), Error> {
        let (mut rows, mut taken) = (Vec::new(), Vec::new());
        while let Some(row) = self.redemptions.next_if(customer, |_| true).await? {
            rows.push(row);
        }
        while let Some(row) = self.takings.next_if(customer, |_| true).await? {
            taken.push(row);
        }
        Ok((rows, redemptions::by_redemption(taken)))
    }

    /// Compares what the customer holds with what its ledger says.
    async fn compare_lots(
        &mut self,
        row: &customer::Model,
        replay: Replay,
        found: &mut Found<'_>,
    ) -> Result<(), Error> {
        let (mut purse, wrong) = replay.finish();
        for Wrong { sequence, recorded, expected } in wrong {
            found.note(
                None,
                format!("expiry up to ledger entry {sequence}"),
                recorded.to_string(),
                expected.to_string(),
            );
        }
        // If the states cannot be read, another comparison reports that.
        let held = Running::parse(&row.head).unwrap_or_default().held;
        if let Some(held) = held {
            // Lots are as they were at the last commit, which may have posted nothing.
            let expired = purse.advance(held.at).expiries.len();
            found.compare(None, "expiries that are not posted", 0, i64::try_from(expired).unwrap_or(i64::MAX));
        }
        let expected = purse.sums();
        // Of a customer whose points are all in the pool, it is not stored what was spent.
        let pool = Sums { pool_spent: expected.pool_spent, ..Sums::default() };
        let held = held.map_or(pool, Held::sums);
        found.compare(None, "pending points", held.pending, expected.pending);
        found.compare(None, "reserved points", held.reserved, expected.reserved);
        found.compare(None, "points in lots", held.in_lots, expected.in_lots);
        found.compare(None, "reserved points of the pool", held.pool_reserved, expected.pool_reserved);
        found.compare(None, "spent points of the pool", held.pool_spent, expected.pool_spent);
        let mut expected: BTreeMap<LotKey, Lot> = purse.lots().filter(|(_, lot)| !lot.is_empty()).collect();
        while let Some(lot) = self.lots.next_if(row.id, |_| true).await? {
            let (key, recorded) = (lots::key(&lot), lots::parts(&lot));
            let expected = expected.remove(&key).unwrap_or_default();
            if recorded != expected {
                found.note(None, name_lot(key), format!("{recorded:?}"), format!("{expected:?}"));
            }
        }
        for (key, expected) in expected {
            found.note(None, name_lot(key), "none".to_owned(), format!("{expected:?}"));
        }
        // An earlier instant costs time and nothing else.
        let due_at = row.due_at.map_or(Instant::FOREVER, Instant);
        if let Some(next) = purse.next_change().filter(|next| *next < due_at) {
            found.note(None, "next change of points".to_owned(), due_at.to_string(), next.to_string());
        }
        Ok(())
    }

    /// Compares the points of each award with those that were posted for it, [`AWARDS_AT_ONCE`] awards at a time.
    async fn compare_awards(
        &self,
        set: &CampaignSet,
        customer: CustomerId,
        found: &mut Found<'_>,
    ) -> Result<(), Error> {
        let mut after = i64::MIN;
        loop {
            let awards = self.awards(customer, after).await?;
            let is_last = (awards.len() as u64) < AWARDS_AT_ONCE;
            let to = awards.last().filter(|_| !is_last).map_or(i64::MAX, |(number, ..)| *number);
            let mut posted = self.posted(customer, after, to).await?;
            for award in awards {
                compare_posted(set, award, posted.remove(&award.0).unwrap_or_default(), found);
            }
            for (number, posted) in posted {
                let what = format!("points posted for award {number}, which does not exist");
                found.compare(None, &what, posted, 0);
            }
            if is_last {
                return Ok(());
            }
            after = to;
        }
    }

    /// Loads the next awards after this number.
    async fn awards(&self, customer: CustomerId, after: i64) -> Result<Vec<Award>, Error> {
        use award::Column::{CampaignId, CustomerId, Number, Points, Status};
        let awards = award::Entity::find()
            .select_only()
            .columns([Number, Points, Status, CampaignId])
            .filter(CustomerId.eq(customer))
            .filter(Number.gt(after))
            .order_by_asc(Number)
            .limit(AWARDS_AT_ONCE);
        Ok(awards.into_tuple().all(self.snapshot).await?)
    }

    /// Loads the sum of the posted points of each award with `after < number <= to`.
    async fn posted(&self, customer: CustomerId, after: i64, to: i64) -> Result<BTreeMap<i64, i64>, Error> {
        let sums: Vec<(i64, i64)> = ledger_entry::Entity::find()
            .select_only()
            .column(ledger_entry::Column::AwardNumber)
            .column_as(Expr::cust("CAST(SUM(points) AS bigint)"), "points")
            .filter(ledger_entry::Column::CustomerId.eq(customer))
            .filter(ledger_entry::Column::AwardNumber.gt(after))
            .filter(ledger_entry::Column::AwardNumber.lte(to))
            .group_by(ledger_entry::Column::AwardNumber)
            .into_tuple()
            .all(self.snapshot)
            .await?;
        Ok(sums.into_iter().collect())
    }
}

/// Compares the points of each redemption with what it took.
fn compare_takings(rows: &[redemption::Model], takings: &Takings, found: &mut Found<'_>) {
    for row in rows {
        let taken = takings.get(&(row.customer_id, row.number)).map(Vec::as_slice).unwrap_or_default();
        let taken: i64 = taken.iter().map(|taking| taking.points).sum();
        found.compare(None, &format!("points taken by redemption {}", row.number), taken, row.points);
    }
}

fn name_lot(key: LotKey) -> String {
    let expiry = if key.expires_at == Instant::FOREVER { String::new() } else { format!(" until {}", key.expires_at) };
    format!("lot from {}{expiry}", key.matures_at.map_or_else(|| "now".to_owned(), |at| at.to_string()))
}

/// Compares the points of an award with those that were posted for it.
fn compare_posted(set: &CampaignSet, award: Award, posted: i64, found: &mut Found<'_>) {
    let (number, points, status, campaign) = award;
    let campaign = set.get(campaign).map(AsRef::as_ref);
    if status == AwardStatus::Declined && posted == points {
        // Nothing is ever posted for a DECLINED award, so the status must be wrong.
        let (recorded, expected) = (word(AwardStatus::Declined), word(AwardStatus::Standing));
        found.note(campaign, format!("status of award {number}"), recorded, expected);
    }
    let what = format!("points posted for award {number}");
    found.compare(campaign, &what, posted, standing_points(status, points));
}

/// Compares an entry with its award.
fn compare_entry(set: &CampaignSet, posted: &Posted, found: &mut Found<'_>) {
    let Posted { entry, award_campaign, .. } = posted;
    let campaign = award_campaign.and_then(|id| set.get(id)).map(AsRef::as_ref);
    let sequence = entry.sequence;
    let of_an_award = matches!(entry.kind, LedgerEntryKind::Award | LedgerEntryKind::Reversal);
    let what = format!("award of ledger entry {sequence}");
    found.compare(None, &what, entry.award_number.is_some(), of_an_award);
    if let (Some(number), Some(points)) = (entry.award_number, points_reversed(posted)) {
        let recorded = posted.award_points.unwrap_or_default();
        found.compare(campaign, &format!("points of award {number}, which is REVERSED"), recorded, points);
    }
}

/// Compares the purchase that an entry names with that of its award.
fn compare_purchase(set: &CampaignSet, posted: &Posted, found: &mut Found<'_>) {
    let Posted { entry, award_campaign, .. } = posted;
    let campaign = award_campaign.and_then(|id| set.get(id)).map(AsRef::as_ref);
    let sequence = entry.sequence;
    if let Some(expected) = expected_purchase(campaign, posted) {
        let show = |purchase: Option<&str>| purchase.unwrap_or("none").to_owned();
        let recorded = entry.purchase_external_id.as_deref();
        if recorded != expected {
            let what = format!("purchase of ledger entry {sequence}");
            found.note(campaign, what, show(recorded), show(expected));
        }
    } else if posted.award_version.is_some() && posted.bought_by != Some(entry.customer_id) {
        let what = format!("purchase of ledger entry {sequence}");
        let recorded = entry.purchase_external_id.clone().unwrap_or_else(|| "none".to_owned());
        found.note(campaign, what, recorded, "one of this customer's".to_owned());
    }
}

/// Returns the purchase that the entry must name. Returns `None` if that is unknown, because the award has changed since the
/// entry was posted.
fn expected_purchase<'a>(campaign: Option<&Campaign>, posted: &'a Posted) -> Option<Option<&'a str>> {
    let Posted { entry, award_version, award_by, .. } = posted;
    if !matches!(entry.kind, LedgerEntryKind::Award | LedgerEntryKind::Reversal) {
        return Some(None);
    }
    let version = (*award_version)?;
    // If only the dates of an award change, one commit reverses it for the old purchase and awards it for the new one.
    let timed = campaign.is_some_and(|one| one.rule.dates_points());
    let reposted = timed && entry.kind == LedgerEntryKind::Reversal && version == entry.version;
    (version <= entry.version && !reposted).then_some(award_by.as_deref())
}

/// Returns the points that a REVERSED award must have, according to the entry that reversed it. Returns `None` if there is no
/// such entry, or if a repair posted it: the points of such an entry are only what the ledger lacked.
fn points_reversed(posted: &Posted) -> Option<i64> {
    let Posted { entry, award_status, award_version, .. } = posted;
    let last = *award_status == Some(AwardStatus::Reversed) && *award_version == Some(entry.version);
    (last && entry.kind == LedgerEntryKind::Reversal && entry.reason.is_none()).then_some(-entry.points)
}
