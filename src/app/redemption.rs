//! Redemptions: points that customers spend on rewards, or set aside for them. This module checks what can be checked without the
//! database. The recorder decides, under the lock of the customer.

use std::collections::HashMap;

use entity::{CustomerId, RedemptionState, RewardId, redemption, reward, reward_code};
use sea_orm::{FromQueryResult as _, Value};

use super::App;
use super::customer::{by_ids, scope};
use super::error::{Check, Error, UserErrorCode};
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_customers};
use super::recorder::fact::{Fact, NewRedemption, Recorded, RedemptionStep, StepKind};
use super::rows::{Kind, Rows, join};
use super::stored::redemption as stored;
use super::viewer::{Reader, Viewer};
use crate::engine::external_id::ExternalId;
use crate::engine::reward::MAX_RESERVATION;
use crate::engine::time::{Instant, IsoDuration};

impl Listed for redemption::Model {
    const LIST: List = List {
        name: "redemption",
        table: "redemption",
        order: &[("created_at", Kind::Int), ("number", Kind::Int)],
        descending: true,
    };

    fn position(&self) -> Position {
        [Part::Int(self.created_at), Part::Int(self.number)].into()
    }
}

/// A redemption as the caller sent it.
#[derive(Clone, Debug)]
pub struct RedeemReward {
    pub reward: Option<RewardId>,
    /// `None`: the customer that the token speaks for.
    pub customer_external_id: Option<String>,
    pub quantity: i64,
    pub idempotency_key: String,
    /// How long to set the points aside. `None`: they are spent at once.
    pub reserve_for: Option<String>,
}

impl RedeemReward {
    fn check(self, path: &[String], reader: Reader<'_>) -> Result<NewRedemption, Error> {
        let mut check = Check::at(path);
        let name = self.customer_external_id.or_else(|| reader.myself().map(str::to_owned));
        let customer = match name {
            None => {
                check.fail(&["customerExternalId"], UserErrorCode::Required, "the token has no customer");
                None
            }
            Some(name) if !reader.sees(&name) => {
                check.fail(&["customerExternalId"], UserErrorCode::NotFound, "no such customer");
                None
            }
            Some(name) => check.external_id(&["customerExternalId"], name),
        };
        check.text(&["idempotencyKey"], &self.idempotency_key);
        if !(1..=i64::from(i32::MAX)).contains(&self.quantity) {
            check.fail(&["quantity"], UserErrorCode::OutOfRange, "must be at least 1");
        }
        if self.reward.is_none() {
            check.fail(&["rewardId"], UserErrorCode::NotFound, "no reward has this id");
        }
        let reserve_for = self.reserve_for.map(|text| {
            let span = check.parsed(&["reserveFor"], IsoDuration::parse(&text), |_| UserErrorCode::Invalid);
            let micros = span.map_or(1, |span| span.micros());
            if !(1..=MAX_RESERVATION).contains(&micros) {
                check.fail(&["reserveFor"], UserErrorCode::OutOfRange, "must be above zero and at most P7D");
            }
            micros
        });
        let new = customer.zip(self.reward).map(|(customer_external_id, reward)| NewRedemption {
            customer_external_id,
            reward,
            quantity: self.quantity,
            idempotency_key: self.idempotency_key,
            reserve_for,
            by_customer: reader.myself().is_some(),
        });
        check.finish(new)
    }
}

/// Spends points on a reward, or sets them aside. A customer may do so for itself if the reward says so.
pub async fn redeem(app: &App, viewer: &Viewer, path: Vec<String>, input: RedeemReward) -> Result<Recorded, Error> {
    let reader = viewer.require_reader()?;
    let checked = input.check(&path, reader);
    if let (Some(_), Ok(new)) = (reader.myself(), &checked) {
        let found = super::reward::find(app, reader, vec![new.reward]).await?;
        if found.get(&new.reward).is_some_and(|row: &reward::Model| !row.self_service) {
            return Err(Error::Forbidden);
        }
    }
    app.recorder.record_one(&viewer.who(), path, checked.map(Fact::Redemption)).await
}

/// Commits a reservation.
pub async fn commit(app: &App, viewer: &Viewer, id: Option<(CustomerId, i64)>) -> Result<Recorded, Error> {
    step(app, viewer, id, StepKind::Commit).await
}

/// Cancels a reservation or a redemption.
pub async fn cancel(
    app: &App,
    viewer: &Viewer,
    id: Option<(CustomerId, i64)>,
    reason: Option<String>,
) -> Result<Recorded, Error> {
    viewer.require_reader()?;
    let mut check = Check::default();
    if let Some(reason) = &reason {
        check.text(&["reason"], reason);
    }
    check.finish(Some(()))?;
    step(app, viewer, id, StepKind::Cancel { reason }).await
}

async fn step(app: &App, viewer: &Viewer, id: Option<(CustomerId, i64)>, kind: StepKind) -> Result<Recorded, Error> {
    let reader = viewer.require_reader()?;
    let unknown = || Error::refused(&["id"], UserErrorCode::NotFound, "no redemption has this id");
    let (customer, number) = id.ok_or_else(unknown)?;
    let row = by_ids(app, vec![customer]).await?.remove(&customer);
    let row = row.filter(|row| reader.sees(&row.external_id)).ok_or_else(unknown)?;
    let customer_external_id = ExternalId::stored(&row.external_id);
    let step = RedemptionStep { customer_external_id, number, kind, by_customer: reader.myself().is_some() };
    app.recorder.record_one(&viewer.who(), Vec::new(), Ok(Fact::RedemptionStep(step))).await
}

/// Like [`RedemptionState`], but with an order and a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    Reserved,
    Redeemed,
    Cancelled,
    Lapsed,
}

impl State {
    /// The state of a redemption at an instant.
    pub fn at(row: &redemption::Model, now: Instant) -> Self {
        match stored::state_at(row, now) {
            RedemptionState::Reserved => Self::Reserved,
            RedemptionState::Redeemed => Self::Redeemed,
            RedemptionState::Cancelled => Self::Cancelled,
            RedemptionState::Lapsed => Self::Lapsed,
        }
    }

    const fn condition(self) -> &'static str {
        match self {
            Self::Reserved => "(s.state = 'reserved' AND s.reserved_until > r.now)",
            Self::Redeemed => "s.state = 'redeemed'",
            Self::Cancelled => "s.state = 'cancelled'",
            Self::Lapsed => "(s.state = 'lapsed' OR (s.state = 'reserved' AND s.reserved_until <= r.now))",
        }
    }
}

/// Loads the same page of the redemptions of each customer, in one of these states. `None` selects every state.
pub async fn of_customers_by_page(
    app: &App,
    customers: Vec<CustomerId>,
    page: &Page,
    states: Option<&[State]>,
) -> Result<HashMap<CustomerId, Slice<redemption::Model>>, Error> {
    let mut filter = Filter::default();
    if let Some(states) = states {
        let conditions: Vec<&str> = states.iter().map(|state| state.condition()).collect();
        let any = if conditions.is_empty() { "1 = 0".to_owned() } else { conditions.join(" OR ") };
        filter.sql = format!(" AND ({any})");
        filter.columns.push(("now", Kind::Int));
        let now: Value = app.clock.now().0.into();
        filter.rows = vec![vec![now]];
    }
    of_customers(app.database.read(), customers, page, &filter, |row: &redemption::Model| row.customer_id).await
}

/// Loads redemptions by customer and number. Leaves out those that the reader may not see.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    keys: Vec<(CustomerId, i64)>,
) -> Result<HashMap<(CustomerId, i64), redemption::Model>, Error> {
    let scope = scope(app, reader).await?;
    let rows =
        stored::load(app.database.read(), keys.into_iter().filter(|(customer, _)| scope.sees(*customer))).await?;
    Ok(rows.into_iter().map(|row| ((row.customer_id, row.number), row)).collect())
}

/// Loads the codes of redemptions, in the order in which they were given.
pub async fn codes(app: &App, keys: Vec<(CustomerId, i64)>) -> Result<HashMap<(CustomerId, i64), Vec<String>>, Error> {
    let mut rows = Rows::new(app.database.backend(), &[("customer_id", Kind::Int), ("number", Kind::Int)]);
    keys.into_iter().for_each(|(customer, number)| rows.push(vec![customer.0.into(), number.into()]));
    let on = "t.customer_id = r.customer_id AND t.redemption_number = r.number";
    let found = join(app.database.read(), "t.*", "reward_code", rows, on, "ORDER BY t.position").await?;
    let mut codes: HashMap<(CustomerId, i64), Vec<String>> = HashMap::new();
    for row in &found {
        let row = reward_code::Model::from_query_result(row, "")?;
        if let Some((customer, number)) = row.customer_id.zip(row.redemption_number) {
            codes.entry((CustomerId(customer), number)).or_default().push(row.code);
        }
    }
    Ok(codes)
}
