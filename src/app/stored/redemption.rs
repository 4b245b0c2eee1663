//! Loads redemptions and what they took.

use std::collections::HashMap;

use entity::{CustomerId, RedemptionState, redemption, taking};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult as _, QueryFilter, QueryOrder};

use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, any, join};
use crate::engine::lot::Place;
use crate::engine::purse::{Reservation, Taking};
use crate::engine::replay::{Event, Replay};
use crate::engine::time::Instant;

/// What the redemptions of customers took, by customer and number.
pub type Takings = HashMap<(CustomerId, i64), Vec<Taking>>;

fn named(db: &impl ConnectionTrait, names: impl IntoIterator<Item = (CustomerId, i64)>) -> Rows {
    let mut rows = Rows::new(db.get_database_backend(), &[("customer_id", Kind::Int), ("number", Kind::Int)]);
    names.into_iter().for_each(|(customer, number)| rows.push(vec![customer.0.into(), number.into()]));
    rows
}

/// Loads redemptions by customer and number.
pub async fn load(
    db: &impl ConnectionTrait,
    names: impl IntoIterator<Item = (CustomerId, i64)>,
) -> Result<Vec<redemption::Model>, Error> {
    let rows = named(db, names);
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let on = "t.customer_id = r.customer_id AND t.number = r.number";
    let found = join(db, "t.*", "redemption", rows, on, "").await?;
    Ok(found.iter().map(|row| redemption::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}

/// Loads the reservations of customers that no write has ended.
pub async fn load_reserved(
    db: &impl ConnectionTrait,
    customers: impl IntoIterator<Item = CustomerId>,
) -> Result<Vec<redemption::Model>, Error> {
    let ids: Vec<i64> = customers.into_iter().map(|id| id.0).collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let of_customers = any(db.get_database_backend(), redemption::Column::CustomerId, ids);
    let reserved = redemption::Column::State.eq(RedemptionState::Reserved);
    Ok(redemption::Entity::find().filter(of_customers).filter(reserved).all(db).await?)
}

/// Loads all redemptions of a customer, in order, and what they took.
pub async fn load_all(
    db: &impl ConnectionTrait,
    customer: CustomerId,
) -> Result<(Vec<redemption::Model>, Takings), Error> {
    let rows = redemption::Entity::find()
        .filter(redemption::Column::CustomerId.eq(customer))
        .order_by_asc(redemption::Column::Number)
        .all(db)
        .await?;
    if rows.is_empty() {
        return Ok((rows, Takings::new()));
    }
    let taken = taking::Entity::find()
        .filter(taking::Column::CustomerId.eq(customer))
        .order_by_asc(taking::Column::RedemptionNumber)
        .order_by_asc(taking::Column::ExpiresAt)
        .all(db)
        .await?;
    Ok((rows, by_redemption(taken)))
}

/// Loads what redemptions took, in spending order.
pub async fn load_takings(
    db: &impl ConnectionTrait,
    names: impl IntoIterator<Item = (CustomerId, i64)>,
) -> Result<Takings, Error> {
    let rows = named(db, names);
    if rows.is_empty() {
        return Ok(Takings::new());
    }
    let on = "t.customer_id = r.customer_id AND t.redemption_number = r.number";
    let found = join(db, "t.*", "taking", rows, on, "ORDER BY t.expires_at").await?;
    let found = found.iter().map(|row| taking::Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
    Ok(by_redemption(found))
}

/// Groups rows by redemption.
pub fn by_redemption(rows: Vec<taking::Model>) -> Takings {
    let mut takings = Takings::new();
    for row in rows {
        let expires_at = Some(Instant(row.expires_at)).filter(|at| *at != Instant::FOREVER);
        let taking = Taking { place: Place::available(expires_at), points: row.points };
        takings.entry((row.customer_id, row.redemption_number)).or_default().push(taking);
    }
    takings
}

/// The rows of what a redemption took.
pub fn to_rows(customer_id: CustomerId, number: i64, takings: &[Taking]) -> impl Iterator<Item = taking::Model> {
    takings.iter().map(move |taking| {
        let expires_at = match taking.place {
            Place::Pool => Instant::FOREVER,
            Place::Lot(key) => key.expires_at,
        };
        taking::Model { customer_id, redemption_number: number, expires_at: expires_at.0, points: taking.points }
    })
}

/// The reservation in the form of the engine. Returns `None` if the redemption never was one.
pub fn reservation(row: &redemption::Model, takings: &Takings) -> Option<Reservation> {
    let until = Instant(row.reserved_until?);
    let takings = takings.get(&(row.customer_id, row.number)).cloned().unwrap_or_default();
    Some(Reservation { number: row.number, until, takings })
}

/// The beginnings and ends of reservations, for which no entry is posted.
fn events(rows: &[redemption::Model]) -> Vec<Event> {
    let mut events = Vec::new();
    for row in rows {
        let Some(until) = row.reserved_until.map(Instant) else { continue };
        let (version, sequence, at) = (row.created_version, row.created_sequence, Instant(row.created_at));
        events.push(Event { version, sequence, at, number: row.number, until, ends: false });
        let ended = row.ended_at.zip(row.ended_version).zip(row.ended_sequence);
        if let Some(((at, version), sequence)) = ended.filter(|_| row.redeemed_at.is_none()) {
            events.push(Event { version, sequence, at: Instant(at), number: row.number, until, ends: true });
        }
    }
    events
}

/// The state of a redemption at an instant, whether or not a write has ended the reservation.
pub fn state_at(row: &redemption::Model, now: Instant) -> RedemptionState {
    let is_over = row.reserved_until.is_some_and(|until| until <= now.0);
    if row.state == RedemptionState::Reserved && is_over { RedemptionState::Lapsed } else { row.state }
}

/// Tells a replay what is recorded of the redemptions of its customer.
pub fn tell(replay: &mut Replay, rows: &[redemption::Model], takings: Takings) {
    let takings = takings.into_iter().map(|((_, number), taken)| (number, taken)).collect();
    replay.set_redemptions(events(rows), takings);
}
