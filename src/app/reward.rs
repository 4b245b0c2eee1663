//! The catalogue of rewards: what customers redeem points for. Redemptions themselves go through the recorder ([`super::redemption`]).
//!
//! A change locks the stock of the reward first, as a redemption does. So a redemption sees the reward either before or after the change.

use std::collections::HashMap;

use entity::{RedemptionState, RewardId, idempotency_key, redemption, reward, reward_code, stock};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, IntoActiveModel, NotSet,
    QueryFilter, QuerySelect, QueryTrait as _, Set,
};
use serde::Serialize;

use super::App;
use super::error::{Check, Error, UserErrorCode};
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_root};
use super::rows::{Kind, OnConflict, WriteGroup, any, insert_new};
use super::stored::reward::{offer, units};
use super::trail::{self, Attempt, Target};
use super::viewer::{Actor, Reader};
use crate::engine::account::MAX_EXACT;
use crate::engine::reward::{MAX_COST, Units};
use crate::engine::time::{Instant, parse_instant};

/// The maximum number of codes that one call adds.
pub const MAX_CODES: usize = 10_000;
/// The maximum length of the address of an image, in bytes.
const MAX_URL_BYTES: usize = 2_000;

impl Listed for reward::Model {
    const LIST: List = List {
        name: "reward",
        table: "reward",
        order: &[("created_at", Kind::Int), ("id", Kind::Int)],
        descending: true,
    };

    fn position(&self) -> Position {
        [Part::Int(self.created_at), Part::Int(self.id.0)].into()
    }
}

/// A reward as the caller sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RewardInput {
    pub name: String,
    pub description: Option<String>,
    pub image_url: Option<String>,
    pub cost: i64,
    pub stock: Option<i64>,
    pub max_per_customer: Option<i64>,
    pub starts_at: Option<String>,
    pub ends_at: Option<String>,
    pub active: bool,
    pub self_service: bool,
}

/// The fields of a reward to change. `None` keeps a field; `Some(None)` sets it to null.
#[derive(Clone, Debug, Default)]
pub struct RewardUpdate {
    pub if_revision: i64,
    pub name: Option<Option<String>>,
    pub description: Option<Option<String>>,
    pub image_url: Option<Option<String>>,
    pub cost: Option<Option<i64>>,
    pub stock: Option<Option<i64>>,
    pub max_per_customer: Option<Option<i64>>,
    pub starts_at: Option<Option<String>>,
    pub ends_at: Option<Option<String>>,
    pub active: Option<Option<bool>>,
    pub self_service: Option<Option<bool>>,
}

/// The checked instants of a reward.
struct Period {
    starts_at: Option<i64>,
    ends_at: Option<i64>,
}

impl RewardInput {
    /// The reward in the form of its input.
    pub fn of(row: &reward::Model) -> Self {
        let text = |at: Option<i64>| at.map(|at| Instant(at).to_string());
        Self {
            name: row.name.clone(),
            description: row.description.clone(),
            image_url: row.image_url.clone(),
            cost: row.cost,
            stock: row.stock,
            max_per_customer: row.max_per_customer,
            starts_at: text(row.starts_at),
            ends_at: text(row.ends_at),
            active: row.active,
            self_service: row.self_service,
        }
    }

    fn check(&self, check: &mut Check) -> Option<Period> {
        check.text(&["name"], &self.name);
        if let Some(description) = &self.description {
            check.text(&["description"], description);
        }
        if let Some(url) = &self.image_url {
            check_url(check, url);
        }
        let mut range = |field, value: Option<i64>, least, most| {
            if value.is_some_and(|value| !(least..=most).contains(&value)) {
                check.fail(&[field], UserErrorCode::OutOfRange, format!("must be {least} to {most}"));
            }
        };
        range("cost", Some(self.cost), 1, MAX_COST);
        range("stock", self.stock, 0, MAX_EXACT);
        range("maxPerCustomer", self.max_per_customer, 1, i32::MAX.into());
        let mut instant = |field, text: &Option<String>| {
            let parsed =
                text.as_ref().map(|text| check.parsed(&[field], parse_instant(text), |_| UserErrorCode::Invalid));
            parsed.flatten().map(|at| at.0)
        };
        let (starts_at, ends_at) = (instant("startsAt", &self.starts_at), instant("endsAt", &self.ends_at));
        if starts_at.zip(ends_at).is_some_and(|(starts_at, ends_at)| starts_at >= ends_at) {
            check.fail(&["endsAt"], UserErrorCode::OutOfRange, "must be after `startsAt`");
        }
        check.is_clean().then_some(Period { starts_at, ends_at })
    }

    fn request(&self) -> Result<String, Error> {
        let request = serde_json::to_string(&("createReward", self));
        request.map_err(|error| Error::Internal(format!("a reward as JSON: {error}")))
    }
}

fn check_url(check: &mut Check, url: &str) {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    if !is_web || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        check.fail(&["imageUrl"], UserErrorCode::Invalid, "must be an address such as https://shop.example/mug.png");
    } else if url.len() > MAX_URL_BYTES {
        check.fail(&["imageUrl"], UserErrorCode::TooLong, format!("must have at most {MAX_URL_BYTES} bytes"));
    }
}

impl RewardUpdate {
    /// Returns the reward with the changes.
    fn apply(self, mut input: RewardInput, check: &mut Check) -> RewardInput {
        fn required<T>(field: &mut T, update: Option<Option<T>>, name: &'static str, check: &mut Check) {
            match update {
                None => {}
                Some(Some(value)) => *field = value,
                Some(None) => check.fail(&[name], UserErrorCode::Required, "must not be null"),
            }
        }
        fn optional<T>(field: &mut Option<T>, update: Option<Option<T>>) {
            if let Some(update) = update {
                *field = update;
            }
        }
        required(&mut input.name, self.name, "name", check);
        required(&mut input.cost, self.cost, "cost", check);
        required(&mut input.active, self.active, "active", check);
        required(&mut input.self_service, self.self_service, "selfService", check);
        optional(&mut input.description, self.description);
        optional(&mut input.image_url, self.image_url);
        optional(&mut input.stock, self.stock);
        optional(&mut input.max_per_customer, self.max_per_customer);
        optional(&mut input.starts_at, self.starts_at);
        optional(&mut input.ends_at, self.ends_at);
        input
    }
}

/// Creates a reward. If the key was used before with the same input, returns the reward that was created then.
pub async fn create(app: &App, actor: &Actor, input: RewardInput, key: Option<String>) -> Result<reward::Model, Error> {
    let attempt = Attempt::new(actor, "createReward");
    app.conclude(&attempt, insert(app, &attempt, input, key)).await
}

async fn insert(
    app: &App,
    attempt: &Attempt<'_>,
    input: RewardInput,
    key: Option<String>,
) -> Result<reward::Model, Error> {
    let mut check = Check::at(&["input".to_owned()]);
    let period = input.check(&mut check);
    let period = check.finish(period)?;
    if let Some(key) = &key {
        let mut check = Check::default();
        check.text(&["idempotencyKey"], key);
        check.finish(Some(()))?;
    }
    let request = input.request()?;
    let tx = app.database.begin().await?;
    let key = key.map(|key| idempotency_key::Model {
        key,
        request,
        campaign_id: None,
        customer_id: None,
        sequence: None,
        reward_id: None,
        redemption_number: None,
    });
    if let Some(made) = made_by(&tx, key.as_ref()).await? {
        return Ok(made);
    }
    let now = app.clock.ask(&tx).await?;
    let row = reward::ActiveModel {
        id: NotSet,
        name: Set(input.name.clone()),
        description: Set(input.description.clone()),
        image_url: Set(input.image_url.clone()),
        cost: Set(input.cost),
        stock: Set(input.stock),
        max_per_customer: Set(input.max_per_customer),
        starts_at: Set(period.starts_at),
        ends_at: Set(period.ends_at),
        active: Set(input.active),
        self_service: Set(input.self_service),
        revision: Set(1),
        created_at: Set(now.0),
    };
    let row = row.insert(&tx).await?;
    let stock = stock::Model { reward_id: row.id, redeemed: 0, reserved: 0, codes_unused: 0, codes_given: 0 };
    stock::Entity::insert(stock.into_active_model().reset_all()).exec_without_returning(&tx).await?;
    if let Some(key) = key {
        let made = idempotency_key::Model { reward_id: Some(row.id.0), ..key };
        super::rows::update::<idempotency_key::Entity>(&tx, &[made]).await?;
    }
    let after = trail::state(RewardInput::of(&row))?;
    trail::add(&tx, &[attempt.on(Target::Reward(row.id)).entry(now, None, Some(after))]).await?;
    tx.commit().await?;
    Ok(row)
}

/// Takes the key. Returns the reward that was created with it, if there is one. Fails if the key was used for a different request.
async fn made_by(
    tx: &DatabaseTransaction,
    key: Option<&idempotency_key::Model>,
) -> Result<Option<reward::Model>, Error> {
    let Some(key) = key else { return Ok(None) };
    let is_new = !insert_new::<idempotency_key::Entity>(tx, &[key], &[], "key").await?.is_empty();
    if is_new {
        return Ok(None);
    }
    let known = idempotency_key::Entity::find_by_id(key.key.clone()).one(tx).await?;
    let same = known.filter(|known| known.request == key.request).and_then(|known| known.reward_id);
    let Some(id) = same else {
        let message = "was used before for a different request: choose another key";
        return Err(Error::refused(&["idempotencyKey"], UserErrorCode::IdempotencyConflict, message));
    };
    Ok(reward::Entity::find_by_id(RewardId(id)).one(tx).await?)
}

/// Locks the stock of a reward, and then reads both. Fails with a `userError` at `path` if the reward does not exist.
async fn lock(tx: &DatabaseTransaction, id: RewardId, path: &str) -> Result<(reward::Model, stock::Model), Error> {
    let unknown = || Error::refused(&[path], UserErrorCode::NotFound, "no reward has this id");
    let stock = stock::Entity::find_by_id(id);
    if sea_orm::ConnectionTrait::get_database_backend(tx) == DatabaseBackend::Postgres {
        sea_orm::ConnectionTrait::query_all_raw(tx, stock.clone().lock_exclusive().build(DatabaseBackend::Postgres))
            .await?;
    }
    let stock = stock.one(tx).await?.ok_or_else(unknown)?;
    let row = reward::Entity::find_by_id(id).one(tx).await?.ok_or_else(unknown)?;
    Ok((row, stock))
}

/// Edits a reward. What was redeemed or reserved stays as it is.
pub async fn update(
    app: &App,
    actor: &Actor,
    id: Option<RewardId>,
    update: RewardUpdate,
) -> Result<reward::Model, Error> {
    let attempt = Attempt::new(actor, "updateReward");
    let attempt = id.map_or(attempt, |id| attempt.on(Target::Reward(id)));
    app.conclude(&attempt, edit(app, &attempt, id, update)).await
}

async fn edit(
    app: &App,
    attempt: &Attempt<'_>,
    id: Option<RewardId>,
    update: RewardUpdate,
) -> Result<reward::Model, Error> {
    let tx = app.database.begin().await?;
    let (row, _) = lock(&tx, id.unwrap_or(RewardId(0)), "id").await?;
    if update.if_revision != row.revision {
        let message = format!("the reward is at revision {}: reload it and update again", row.revision);
        return Err(Error::refused(&["input", "ifRevision"], UserErrorCode::StaleRevision, &message));
    }
    let before = RewardInput::of(&row);
    let mut check = Check::at(&["input".to_owned()]);
    let after = update.apply(before.clone(), &mut check);
    let period = after.check(&mut check);
    let Period { starts_at, ends_at } = check.finish(period)?;
    if after == before {
        return Ok(row);
    }
    let now = app.clock.ask(&tx).await?;
    let entry = attempt.entry(now, Some(trail::state(&before)?), Some(trail::state(&after)?));
    let row = reward::Model {
        name: after.name,
        description: after.description,
        image_url: after.image_url,
        cost: after.cost,
        stock: after.stock,
        max_per_customer: after.max_per_customer,
        starts_at,
        ends_at,
        active: after.active,
        self_service: after.self_service,
        revision: row.revision + 1,
        ..row
    };
    let row = row.into_active_model().reset_all().update(&tx).await?;
    trail::add(&tx, &[entry]).await?;
    tx.commit().await?;
    Ok(row)
}

/// What [`add_codes`] did.
#[derive(Clone, Debug)]
pub struct CodesAdded {
    pub reward: reward::Model,
    pub added: i64,
    /// How many of the codes the reward had before, or were sent twice.
    pub known: i64,
}

/// Adds coupon codes to the pool of a reward. Codes that it has are skipped.
pub async fn add_codes(
    app: &App,
    actor: &Actor,
    id: Option<RewardId>,
    codes: Vec<String>,
) -> Result<CodesAdded, Error> {
    let attempt = Attempt::new(actor, "addRewardCodes");
    let attempt = id.map_or(attempt, |id| attempt.on(Target::Reward(id)));
    app.conclude(&attempt, insert_codes(app, &attempt, id, codes)).await
}

async fn insert_codes(
    app: &App,
    attempt: &Attempt<'_>,
    id: Option<RewardId>,
    codes: Vec<String>,
) -> Result<CodesAdded, Error> {
    let mut check = Check::default();
    if codes.is_empty() || codes.len() > MAX_CODES {
        check.fail(&["codes"], UserErrorCode::OutOfRange, format!("must have 1 to {MAX_CODES} entries"));
    }
    for (index, code) in codes.iter().enumerate() {
        check.text(&["codes", &index.to_string()], code);
    }
    check.finish(Some(()))?;
    let tx = app.database.begin().await?;
    let (row, mut stock) = lock(&tx, id.unwrap_or(RewardId(0)), "rewardId").await?;
    let backend = app.database.backend();
    let sent = codes.len();
    let mut new: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let known: Vec<String> = reward_code::Entity::find()
        .select_only()
        .column(reward_code::Column::Code)
        .filter(reward_code::Column::RewardId.eq(row.id))
        .filter(any(backend, reward_code::Column::Code, codes.iter().cloned()))
        .into_tuple()
        .all(&tx)
        .await?;
    seen.extend(known);
    for code in codes {
        if seen.insert(code.clone()) {
            new.push(code);
        }
    }
    let first = stock.codes_unused + stock.codes_given + 1;
    let rows: Vec<reward_code::Model> = (first..)
        .zip(new)
        .map(|(position, code)| reward_code::Model {
            reward_id: row.id,
            position,
            code,
            customer_id: None,
            redemption_number: None,
        })
        .collect();
    let added = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let before = trail::state(counts(&stock))?;
    stock.codes_unused += added;
    let now = app.clock.ask(&tx).await?;
    let mut group = WriteGroup::new(backend);
    group.insert::<reward_code::Entity>(&rows, OnConflict::Fail);
    group.update::<stock::Entity>(&[stock.clone()], &[]);
    group.run(&tx).await?;
    trail::add(&tx, &[attempt.entry(now, Some(before), Some(trail::state(counts(&stock))?))]).await?;
    tx.commit().await?;
    Ok(CodesAdded { reward: row, added, known: i64::try_from(sent).unwrap_or(i64::MAX) - added })
}

fn counts(stock: &stock::Model) -> serde_json::Value {
    serde_json::json!({ "codes": { "unused": stock.codes_unused, "given": stock.codes_given } })
}

/// Whether the reader sees the reward: customers see what is offered now.
fn is_visible(row: &reward::Model, reader: Reader<'_>, now: Instant) -> bool {
    reader.myself().is_none() || offer(row).is_open(now)
}

/// Returns a page of the rewards that the reader may see, newest first. `active` selects those that are active, or that are not.
pub async fn list(
    app: &App,
    reader: Reader<'_>,
    page: &Page,
    active: Option<bool>,
) -> Result<Slice<reward::Model>, Error> {
    let mut filter = Filter::default();
    match active {
        None => {}
        Some(true) => filter.sql += " AND s.active",
        Some(false) => filter.sql += " AND NOT s.active",
    }
    if reader.myself().is_some() {
        filter.sql +=
            " AND s.active AND COALESCE(s.starts_at, r.now) <= r.now AND COALESCE(s.ends_at, r.now + 1) > r.now";
        filter.columns.push(("now", Kind::Int));
        filter.rows = vec![vec![app.clock.now().0.into()]];
    }
    of_root(app.database.read(), page, &filter).await
}

/// Finds rewards by id. Leaves out those that do not exist or that the reader may not see.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    ids: Vec<RewardId>,
) -> Result<HashMap<RewardId, reward::Model>, Error> {
    let now = app.clock.now();
    let mut found = by_ids(app, ids).await?;
    found.retain(|_, row| is_visible(row, reader, now));
    Ok(found)
}

/// Loads rewards by id without checking rights: for redemptions that the reader already sees.
pub async fn by_ids(app: &App, ids: Vec<RewardId>) -> Result<HashMap<RewardId, reward::Model>, Error> {
    let named = any(app.database.backend(), reward::Column::Id, ids.into_iter().map(|id| id.0));
    let rows = reward::Entity::find().filter(named).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.id, row)).collect())
}

/// Returns the units of rewards now. Those of reservations that are over do not count.
pub async fn units_now(app: &App, ids: Vec<RewardId>) -> Result<HashMap<RewardId, Units>, Error> {
    let backend = app.database.backend();
    let named = any(backend, stock::Column::RewardId, ids.iter().map(|id| id.0));
    let tx = app.database.snapshot().await?;
    let rows = stock::Entity::find().filter(named).all(&tx).await?;
    let over: Vec<(RewardId, i64)> = redemption::Entity::find()
        .select_only()
        .column(redemption::Column::RewardId)
        .column_as(Expr::cust("CAST(SUM(quantity) AS bigint)"), "quantity")
        .filter(any(backend, redemption::Column::RewardId, ids.iter().map(|id| id.0)))
        .filter(redemption::Column::State.eq(RedemptionState::Reserved))
        .filter(redemption::Column::ReservedUntil.lte(app.clock.now().0))
        .group_by(redemption::Column::RewardId)
        .into_tuple()
        .all(&tx)
        .await?;
    tx.commit().await?;
    let over: HashMap<RewardId, i64> = over.into_iter().collect();
    let units = |row: stock::Model| {
        let counted = units(&row);
        let over = over.get(&row.reward_id).copied().unwrap_or_default();
        (row.reward_id, Units { reserved: counted.reserved - over, ..counted })
    };
    Ok(rows.into_iter().map(units).collect())
}
