//! Changes campaigns: creation, edits and transitions, including settlement.
//!
//! A `Change` holds the campaign lock exclusively, so that no batch runs at the same time. It commits in one transaction and
//! gives the campaign set a new revision. So every fact is evaluated either before or after a transition, never in between.
//! Each mutation of an admin adds an entry to the trail in the same transaction (`app::trail`); settlement adds none.
//! `choose_erasure_key`, `keep_facts` and `keep_events` are changes of the set too, because every batch must know at once that there are
//! names of erased customers, refunds that wait, or events to write.
//! Two writes do not raise the revision: `Change::raise_format`, which changes no campaign, and the progress of a backfill
//! (`backfilled_to`), which `jobs::evaluation` stores without the lock.

pub mod input;
pub mod list;
pub mod recount;
pub mod set;
mod trail;

use std::sync::Arc;

use entity::{
    BudgetDecisionKind, CampaignId, budget, budget_decision, campaign, campaign_stat, idempotency_key, purchase,
    purchase_revision,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, NotSet,
    QueryFilter, QuerySelect, Set, Statement,
};

use self::input::{CampaignInput, CampaignUpdate, Checked};
use super::App;
use super::campaign::set::Campaign;
use super::error::{Check, Error, UserErrorCode};
use super::jobs::evaluation;
use super::rows::{OnConflict, insert};
use super::stored::erased_name::ErasureKey;
use super::trail::{Attempt, Target, add};
use super::viewer::Actor;
use crate::engine::lifecycle::{Life, Refusal};
use crate::engine::time::{Instant, IsoDuration};

/// A change of the campaign set in progress. Its transaction holds the campaign lock.
pub(super) struct Change<'a> {
    app: &'a App,
    tx: DatabaseTransaction,
    /// The revision that the campaign set has once the change is committed.
    pub(super) set_revision: i64,
    now: Instant,
}

impl<'a> Change<'a> {
    /// Waits for the campaign lock.
    pub(super) async fn begin(app: &'a App) -> Result<Self, Error> {
        let tx = app.database.begin_alone().await?;
        let set_revision = app.campaigns.revision(&tx).await?.number + 1;
        let now = app.clock.ask(&tx).await?;
        Ok(Self { app, tx, set_revision, now })
    }

    /// The transaction, for reads that need the lock.
    pub(super) fn transaction(&self) -> &DatabaseTransaction {
        &self.tx
    }

    /// Loads a campaign under the lock.
    pub(super) async fn find(&self, id: CampaignId) -> Result<Option<campaign::Model>, Error> {
        Ok(campaign::Entity::find_by_id(id).one(&self.tx).await?)
    }

    /// Returns the campaign that was created with this key, if there is one. Fails if the key was used for a different request.
    async fn made_by(&self, key: Option<&(String, String)>) -> Result<Option<CampaignId>, Error> {
        let Some((key, request)) = key else { return Ok(None) };
        let known = idempotency_key::Entity::find_by_id(key.clone()).one(&self.tx).await?;
        match known.map(|known| (known.campaign_id, known.request == *request)) {
            None => Ok(None),
            Some((Some(id), true)) => Ok(Some(CampaignId(id))),
            Some(_) => {
                let message = "was used before for a different request: choose another key";
                Err(Error::refused(&["idempotencyKey"], UserErrorCode::IdempotencyConflict, message))
            }
        }
    }

    /// Rolls back, which releases the lock, and returns the campaign as it is now.
    async fn answer(self, id: CampaignId) -> Result<Arc<Campaign>, Error> {
        let app = self.app;
        self.tx.rollback().await?;
        let set = app.campaigns().await?;
        let gone =
            || Error::refused(&["idempotencyKey"], UserErrorCode::NotFound, "its campaign was deleted: use a new key");
        set.get(id).cloned().ok_or_else(gone)
    }

    async fn budget(&self, id: CampaignId) -> Result<Option<budget::Model>, Error> {
        Ok(budget::Entity::find_by_id(id).one(&self.tx).await?)
    }

    /// Loads a campaign under the lock. Fails with a `userError` at the argument `id` if it does not exist.
    async fn get(&self, id: CampaignId) -> Result<Campaign, Error> {
        let Some(row) = self.find(id).await? else {
            return Err(Error::refused(&["id"], UserErrorCode::NotFound, "no campaign has this id"));
        };
        let limit = self.budget(id).await?.and_then(|budget| budget.points_limit);
        Campaign::from_row(row, limit)
    }

    /// Returns the latest recorded `purchasedAt` over all customers and all contents of purchases.
    async fn latest_purchase(&self) -> Result<Option<Instant>, Error> {
        let latest: Option<Option<i64>> = purchase::Entity::find()
            .select_only()
            .column_as(purchase::Column::PurchasedAt.max(), "latest")
            .into_tuple()
            .one(&self.tx)
            .await?;
        let latest_revision: Option<Option<i64>> = purchase_revision::Entity::find()
            .select_only()
            .column_as(purchase_revision::Column::PurchasedAt.max(), "latest")
            .into_tuple()
            .one(&self.tx)
            .await?;
        Ok(latest.flatten().max(latest_revision.flatten()).map(Instant))
    }

    /// Stores the row with the new revision, and commits.
    pub(super) async fn save(self, mut row: campaign::Model) -> Result<(), Error> {
        row.set_revision = self.set_revision;
        let mut row = row.into_active_model().reset_all();
        // The backfill stores its progress without the lock; an older value must not overwrite it.
        row.backfilled_to = NotSet;
        row.update(&self.tx).await?;
        self.commit().await
    }

    /// Raises the format of the database, and commits. The lock ensures that no batch runs meanwhile and that every later batch
    /// reads the new format. Does not raise the revision of the campaign set.
    pub(super) async fn raise_format(self, format: i64) -> Result<(), Error> {
        self.tx
            .execute_unprepared(&format!("UPDATE installation SET format = {format} WHERE format < {format}"))
            .await?;
        Ok(self.tx.commit().await?)
    }

    async fn commit(self) -> Result<(), Error> {
        let stamp: i64 = rand::random();
        let sql = format!("UPDATE installation SET set_revision = {}, revision_stamp = {stamp}", self.set_revision);
        self.tx.execute_unprepared(&sql).await?;
        Ok(self.tx.commit().await?)
    }

    /// Adds an entry to the trail.
    async fn note(&self, attempt: &Attempt<'_>, before: Option<String>, after: Option<String>) -> Result<(), Error> {
        add(&self.tx, &[attempt.entry(self.now, before, after)]).await
    }

    /// Saves the row like [`Self::save`], together with an entry in the trail. Returns the campaign as it is then.
    async fn finish(
        self,
        row: campaign::Model,
        attempt: &Attempt<'_>,
        (before, after): (String, String),
    ) -> Result<Arc<Campaign>, Error> {
        let (app, id) = (self.app, row.id);
        self.note(attempt, Some(before), Some(after)).await?;
        self.save(row).await?;
        current(app, id).await
    }
}

/// Chooses the key of the names of erased customers, unless there is one.
pub(super) async fn choose_erasure_key(app: &App) -> Result<ErasureKey, Error> {
    if let Some(key) = &app.campaigns().await?.erasure_key {
        return Ok(key.clone());
    }
    let change = Change::begin(app).await?;
    let sql = "UPDATE installation SET erasure_key = $1 WHERE erasure_key IS NULL";
    let values = [ErasureKey::random().as_str().into()];
    change.tx.execute_raw(Statement::from_sql_and_values(app.database.backend(), sql, values)).await?;
    change.commit().await?;
    let key = app.campaigns().await?.erasure_key.clone();
    key.ok_or_else(|| Error::Internal("the key of the names of erased customers is missing".to_owned()))
}

/// Makes batches look for refunds that wait for their purchase, unless they do so already. No batch that begins later misses it.
pub(super) async fn keep_facts(app: &App) -> Result<(), Error> {
    if app.campaigns().await?.keeps_facts {
        return Ok(());
    }
    let change = Change::begin(app).await?;
    let sql = "UPDATE installation SET keeps_facts = 1";
    change.tx.execute_raw(Statement::from_string(app.database.backend(), sql)).await?;
    change.commit().await
}

/// Makes batches write events to the outbox, or stops them, unless they do so already. No batch that begins later misses it.
pub(super) async fn keep_events(app: &App, keep: bool) -> Result<(), Error> {
    if app.campaigns().await?.keeps_events == keep {
        return Ok(());
    }
    let change = Change::begin(app).await?;
    let sql = format!("UPDATE installation SET keeps_events = {}", i64::from(keep));
    change.tx.execute_unprepared(&sql).await?;
    change.commit().await
}

/// Returns once all batches that run now have ended. Everything that was committed before the call is known to all later ones.
pub(super) async fn wait_for_batches(app: &App) -> Result<(), Error> {
    Ok(app.database.begin_alone().await?.rollback().await?)
}

/// Returns a campaign as it is after its change. If somebody has deleted it since, the change took effect nevertheless: that is no
/// refusal.
async fn current(app: &App, id: CampaignId) -> Result<Arc<Campaign>, Error> {
    app.campaigns().await?.get(id).cloned().ok_or(Error::NotFound)
}

fn refuse_transition(refusal: Refusal, path: &[&str]) -> Error {
    match refusal {
        Refusal::Illegal(status) => {
            let message = format!("the campaign is {}, which does not allow this change", trail::status(status));
            Error::refused(path, UserErrorCode::IllegalTransition, &message)
        }
        Refusal::BoundaryInPast => Error::refused(
            path,
            UserErrorCode::BoundaryInPast,
            "endsAt is too early, or the campaign has ended: choose an endsAt after now and after every recorded \
             purchase, or clone the campaign",
        ),
    }
}

/// Refuses to activate a campaign whose `endsAt + lateness` has passed, and says what would allow it.
fn nothing_can_count(ends_at: Instant, now: Instant) -> Error {
    const DAY: i64 = 24 * 3_600 * 1_000_000;
    let days = now.minus(ends_at.0).0.div_euclid(DAY) + 1;
    let raise = if days.saturating_mul(DAY) <= IsoDuration::MAX_MICROS {
        format!("raise `lateness` to at least P{days}D to count the past, or choose")
    } else {
        "choose".to_owned()
    };
    let message =
        format!("`endsAt` + `lateness` has passed, so nothing could count any more: {raise} a later `endsAt`");
    Error::refused(&["id"], UserErrorCode::BoundaryInPast, message)
}

/// Creates a draft. If the key was used before with the same input, returns the campaign that was created then.
pub async fn create(
    app: &App,
    actor: &Actor,
    input: CampaignInput,
    key: Option<String>,
) -> Result<Arc<Campaign>, Error> {
    let attempt = Attempt::new(actor, "createCampaign");
    app.conclude(&attempt, create_draft(app, &attempt, input, key)).await
}

async fn create_draft(
    app: &App,
    attempt: &Attempt<'_>,
    input: CampaignInput,
    key: Option<String>,
) -> Result<Arc<Campaign>, Error> {
    let checked = input.check(&["input".to_owned()])?;
    let key = check_key(key, checked.request()?)?;
    let change = Change::begin(app).await?;
    match change.made_by(key.as_ref()).await? {
        Some(made) => change.answer(made).await,
        None => insert_draft(change, attempt, checked, key).await,
    }
}

/// Checks the key. Returns the key with the request, which a replay must repeat.
fn check_key(key: Option<String>, request: String) -> Result<Option<(String, String)>, Error> {
    let Some(key) = key else { return Ok(None) };
    let mut check = Check::default();
    check.text(&["idempotencyKey"], &key);
    check.finish(Some(Some((key, request))))
}

/// Creates a draft with the rule, period and budget of another campaign, under a new name.
pub async fn clone(
    app: &App,
    actor: &Actor,
    id: CampaignId,
    name: String,
    key: Option<String>,
) -> Result<Arc<Campaign>, Error> {
    let attempt = Attempt::new(actor, "cloneCampaign").on(Target::Campaign(id));
    app.conclude(&attempt, clone_as_draft(app, &attempt, id, name, key)).await
}

async fn clone_as_draft(
    app: &App,
    attempt: &Attempt<'_>,
    id: CampaignId,
    name: String,
    key: Option<String>,
) -> Result<Arc<Campaign>, Error> {
    let mut check = Check::default();
    check.text(&["name"], &name);
    check.finish(Some(()))?;
    let request = serde_json::json!(["cloneCampaign", id.0, name]).to_string();
    let key = check_key(key, request)?;
    // This comes before loading the original, because a replay must succeed even if the original was deleted since.
    let change = Change::begin(app).await?;
    if let Some(made) = change.made_by(key.as_ref()).await? {
        return change.answer(made).await;
    }
    let original = change.get(id).await?;
    let starts_at = Instant(original.row.starts_at);
    let checked = Checked {
        name,
        description: original.row.description.clone(),
        starts_at,
        // A campaign that was ended before it started has an empty period. Its end is not copied.
        ends_at: original.row.ends_at.map(Instant).filter(|end| *end > starts_at),
        rule: original.rule.clone(),
        budget: original.budget_limit,
    };
    insert_draft(change, attempt, checked, key).await
}

async fn insert_draft(
    change: Change<'_>,
    attempt: &Attempt<'_>,
    checked: Checked,
    key: Option<(String, String)>,
) -> Result<Arc<Campaign>, Error> {
    let app = change.app;
    let json = |value: serde_json::Result<serde_json::Value>| value.map_err(|error| Error::Internal(error.to_string()));
    let row = campaign::ActiveModel {
        name: Set(checked.name),
        description: Set(checked.description),
        created_at: Set(change.now.0),
        starts_at: Set(checked.starts_at.0),
        ends_at: Set(checked.ends_at.map(|end| end.0)),
        rule: Set(json(serde_json::to_value(&checked.rule))?),
        pauses: Set(serde_json::json!([])),
        set_revision: Set(change.set_revision),
        ended: Set(false),
        ..Default::default()
    };
    let row = row.insert(&change.tx).await?;
    let id = row.id;
    if checked.budget.is_some() {
        let budget = budget::Model { campaign_id: id, points_limit: checked.budget, points_used: 0, decision_no: 0 };
        insert::<budget::Entity>(&change.tx, &[budget], OnConflict::Fail).await?;
    }
    if let Some((key, request)) = key {
        let key = idempotency_key::Model {
            key,
            request,
            campaign_id: Some(id.0),
            customer_id: None,
            sequence: None,
            reward_id: None,
            redemption_number: None,
        };
        insert::<idempotency_key::Entity>(&change.tx, &[key], OnConflict::Fail).await?;
    }
    let after = trail::definition(&Campaign::from_row(row, checked.budget)?)?;
    change.note(&attempt.on(Target::Campaign(id)), None, Some(after)).await?;
    change.commit().await?;
    current(app, id).await
}

/// Edits a campaign. Any field of a draft can change; of an activated campaign, only name, description, budget and `endsAt`.
pub async fn update(app: &App, actor: &Actor, id: CampaignId, update: CampaignUpdate) -> Result<Arc<Campaign>, Error> {
    let attempt = Attempt::new(actor, "updateCampaign").on(Target::Campaign(id));
    app.conclude(&attempt, edit(app, &attempt, id, update)).await
}

async fn edit(
    app: &App,
    attempt: &Attempt<'_>,
    id: CampaignId,
    update: CampaignUpdate,
) -> Result<Arc<Campaign>, Error> {
    let change = Change::begin(app).await?;
    let campaign = change.get(id).await?;
    if update.if_revision != campaign.row.set_revision {
        let message = format!("the campaign is at revision {}: reload it and update again", campaign.row.set_revision);
        return Err(Error::refused(&["input", "ifRevision"], UserErrorCode::StaleRevision, &message));
    }
    let (before, recorded) = (CampaignInput::of(&campaign), trail::definition(&campaign)?);
    let path = ["input".to_owned()];
    let after = update.apply(before.clone(), &path)?;
    let frozen = before.frozen_differences(&after);
    // Ending a SCHEDULED campaign leaves an end that is not after the start. Other edits must still be possible.
    let unchanged_end = after.ends_at == before.ends_at && after.starts_at == before.starts_at;
    let checked = after.check_with_end(&path, !(unchanged_end && campaign.life.activated))?;
    let mut campaign = campaign;
    if campaign.life.activated {
        if !frozen.is_empty() {
            let mut check = Check::at(&path);
            for field in frozen {
                let message = "is fixed once the campaign is activated: clone the campaign to change it";
                check.fail(&[field], UserErrorCode::CampaignNotEditable, message);
            }
            return Err(check.finish::<()>(None).err().unwrap_or(Error::Unavailable));
        }
        if checked.ends_at != campaign.life.period.ends_at {
            let latest = change.latest_purchase().await?;
            campaign
                .life
                .reschedule(checked.ends_at, change.now, latest)
                .map_err(|refusal| refuse_transition(refusal, &["input", "endsAt"]))?;
        }
    }
    save_budget(&change, &campaign, checked.budget).await?;
    let rule = serde_json::to_value(&checked.rule).map_err(|error| Error::Internal(error.to_string()))?;
    let row = campaign::Model {
        name: checked.name,
        description: checked.description,
        starts_at: checked.starts_at.0,
        ends_at: checked.ends_at.map(|end| end.0),
        rule,
        ..campaign.row
    };
    let after = trail::definition(&Campaign::from_row(row.clone(), checked.budget)?)?;
    change.finish(row, attempt, (recorded, after)).await
}

/// Sets the limit of the budget. If the campaign is activated, this is a numbered decision, which records how many points stand
/// at that moment.
async fn save_budget(change: &Change<'_>, campaign: &Campaign, limit: Option<i64>) -> Result<(), Error> {
    if limit == campaign.budget_limit {
        return Ok(());
    }
    let id = campaign.id();
    let blank = budget::Model { campaign_id: id, points_limit: None, points_used: 0, decision_no: 0 };
    insert_new_budget(change, &blank).await?;
    let mut budget = change.budget(id).await?.unwrap_or(blank);
    if campaign.life.activated && budget.points_limit.is_none() {
        budget.points_used = points_standing(&change.tx, id).await?;
    }
    budget.points_limit = limit;
    if campaign.life.activated {
        note_limit(change, &mut budget).await?;
    }
    super::rows::update::<budget::Entity>(&change.tx, &[budget]).await?;
    Ok(())
}

async fn insert_new_budget(change: &Change<'_>, blank: &budget::Model) -> Result<(), Error> {
    insert::<budget::Entity>(&change.tx, std::slice::from_ref(blank), OnConflict::Keep).await?;
    Ok(())
}

/// Records the limit as the next numbered decision of the budget.
async fn note_limit(change: &Change<'_>, budget: &mut budget::Model) -> Result<(), Error> {
    budget.decision_no += 1;
    let decision = budget_decision::Model {
        campaign_id: budget.campaign_id,
        decision_no: budget.decision_no,
        kind: BudgetDecisionKind::Limit,
        customer_id: None,
        award_number: None,
        points: budget.points_limit.unwrap_or(-1),
        points_used: budget.points_used,
    };
    insert::<budget_decision::Entity>(&change.tx, &[decision], OnConflict::Fail).await?;
    Ok(())
}

/// Returns the points of the campaign's STANDING awards, summed over all shards of its statistics.
async fn points_standing(tx: &DatabaseTransaction, id: CampaignId) -> Result<i64, Error> {
    let stats = campaign_stat::Entity::find().filter(campaign_stat::Column::CampaignId.eq(id)).all(tx).await?;
    Ok(stats.iter().map(|stat| stat.points_standing).sum())
}

/// Deletes a draft. Activated campaigns cannot be deleted.
pub async fn delete(app: &App, actor: &Actor, id: CampaignId) -> Result<(), Error> {
    let attempt = Attempt::new(actor, "deleteCampaign").on(Target::Campaign(id));
    app.conclude(&attempt, delete_draft(app, &attempt, id)).await
}

async fn delete_draft(app: &App, attempt: &Attempt<'_>, id: CampaignId) -> Result<(), Error> {
    let change = Change::begin(app).await?;
    let campaign = change.get(id).await?;
    if campaign.life.activated {
        let status = campaign.life.status(change.now);
        return Err(refuse_transition(Refusal::Illegal(status), &["id"]));
    }
    budget::Entity::delete_by_id(id).exec(&change.tx).await?;
    campaign::Entity::delete_by_id(id).exec(&change.tx).await?;
    change.note(attempt, Some(trail::definition(&campaign)?), None).await?;
    change.commit().await
}

/// Activates a draft. If purchases are already recorded in its period, opens a backfill, which counts them.
pub async fn activate(app: &App, actor: &Actor, id: CampaignId) -> Result<Arc<Campaign>, Error> {
    let attempt = Attempt::new(actor, "activateCampaign").on(Target::Campaign(id));
    app.conclude(&attempt, activate_draft(app, &attempt, id)).await
}

async fn activate_draft(app: &App, attempt: &Attempt<'_>, id: CampaignId) -> Result<Arc<Campaign>, Error> {
    let change = Change::begin(app).await?;
    let mut campaign = change.get(id).await?;
    let before = trail::life(&campaign.life, change.now)?;
    let (lateness, ends_at) = (campaign.rule.lateness.micros(), campaign.life.period.ends_at);
    campaign.life.activate(change.now, lateness).map_err(|refusal| match (refusal, ends_at) {
        (Refusal::BoundaryInPast, Some(ends_at)) => nothing_can_count(ends_at, change.now),
        _ => refuse_transition(refusal, &["id"]),
    })?;
    if let Some(mut budget) = change.budget(id).await?.filter(|budget| budget.points_limit.is_some()) {
        note_limit(&change, &mut budget).await?;
        super::rows::update::<budget::Entity>(&change.tx, &[budget]).await?;
    }
    let has_past = change.latest_purchase().await?.is_some_and(|latest| latest >= campaign.life.period.starts_at);
    if has_past {
        evaluation::open(&change.tx, id, change.now).await?;
    }
    let row = campaign::Model { activated_revision: Some(change.set_revision), ..campaign.row };
    let after = trail::life(&campaign.life, change.now)?;
    let campaign = change.finish(row, attempt, (before, after)).await?;
    if has_past {
        app.job_wanted.notify_one();
    }
    Ok(campaign)
}

/// Pauses a campaign: purchases do not count until it is resumed.
pub async fn pause(app: &App, actor: &Actor, id: CampaignId) -> Result<Arc<Campaign>, Error> {
    transition(app, Attempt::new(actor, "pauseCampaign"), id, Life::pause).await
}

/// Resumes a paused campaign: purchases count again.
pub async fn resume(app: &App, actor: &Actor, id: CampaignId) -> Result<Arc<Campaign>, Error> {
    transition(app, Attempt::new(actor, "resumeCampaign"), id, Life::resume).await
}

/// Ends a campaign before its `endsAt`, or one that has none.
pub async fn end(app: &App, actor: &Actor, id: CampaignId) -> Result<Arc<Campaign>, Error> {
    transition(app, Attempt::new(actor, "endCampaign"), id, Life::end).await
}

/// Decides about a boundary of a campaign. Changes the life of the campaign, or refuses to.
type Decide = fn(&mut Life, Instant, Option<Instant>) -> Result<(), Refusal>;

async fn transition(app: &App, attempt: Attempt<'_>, id: CampaignId, decide: Decide) -> Result<Arc<Campaign>, Error> {
    let attempt = attempt.on(Target::Campaign(id));
    app.conclude(&attempt, set_boundary(app, &attempt, id, decide)).await
}

async fn set_boundary(
    app: &App,
    attempt: &Attempt<'_>,
    id: CampaignId,
    decide: Decide,
) -> Result<Arc<Campaign>, Error> {
    let change = Change::begin(app).await?;
    let mut campaign = change.get(id).await?;
    let before = trail::life(&campaign.life, change.now)?;
    let latest = change.latest_purchase().await?;
    decide(&mut campaign.life, change.now, latest).map_err(|refusal| refuse_transition(refusal, &["id"]))?;
    let life = campaign.life;
    let after = trail::life(&life, change.now)?;
    let pauses = serde_json::to_value(&life.period.pauses).map_err(|error| Error::Internal(error.to_string()))?;
    let row = campaign::Model {
        ends_at: life.period.ends_at.map(|end| end.0),
        ended: life.ended,
        boundary: life.boundary.map(|boundary| boundary.0),
        pauses,
        ..campaign.row
    };
    change.finish(row, attempt, (before, after)).await
}
