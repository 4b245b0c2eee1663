//! Writes the difference of a batch. Only this module posts ledger entries and decides what budgets give. (`repair` restores the
//! statuses of awards before that, and `app::campaign` sets the limits of budgets.)
//!
//! The order within a commit is fixed: all reversals before all awards, customers by external id, campaigns in activation order, awards
//! in award order. Budgets are locked last, in the order of campaign ids, when everything else is known.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use entity::{
    AwardStatus, CampaignId, CustomerId, award, budget, budget_decision, campaign_stat, checkpoint, customer,
    idempotency_key, ledger_entry, lot, outbox, redemption, reward_code, stock, taking,
};
use sea_orm::{EntityTrait, QueryFilter};

use super::drafts::Drafts;
use super::entries::{Closed, Entries};
use super::evaluation::Evaluated;
use super::fact::Done;
use super::purses::{Opened, Purses};
use super::stocks::{self, Stocks};
use super::telling;
use super::touched::{Batch, Customers, Touched, lock_in_order};
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::{OnConflict, WriteGroup, any, delete};
use crate::app::stored::stretches::{Ends, Stored, Stretches, lies_in};
use crate::app::stored::{
    award as awards, budget as budgets, campaign_stat as stats, checkpoint as checkpoints, lot as lots,
};
use crate::engine::account::{Account, Effect, Given, Tally, Totals};
use crate::engine::budget::{Budget, Decision};
use crate::engine::diff::Changed;
use crate::engine::evaluate::{Outcome, Tail};
use crate::engine::lot::LotKey;
use crate::engine::purchase::Key;

/// The `reason` of the ledger entries that a repair posts.
const REPAIR_REASON: &str = "audit repair";

/// The number of awards that one statement updates before the budgets are locked. A change may move all awards of a customer.
const UPDATED_AT_ONCE: usize = 256;

/// Posts all differences of the batch and decides its acts. Returns what is not written yet, or `None` if the batch must be repeated.
pub(super) async fn post(
    batch: &Batch<'_>,
    customers: &mut Customers,
    mut evaluated: Vec<Evaluated>,
    mut purses: Purses,
) -> Result<Option<Writes>, Error> {
    move_awards(batch, customers, &mut evaluated).await?;
    let budgets = lock_budgets(batch, &evaluated).await?;
    let repairs = customers.values().any(|customer| customer.repair.is_some());
    let mut posting = Posting { budgets, writes: Writes::new(batch, repairs) };
    let mut drafts: HashMap<String, Drafts> = HashMap::new();
    // All customers give back before any gets something, so that a budget has what it gets back before it decides.
    for one in &mut evaluated {
        let Some(customer) = customers.get_mut(&one.customer) else { continue };
        posting.keep(customer, one)?;
        if !one.diff.is_empty() {
            posting.take_back(customer, one, drafts.entry(one.customer.clone()).or_default());
        }
    }
    for one in evaluated.into_iter().filter(|one| !one.diff.is_empty()) {
        let Some(customer) = customers.get_mut(&one.customer) else { continue };
        let drafts = drafts.entry(one.customer.clone()).or_default();
        posting.give(customer, one, drafts);
    }
    let Some(mut stocks) = stocks::lock(batch, customers, &purses).await? else { return Ok(None) };
    for (name, customer) in customers.iter_mut() {
        let Some(mut opened) = purses.remove(name) else { continue };
        let mut drafts = drafts.remove(name).unwrap_or_default();
        let repair = customer.repair.take();
        let reason = repair.is_some().then_some(REPAIR_REASON);
        if let Some(mut repair) = repair {
            // The ledger may have been wrong before the repair. So the entries are computed from what it lacks in the end, and the lots
            // from its entries.
            drafts = repair.settle(&mut customer.row, posting.writes.awards(), customer.now);
            let stored = lots::load_all(batch.tx, [customer.row.id]).await?;
            opened = opened.replace(repair.into_purse(), &stored);
        }
        posting.close(customer, drafts, opened, reason, &mut stocks);
    }
    (posting.writes.stocks, posting.writes.codes) = stocks.into_changed();
    Ok(Some(posting.writes))
}

/// Updates the awards that change without a ledger entry, and removes them from the differences. There may be many of them. They
/// need no budget, so they are updated before the budgets are locked.
async fn move_awards(batch: &Batch<'_>, customers: &mut Customers, evaluated: &mut [Evaluated]) -> Result<(), Error> {
    let mut updated = Vec::new();
    for Evaluated { customer, diff, recorded, .. } in evaluated {
        let customer = customers.get_mut(customer).filter(|customer| customer.repair.is_none());
        let Some(customer) = customer else { continue };
        let (stay, post): (Vec<_>, Vec<_>) =
            std::mem::take(&mut diff.changed).into_iter().partition(Changed::posts_nothing);
        diff.changed = post;
        customer.changed |= !stay.is_empty();
        for changed in stay {
            let Some(row) = recorded.remove(&changed.recorded.number) else { continue };
            let row = Arc::new(awards::moved_to(&row, &changed.reached, customer.next_version()));
            customer.changed_award(Arc::clone(&row));
            updated.push(row);
            if updated.len() >= UPDATED_AT_ONCE {
                update_awards(batch, &updated).await?;
                updated.clear();
                telling::write_many(batch, customer).await?;
            }
        }
    }
    update_awards(batch, &updated).await
}

async fn update_awards(batch: &Batch<'_>, awards: &[Arc<award::Model>]) -> Result<(), Error> {
    let mut group = WriteGroup::new(batch.backend());
    group.update::<award::Entity>(awards, dates_unless_used(awards));
    Ok(group.run(batch.tx).await?)
}

/// Locks the budgets of the campaigns that have a difference, then reads them.
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

/// The rows to write, except for those of the customers.
pub(super) struct Writes {
    /// A customer is under repair.
    repairs: bool,
    new_awards: Vec<Arc<award::Model>>,
    changed_awards: Vec<Arc<award::Model>>,
    entries: Vec<Arc<ledger_entry::Model>>,
    decisions: Vec<budget_decision::Model>,
    budgets: BTreeMap<CampaignId, budget::Model>,
    totals: BTreeMap<CampaignId, Totals>,
    void_checkpoints: Stretches,
    checkpoints: Vec<checkpoint::Model>,
    keys: Vec<idempotency_key::Model>,
    /// The keys of adjustments that were refused. A refusal leaves no trace.
    unused_keys: Vec<String>,
    lots: Vec<lot::Model>,
    gone_lots: Vec<(CustomerId, LotKey)>,
    new_redemptions: Vec<Arc<redemption::Model>>,
    changed_redemptions: Vec<Arc<redemption::Model>>,
    takings: Vec<taking::Model>,
    stocks: Vec<stock::Model>,
    codes: Vec<reward_code::Model>,
}

struct Posting {
    budgets: HashMap<CampaignId, budget::Model>,
    writes: Writes,
}

impl Posting {
    /// Keeps what the evaluation found beside the difference.
    fn keep(&mut self, customer: &mut Touched, evaluated: &mut Evaluated) -> Result<(), Error> {
        let id = evaluated.campaign.id();
        self.keep_fold(customer, id, std::mem::take(&mut *evaluated.outcome))?;
        // This is a change even if nothing counted, because readers see whether the customer is evaluated in the campaign.
        customer.changed |= keep_mark(customer, id, evaluated.mark.take()) | evaluated.first;
        let diff = &evaluated.diff;
        let changes = |number| {
            let changed = diff.changed.iter().map(|changed| &changed.recorded);
            changed.chain(&diff.reversed).any(|recorded| recorded.number == number)
        };
        let restored = std::mem::take(&mut evaluated.restored).into_iter().filter(|row| !changes(row.number));
        let version = customer.next_version();
        for row in restored.map(|row| Arc::new(award::Model { version, ..row })) {
            if let Some(news) = &mut customer.news {
                news.award(&row);
            }
            self.writes.changed_awards.push(row);
        }
        if evaluated.campaign.rule.caps_points() {
            let points = match customer.repair {
                Some(_) => evaluated.reached.points,
                None => customer.running.of(id).points + diff.points(),
            };
            customer.running.entry(id).points = points;
        }
        Ok(())
    }

    /// Takes back what the awards of a customer in a campaign lose.
    fn take_back(&mut self, customer: &mut Touched, evaluated: &mut Evaluated, drafts: &mut Drafts) {
        let effect = self.apply(customer, &evaluated.campaign, |account, tally, budget| {
            account.take_back(tally, budget, &evaluated.diff)
        });
        drafts.reversals.extend(effect.reversals);
        customer.changed = true;
        for gone in &evaluated.diff.reversed {
            if let Some(row) = evaluated.recorded.remove(&gone.number) {
                let version = customer.next_version();
                self.changed(customer, award::Model { status: AwardStatus::Reversed, version, ..row });
            }
        }
    }

    /// Gives what the awards of a customer in a campaign gain.
    fn give(&mut self, customer: &mut Touched, evaluated: Evaluated, drafts: &mut Drafts) {
        let Evaluated { campaign, diff, mut recorded, .. } = evaluated;
        let id = campaign.id();
        let effect = self.apply(customer, &campaign, |account, tally, budget| account.give(tally, budget, &diff));
        drafts.awards.extend(effect.awards);
        for changed in &diff.changed {
            if let Some(row) = recorded.remove(&changed.recorded.number) {
                let row = awards::moved_to(&row, &changed.reached, customer.next_version());
                self.changed(customer, row);
            }
        }
        for Given { number, standing, reached } in effect.given {
            let status = if standing { AwardStatus::Standing } else { AwardStatus::Declined };
            let row = awards::to_row(&reached, customer.row.id, number, id, status, customer.next_version());
            let row = Arc::new(row);
            customer.changed_award(Arc::clone(&row));
            self.writes.new_awards.push(row);
        }
    }

    /// Applies a part of a difference to the account of the customer, and to the totals and the budget of the campaign. Returns its
    /// effect.
    fn apply(
        &mut self,
        customer: &mut Touched,
        campaign: &Campaign,
        part: impl FnOnce(&mut Account, &mut Tally, Option<&mut Budget>) -> Effect,
    ) -> Effect {
        let id = campaign.id();
        let mut tally = customer.running.of(id).tally();
        let mut account = customer.account();
        let mut budget = self.budgets.get(&id).and_then(budgets::from_row);
        let effect = part(&mut account, &mut tally, budget.as_mut());
        customer.set_account(&account);
        customer.running.entry(id).set_tally(tally);
        *self.writes.totals.entry(id).or_default() += effect.totals;
        self.decide(id, customer, &effect.decisions);
        effect
    }

    /// Stores the checkpoints and the running state that result from the fold.
    fn keep_fold(&mut self, customer: &mut Touched, campaign: CampaignId, outcome: Outcome) -> Result<(), Error> {
        let customer_id = customer.row.id;
        // A repair trusts no recorded value. So it also deletes checkpoints that should not exist.
        if !outcome.appended && (customer.running.has_checkpoints(campaign) || customer.repair.is_some()) {
            self.writes.void_checkpoints.push_in(customer_id, campaign, &outcome.stretch);
        }
        if !outcome.checkpoints.is_empty() {
            customer.running.entry(campaign).has_checkpoints = true;
        }
        for state in outcome.checkpoints {
            self.writes.checkpoints.extend(checkpoints::to_row(customer_id, campaign, &state)?);
        }
        let is_new = |tail: &Tail| match customer.running.get(campaign) {
            Some(running) => (&running.state, running.since_checkpoint) != (&tail.state, tail.since_checkpoint),
            None => *tail != Tail::default(),
        };
        if let Some(tail) = outcome.tail.filter(is_new) {
            customer.changed = true;
            let running = customer.running.entry(campaign);
            (running.state, running.since_checkpoint) = (tail.state, tail.since_checkpoint);
        }
        let version = customer.next_version();
        if let Some(running) = customer.running.get_mut(campaign) {
            let since = if outcome.appended { running.history_version } else { None };
            running.history_version = since.or(Some(version));
        }
        Ok(())
    }

    /// Numbers and stores the decisions of the budget of the campaign.
    fn decide(&mut self, campaign: CampaignId, customer: &Touched, decisions: &[Decision]) {
        let Some(row) = self.budgets.get_mut(&campaign).filter(|_| !decisions.is_empty()) else { return };
        for decision in decisions {
            row.decision_no += 1;
            row.points_used = decision.used;
            self.writes.decisions.push(budget_decision::Model {
                campaign_id: campaign,
                decision_no: row.decision_no,
                kind: budgets::stored_kind(decision.kind),
                customer_id: Some(customer.row.id.0),
                award_number: Some(decision.award_number),
                points: decision.points,
                points_used: decision.used,
            });
        }
        self.writes.budgets.insert(campaign, row.clone());
    }

    fn changed(&mut self, customer: &mut Touched, row: award::Model) {
        let row = Arc::new(row);
        customer.changed_award(Arc::clone(&row));
        self.writes.changed_awards.push(row);
    }

    /// Posts the ledger entries of a customer and decides its acts. `reason` is that of the entries of a repair.
    fn close(
        &mut self,
        customer: &mut Touched,
        drafts: Drafts,
        opened: Opened,
        reason: Option<&'static str>,
        stocks: &mut Stocks,
    ) {
        if customer.running.has_deferred() {
            // Not yet: the job asks again.
            customer.erased_as = None;
        }
        let erases = customer.erased_as.is_some();
        let acts = std::mem::take(&mut customer.acts);
        let mut entries = Entries::begin(customer, opened, reason, stocks);
        let moving = entries.reverse(drafts.reversals);
        entries.award(drafts.awards, moving);
        entries.settle();
        if reason.is_some() {
            entries.correct();
        }
        let mut done = HashMap::new();
        for (index, act) in acts {
            let decided = entries.decide(&act);
            if let Some((key, request)) = act.key() {
                match &decided {
                    Ok(done) => self.writes.keys.push(key_row(key, request, customer.row.id, done)),
                    Err(_) => self.writes.unused_keys.push(key.to_owned()),
                }
            }
            done.insert(index, decided);
        }
        if erases {
            entries.end_reservations();
        }
        let Closed { opened, account, posted, redemptions, takings, has_acted } = entries.close();
        customer.changed |= has_acted || erases || (customer.posts_due && opened.has_changed(customer));
        customer.done = done;
        if customer.changed {
            self.writes.new_redemptions.extend(redemptions.made);
            self.writes.changed_redemptions.extend(redemptions.changed);
            self.writes.takings.extend(takings);
            self.keep_points(customer, &opened, &account, posted);
        }
    }

    fn keep_points(
        &mut self,
        customer: &mut Touched,
        opened: &Opened,
        account: &Account,
        posted: Vec<Arc<ledger_entry::Model>>,
    ) {
        if !posted.is_empty() {
            customer.row.posted_at = opened.purse.now().0;
        }
        customer.set_account(account);
        opened.keep(customer);
        let id = customer.row.id;
        self.writes.lots.extend(opened.changed(id));
        self.writes.gone_lots.extend(opened.gone().into_iter().map(|key| (id, key)));
        self.writes.entries.extend(posted.iter().cloned());
        customer.entries = posted;
    }
}

/// The row of an idempotency key with what the act did.
fn key_row(key: &str, request: String, customer: CustomerId, done: &Done) -> idempotency_key::Model {
    idempotency_key::Model {
        key: key.to_owned(),
        request,
        campaign_id: None,
        customer_id: Some(customer.0),
        sequence: done.entry.as_ref().map(|entry| entry.sequence),
        reward_id: None,
        redemption_number: done.redemption.as_ref().map(|redemption| redemption.number),
    }
}

/// Stores the key up to which the history is evaluated. Returns whether it changed.
fn keep_mark(customer: &mut Touched, campaign: CampaignId, mark: Option<Key>) -> bool {
    if customer.running.of(campaign).mark == mark {
        return false;
    }
    customer.running.entry(campaign).mark = mark;
    true
}

impl Writes {
    fn new(batch: &Batch<'_>, repairs: bool) -> Self {
        Self {
            repairs,
            new_awards: Vec::new(),
            changed_awards: Vec::new(),
            entries: Vec::new(),
            decisions: Vec::new(),
            budgets: BTreeMap::new(),
            totals: BTreeMap::new(),
            void_checkpoints: Stretches::new(batch.backend()),
            checkpoints: Vec::new(),
            keys: Vec::new(),
            unused_keys: Vec::new(),
            lots: Vec::new(),
            gone_lots: Vec::new(),
            new_redemptions: Vec::new(),
            changed_redemptions: Vec::new(),
            takings: Vec::new(),
            stocks: Vec::new(),
            codes: Vec::new(),
        }
    }

    /// The awards that are new or changed so far.
    fn awards(&self) -> impl Iterator<Item = &award::Model> {
        self.changed_awards.iter().chain(&self.new_awards).map(Arc::as_ref)
    }

    /// Writes the rows, those of the customers that changed, and those of their events.
    pub(super) async fn save(
        self,
        batch: &Batch<'_>,
        customers: &Customers,
        events: &[outbox::Model],
    ) -> Result<(), Error> {
        // A separate statement: a checkpoint may be deleted and inserted again.
        delete_checkpoints(batch, self.void_checkpoints).await?;
        lots::delete_keyed(batch.tx, self.gone_lots).await?;
        if !self.unused_keys.is_empty() {
            let unused = any(batch.backend(), idempotency_key::Column::Key, self.unused_keys);
            idempotency_key::Entity::delete_many().filter(unused).exec(batch.tx).await?;
        }
        let mut group = WriteGroup::new(batch.backend());
        let unused = unused_columns(&self.new_awards);
        group.insert_without::<award::Entity>(&self.new_awards, &unused, OnConflict::Fail);
        // A repair may correct dates that should not be there.
        let unchanged = if self.repairs { &[] } else { dates_unless_used(&self.changed_awards) };
        group.update::<award::Entity>(&self.changed_awards, unchanged);
        use ledger_entry::Column::{AvailableAt, ExpiresAt, RedemptionNumber};
        let is_plain = |entry: &Arc<ledger_entry::Model>| {
            entry.available_at.or(entry.expires_at).or(entry.redemption_number).is_none()
        };
        let unused: &[ledger_entry::Column] =
            if self.entries.iter().all(is_plain) { &[AvailableAt, ExpiresAt, RedemptionNumber] } else { &[] };
        group.insert_without::<ledger_entry::Entity>(&self.entries, unused, OnConflict::Fail);
        group.insert::<lot::Entity>(&self.lots, OnConflict::Replace);
        group.insert::<redemption::Entity>(&self.new_redemptions, OnConflict::Fail);
        group.update::<redemption::Entity>(&self.changed_redemptions, &[]);
        group.insert::<taking::Entity>(&self.takings, OnConflict::Fail);
        group.update::<stock::Entity>(&self.stocks, &[]);
        group.update::<reward_code::Entity>(&self.codes, &[]);
        group.update::<idempotency_key::Entity>(&self.keys, &[]);
        group.insert::<budget_decision::Entity>(&self.decisions, OnConflict::Fail);
        group.update::<budget::Entity>(&self.budgets.into_values().collect::<Vec<_>>(), &[]);
        let totals = self.totals.into_iter();
        let stats: Vec<campaign_stat::Model> =
            totals.map(|(id, totals)| stats::to_row(id, batch.shard, totals)).collect();
        group.insert::<campaign_stat::Entity>(&stats, OnConflict::Add);
        group.insert::<checkpoint::Entity>(&self.checkpoints, OnConflict::Fail);
        let changed = customers.values().filter(|customer| customer.changed).map(|customer| &customer.row);
        let changed: Vec<&customer::Model> = changed.collect();
        use customer::Column::{DueAt, ExternalId, RecordedAt};
        let due_changed = customers.values().any(|customer| customer.due_changed);
        let mut unchanged = vec![RecordedAt];
        if !due_changed {
            unchanged.push(DueAt);
        }
        if customers.values().all(|customer| customer.erased_as.is_none()) {
            unchanged.push(ExternalId);
        }
        group.update::<customer::Entity>(&changed, &unchanged);
        telling::insert(&mut group, events);
        Ok(group.run(batch.tx).await?)
    }
}

/// Returns the columns in which none of the awards has a value: those of campaigns with caps in points, and with points that wait or
/// expire.
fn unused_columns(awards: &[Arc<award::Model>]) -> Vec<award::Column> {
    use award::Column::PointsBeforeCap;
    let mut unused = Vec::new();
    if awards.iter().all(|award| award.points_before_cap.is_none()) {
        unused.push(PointsBeforeCap);
    }
    unused.extend_from_slice(dates_unless_used(awards));
    unused
}

/// Returns the columns of the dates of points if none of the awards has a date. The rule of a campaign is fixed, so its awards all have
/// dates or none has.
fn dates_unless_used(awards: &[Arc<award::Model>]) -> &'static [award::Column] {
    let is_plain = |award: &Arc<award::Model>| award.available_at.or(award.expires_at).is_none();
    if awards.iter().all(is_plain) { &[award::Column::AvailableAt, award::Column::ExpiresAt] } else { &[] }
}

/// Deletes the checkpoints that are strictly inside the stretches.
async fn delete_checkpoints(batch: &Batch<'_>, void: Stretches) -> Result<(), Error> {
    if void.is_empty() {
        return Ok(());
    }
    let on = lies_in("t", Stored::Checkpoints, Ends::Between);
    let key = ["customer_id", "campaign_id", "purchased_at", "external_id"];
    delete(batch.tx, "checkpoint", &key, void.into_rows(), &on).await?;
    Ok(())
}
