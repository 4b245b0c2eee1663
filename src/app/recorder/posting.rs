//! Writing the difference: the one place that posts to ledgers, and that decides and counts what budgets give. (`repair` restores
//! awards' statuses before; limits of budgets are set in `app::campaign`.)
//!
//! Within a commit customers come by external id, campaigns in activation order, reversals before awards, awards in
//! award order. Budgets are locked last, by campaign id, after everything else is known.

use std::collections::{BTreeMap, HashMap, VecDeque};

use entity::{
    AwardStatus, BudgetDecisionKind, CampaignId, LedgerEntryKind, award, budget, budget_decision, campaign_stat,
    checkpoint, idempotency_key, ledger_entry,
};
use sea_orm::{EntityTrait, QueryFilter};

use super::draft::Draft;
use super::evaluation::Evaluated;
use super::touched::{Batch, Customers, Touched, lock_in_order};
use crate::app::error::Error;
use crate::app::rows::{Kind, OnConflict, Rows, any, delete, insert, update};
use crate::app::stored::award as awards;
use crate::engine::award::Reached;
use crate::engine::budget::Budget;
use crate::engine::diff::{Changed, How, Recorded};
use crate::engine::evaluate::Outcome;
use crate::engine::purchase::Key;
use crate::engine::state::State;
use crate::engine::time::Instant;

/// What the entries of a repair say.
const REPAIR_REASON: &str = "audit repair";

/// Awards that are updated at once before the budgets are locked. They may be all of a customer's.
const UPDATED_AT_ONCE: usize = 256;

/// Posts every difference and every adjustment.
pub(super) async fn post(
    batch: &Batch<'_>,
    customers: &mut Customers,
    mut evaluated: Vec<Evaluated>,
) -> Result<(), Error> {
    move_awards(batch, customers, &mut evaluated).await?;
    let budgets = lock_budgets(batch, &evaluated).await?;
    let mut posting = Posting { batch, budgets, writes: Writes::default() };
    let mut evaluated: VecDeque<Evaluated> = evaluated.into();
    for (name, customer) in customers.iter_mut() {
        let mut drafts = Drafts::default();
        while let Some(next) = evaluated.pop_front_if(|next| next.customer == *name) {
            posting.apply(customer, next, &mut drafts)?;
        }
        posting.close(customer, drafts);
    }
    posting.writes.save(batch).await
}

/// Updates the awards that stay without posting anything, and takes them out of the differences. A change may move all of a
/// customer's: this needs no budget, so it is done while none is locked.
async fn move_awards(batch: &Batch<'_>, customers: &mut Customers, evaluated: &mut [Evaluated]) -> Result<(), Error> {
    let mut updated = Vec::new();
    for Evaluated { customer, diff, recorded, .. } in evaluated {
        let customer = customers.get_mut(customer).filter(|customer| customer.repair.is_none());
        let Some(customer) = customer else { continue };
        let (stay, post): (Vec<_>, Vec<_>) = std::mem::take(&mut diff.changed).into_iter().partition(posts_nothing);
        diff.changed = post;
        customer.changed |= !stay.is_empty();
        for changed in stay {
            let Some(row) = recorded.remove(&changed.recorded.number) else { continue };
            let row = awards::moved_to(&row, &changed.reached, customer.next_version());
            customer.awards.push(row.clone());
            updated.push(row);
            if updated.len() >= UPDATED_AT_ONCE {
                update::<award::Entity>(batch.tx, &updated).await?;
                updated.clear();
            }
        }
    }
    update::<award::Entity>(batch.tx, &updated).await?;
    Ok(())
}

fn posts_nothing(changed: &Changed) -> bool {
    matches!(changed.how, How::Moved | How::Adjusted)
}

/// Locks the budgets that the differences touch, then reads them.
async fn lock_budgets(batch: &Batch<'_>, evaluated: &[Evaluated]) -> Result<HashMap<CampaignId, budget::Model>, Error> {
    let touched = evaluated.iter().filter(|one| one.campaign.budget_limit.is_some() && !one.diff.is_empty());
    let touched: Vec<i64> = touched.map(|one| one.campaign.id().0).collect();
    if touched.is_empty() {
        return Ok(HashMap::new());
    }
    let budgets = || budget::Entity::find().filter(any(batch.backend(), budget::Column::CampaignId, touched.clone()));
    lock_in_order(batch, budgets(), budget::Column::CampaignId).await?;
    Ok(budgets().all(batch.tx).await?.into_iter().map(|row| (row.campaign_id, row)).collect())
}

/// A customer's ledger entries in the making: reversals come before awards.
#[derive(Default)]
struct Drafts {
    reversals: Vec<Draft>,
    awards: Vec<Draft>,
}

#[derive(Default)]
struct Writes {
    new_awards: Vec<award::Model>,
    changed_awards: Vec<award::Model>,
    entries: Vec<ledger_entry::Model>,
    decisions: Vec<budget_decision::Model>,
    budgets: BTreeMap<CampaignId, budget::Model>,
    stats: BTreeMap<CampaignId, campaign_stat::Model>,
    void_checkpoints: Vec<(i64, i64, Key, Key)>,
    checkpoints: Vec<checkpoint::Model>,
    keys: Vec<idempotency_key::Model>,
}

struct Posting<'a> {
    batch: &'a Batch<'a>,
    budgets: HashMap<CampaignId, budget::Model>,
    writes: Writes,
}

impl Posting<'_> {
    /// One customer's difference in one campaign.
    fn apply(&mut self, customer: &mut Touched, evaluated: Evaluated, drafts: &mut Drafts) -> Result<(), Error> {
        let Evaluated { campaign, diff, mut recorded, outcome, restored, mark, first, .. } = evaluated;
        let id = campaign.id();
        self.keep_fold(customer, id, outcome)?;
        // Also where nothing counted: whether it is evaluated is something that readers see.
        customer.changed |= keep_mark(customer, id, mark) | first;
        let changes = |number| {
            let changed = diff.changed.iter().map(|changed| &changed.recorded);
            changed.chain(&diff.reversed).any(|recorded| recorded.number == number)
        };
        let restored = restored.into_iter().filter(|row| !changes(row.number));
        self.writes.changed_awards.extend(restored.map(|row| award::Model { version: customer.next_version(), ..row }));
        if diff.is_empty() {
            return Ok(());
        }
        customer.changed = true;
        let stood = customer.running.of(id).standing;
        // Reversals, in the order of what is taken back.
        let mut taken: Vec<(&Recorded, i64)> = diff.reversed.iter().map(|gone| (gone, gone.reached.points)).collect();
        taken.extend(diff.changed.iter().filter_map(|changed| Some((&changed.recorded, taken_back(changed)?))));
        taken.sort_by(|(a, _), (b, _)| a.reached.order().cmp(&b.reached.order()));
        for (award, points) in taken {
            let reposted = diff.changed.iter().any(|c| c.recorded.number == award.number && c.how == How::Reposted);
            self.take_back(customer, id, award, points, reposted, drafts);
        }
        for gone in &diff.reversed {
            let standing = customer.running.entry(id);
            *(if gone.standing { &mut standing.standing } else { &mut standing.declined }) -= 1;
            if let Some(row) = recorded.remove(&gone.number) {
                let version = customer.next_version();
                let row = award::Model { status: AwardStatus::Reversed, version, ..row };
                self.changed(customer, row);
            }
        }
        for changed in &diff.changed {
            if let Some(row) = recorded.remove(&changed.recorded.number) {
                let row = awards::moved_to(&row, &changed.reached, customer.next_version());
                self.changed(customer, row);
            }
        }
        // Awards, in award order.
        let mut given: Vec<(&Reached, Option<i64>)> = diff.awarded.iter().map(|award| (award, None)).collect();
        let reposted = diff.changed.iter().filter(|changed| changed.how == How::Reposted);
        given.extend(reposted.map(|changed| (&changed.reached, Some(changed.recorded.number))));
        given.sort_by(|(a, _), (b, _)| a.order().cmp(&b.order()));
        for (award, number) in given {
            match number {
                Some(number) => drafts.awards.push(draft(award.points, number, &award.by)),
                None => self.give(customer, id, award, drafts),
            }
        }
        let stands = customer.running.of(id).standing;
        self.stat(id).awards += stands - stood;
        self.stat(id).customers += i64::from(stands > 0) - i64::from(stood > 0);
        Ok(())
    }

    /// Stores where the fold stands now.
    fn keep_fold(&mut self, customer: &mut Touched, campaign: CampaignId, outcome: Outcome) -> Result<(), Error> {
        let customer_id = customer.row.id;
        if !outcome.appended {
            let from = outcome.from.unwrap_or_else(|| Key::before(Instant::EPOCH));
            let to = outcome.to.unwrap_or_else(|| Key::before(Instant::FOREVER));
            self.writes.void_checkpoints.push((customer_id.0, campaign.0, from, to));
        }
        for state in outcome.checkpoints {
            self.writes.checkpoints.extend(checkpoint_row(customer_id, campaign, &state)?);
        }
        if let Some(tail) = outcome.tail.filter(|tail| customer.running.of(campaign).tail() != *tail) {
            customer.changed = true;
            let standing = customer.running.entry(campaign);
            standing.state = tail.state;
            standing.since_checkpoint = tail.since_checkpoint;
        }
        let version = customer.next_version();
        if let Some(standing) = customer.running.get_mut(campaign) {
            let since = if outcome.appended { standing.history_version } else { None };
            standing.history_version = since.or(Some(version));
        }
        Ok(())
    }

    /// Points of a recorded award that no longer stand, or would no longer.
    fn take_back(
        &mut self,
        customer: &mut Touched,
        campaign: CampaignId,
        award: &Recorded,
        points: i64,
        reposted: bool,
        drafts: &mut Drafts,
    ) {
        if !award.standing {
            self.stat(campaign).points_declined -= points;
            return;
        }
        drafts.reversals.push(draft(-points, award.number, &award.reached.by));
        if reposted {
            return;
        }
        customer.row.lifetime -= points;
        self.stat(campaign).points_standing -= points;
        if let Some(row) = self.budgets.get_mut(&campaign) {
            row.points_used -= points;
            self.decide(campaign, BudgetDecisionKind::Released, customer, award.number, points);
        }
    }

    /// A newly reached award.
    fn give(&mut self, customer: &mut Touched, campaign: CampaignId, reached: &Reached, drafts: &mut Drafts) {
        customer.row.award_number += 1;
        let number = customer.row.award_number;
        let stands = self.fits(campaign, reached.points);
        let standing = customer.running.entry(campaign);
        let status = if stands {
            standing.standing += 1;
            customer.row.lifetime += reached.points;
            self.stat(campaign).points_standing += reached.points;
            drafts.awards.push(draft(reached.points, number, &reached.by));
            AwardStatus::Standing
        } else {
            standing.declined += 1;
            self.stat(campaign).points_declined += reached.points;
            AwardStatus::Declined
        };
        if self.budgets.contains_key(&campaign) {
            let kind = if stands { BudgetDecisionKind::Standing } else { BudgetDecisionKind::Declined };
            self.decide(campaign, kind, customer, number, reached.points);
        }
        let row = awards::to_row(reached, customer.row.id, number, campaign, status, customer.next_version());
        customer.awards.push(row.clone());
        self.writes.new_awards.push(row);
    }

    fn fits(&mut self, campaign: CampaignId, points: i64) -> bool {
        let Some(row) = self.budgets.get_mut(&campaign) else { return true };
        let Some(limit) = row.points_limit else { return true };
        let mut budget = Budget { limit, used: row.points_used };
        let fits = budget.decide(points);
        row.points_used = budget.used;
        fits
    }

    /// Numbers what just moved the budget.
    fn decide(
        &mut self,
        campaign: CampaignId,
        kind: BudgetDecisionKind,
        customer: &Touched,
        award_number: i64,
        points: i64,
    ) {
        let Some(row) = self.budgets.get_mut(&campaign) else { return };
        row.decision_no += 1;
        self.writes.decisions.push(budget_decision::Model {
            campaign_id: campaign,
            decision_no: row.decision_no,
            kind,
            customer_id: Some(customer.row.id.0),
            award_number: Some(award_number),
            points,
            points_used: row.points_used,
        });
        self.writes.budgets.insert(campaign, row.clone());
    }

    fn changed(&mut self, customer: &mut Touched, row: award::Model) {
        customer.awards.push(row.clone());
        self.writes.changed_awards.push(row);
    }

    fn stat(&mut self, campaign: CampaignId) -> &mut campaign_stat::Model {
        self.writes.stats.entry(campaign).or_insert(campaign_stat::Model {
            campaign_id: campaign,
            shard: self.batch.shard,
            awards: 0,
            customers: 0,
            points_standing: 0,
            points_declined: 0,
        })
    }

    /// Numbers a customer's entries: reversals, awards, adjustments.
    fn close(&mut self, customer: &mut Touched, drafts: Drafts) {
        let version = customer.next_version();
        let mut entries = Vec::new();
        let entry = |row: &mut entity::customer::Model, kind, points| {
            row.ledger_sequence += 1;
            row.posted_at = self.batch.now.0;
            row.balance += points;
            ledger_entry::Model {
                customer_id: row.id,
                sequence: row.ledger_sequence,
                kind,
                points,
                balance_after: row.balance,
                award_number: None,
                purchase_external_id: None,
                reason: None,
                created_at: row.posted_at,
                version,
            }
        };
        let reason = customer.repair.is_some().then(|| REPAIR_REASON.to_owned());
        let drafts = match customer.repair.take() {
            // What the ledger has may have been wrong before: only what it lacks in the end is posted.
            Some(repair) => {
                let written = self.writes.changed_awards.iter().chain(&self.writes.new_awards);
                repair.settle(&mut customer.row, written)
            }
            None => drafts.reversals.into_iter().chain(drafts.awards).collect(),
        };
        for draft in drafts {
            let kind = if draft.points < 0 { LedgerEntryKind::Reversal } else { LedgerEntryKind::Award };
            let entry = entry(&mut customer.row, kind, draft.points);
            entries.push(ledger_entry::Model {
                award_number: Some(draft.award_number),
                purchase_external_id: draft.purchase,
                reason: reason.clone(),
                ..entry
            });
        }
        for adjustment in &customer.adjustments {
            let entry = entry(&mut customer.row, LedgerEntryKind::Adjustment, adjustment.points);
            self.writes.keys.push(idempotency_key::Model {
                key: adjustment.idempotency_key.clone(),
                request: adjustment.request(),
                campaign_id: None,
                customer_id: Some(customer.row.id.0),
                sequence: Some(entry.sequence),
            });
            entries.push(ledger_entry::Model { reason: Some(adjustment.reason.clone()), ..entry });
        }
        self.writes.entries.extend(entries.iter().cloned());
        customer.entries = entries;
    }
}

/// Stores up to where the history is evaluated; whether that changed anything.
fn keep_mark(customer: &mut Touched, campaign: CampaignId, mark: Option<Key>) -> bool {
    if customer.running.of(campaign).mark == mark {
        return false;
    }
    customer.running.entry(campaign).mark = mark;
    true
}

/// How many points a recorded award that stays loses (those of a reposted one come back).
fn taken_back(changed: &Changed) -> Option<i64> {
    match changed.how {
        How::Shrunk(points) => Some(points),
        How::Reposted => Some(changed.recorded.reached.points),
        How::Moved | How::Adjusted => None,
    }
}

fn draft(points: i64, award_number: i64, by: &Key) -> Draft {
    Draft { points, award_number, purchase: Some(by.external_id.clone()) }
}

fn checkpoint_row(
    customer_id: entity::CustomerId,
    campaign_id: CampaignId,
    state: &State,
) -> Result<Option<checkpoint::Model>, Error> {
    let Some(key) = state.last.clone() else { return Ok(None) };
    let state = serde_json::to_string(state).map_err(|error| Error::Internal(error.to_string()))?;
    let (purchased_at, external_id) = (key.at.0, key.external_id);
    Ok(Some(checkpoint::Model { customer_id, campaign_id, purchased_at, external_id, state }))
}

impl Writes {
    async fn save(self, batch: &Batch<'_>) -> Result<(), Error> {
        let tx = batch.tx;
        insert::<award::Entity>(tx, &self.new_awards, OnConflict::Fail).await?;
        update::<award::Entity>(tx, &self.changed_awards).await?;
        insert::<ledger_entry::Entity>(tx, &self.entries, OnConflict::Fail).await?;
        update::<idempotency_key::Entity>(tx, &self.keys).await?;
        insert::<budget_decision::Entity>(tx, &self.decisions, OnConflict::Fail).await?;
        update::<budget::Entity>(tx, &self.budgets.into_values().collect::<Vec<_>>()).await?;
        let stats: Vec<campaign_stat::Model> = self.stats.into_values().collect();
        insert::<campaign_stat::Entity>(tx, &stats, OnConflict::Add).await?;
        delete_checkpoints(batch, self.void_checkpoints).await?;
        insert::<checkpoint::Entity>(tx, &self.checkpoints, OnConflict::Fail).await?;
        Ok(())
    }
}

/// Deletes the checkpoints that lie strictly between two keys of a customer's history in a campaign.
async fn delete_checkpoints(batch: &Batch<'_>, void: Vec<(i64, i64, Key, Key)>) -> Result<(), Error> {
    if void.is_empty() {
        return Ok(());
    }
    let columns = [
        ("customer_id", Kind::Int),
        ("campaign_id", Kind::Int),
        ("from_at", Kind::Int),
        ("from_id", Kind::Text),
        ("to_at", Kind::Int),
        ("to_id", Kind::Text),
    ];
    let mut rows = Rows::new(batch.backend(), &columns);
    for (customer, campaign, from, to) in void {
        rows.push(vec![
            customer.into(),
            campaign.into(),
            from.at.0.into(),
            from.external_id.into(),
            to.at.0.into(),
            to.external_id.into(),
        ]);
    }
    let on = "t.customer_id = r.customer_id AND t.campaign_id = r.campaign_id \
        AND t.purchased_at >= r.from_at AND t.purchased_at <= r.to_at \
        AND (t.purchased_at > r.from_at OR t.external_id > COALESCE(r.from_id, '')) \
        AND (t.purchased_at < r.to_at OR t.external_id < COALESCE(r.to_id, ''))";
    let key = ["customer_id", "campaign_id", "purchased_at", "external_id"];
    delete(batch.tx, "checkpoint", &key, rows, on).await?;
    Ok(())
}
