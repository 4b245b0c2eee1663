//! Audits the stock of rewards: counts redemptions and codes, and compares the counters with them. A repair sets the counters.

use std::collections::BTreeMap;

use entity::{RewardId, reward, stock};
use sea_orm::{
    ActiveModelTrait as _, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, FromQueryResult,
    IntoActiveModel, QueryOrder, QuerySelect as _, QueryTrait as _, Statement,
};

use super::difference::{Difference, Tell};
use crate::app::App;
use crate::app::error::Error;

/// Counts the units and codes of each reward. A cancelled redemption whose codes were shown keeps its units.
const COUNT: &str = "SELECT w.id AS reward_id, \
    CAST(COALESCE((SELECT SUM(quantity) FROM redemption AS r WHERE r.reward_id = w.id AND (r.state = 'redeemed' \
        OR (r.state = 'cancelled' AND EXISTS (SELECT 1 FROM reward_code AS c \
            WHERE c.customer_id = r.customer_id AND c.redemption_number = r.number)))), 0) AS bigint) AS redeemed, \
    CAST(COALESCE((SELECT SUM(quantity) FROM redemption AS r WHERE r.reward_id = w.id AND r.state = 'reserved'), 0) AS bigint) \
        AS reserved, \
    (SELECT COUNT(*) FROM reward_code AS c WHERE c.reward_id = w.id AND c.customer_id IS NULL) AS codes_unused, \
    (SELECT COUNT(*) FROM reward_code AS c WHERE c.reward_id = w.id AND c.customer_id IS NOT NULL) AS codes_given \
    FROM reward AS w";

/// Reports each counter that is wrong. Returns the number of differences.
pub(super) async fn audit(snapshot: &DatabaseTransaction, tell: Tell<'_>) -> Result<u64, Error> {
    let mut counted = count(snapshot).await?;
    let names: BTreeMap<RewardId, String> =
        reward::Entity::find().all(snapshot).await?.into_iter().map(|row| (row.id, row.name)).collect();
    let mut differences = 0;
    for recorded in stock::Entity::find().order_by_asc(stock::Column::RewardId).all(snapshot).await? {
        let id = recorded.reward_id;
        let Some(expected) = counted.remove(&id) else { continue };
        for (what, recorded, expected) in [
            ("redeemed units", recorded.redeemed, expected.redeemed),
            ("reserved units", recorded.reserved, expected.reserved),
            ("unused codes", recorded.codes_unused, expected.codes_unused),
            ("given codes", recorded.codes_given, expected.codes_given),
        ] {
            if recorded != expected {
                let name = names.get(&id).map(String::as_str).unwrap_or_default();
                let what = format!("{what} of reward {} ({name})", id.0);
                let (recorded, expected) = (recorded.to_string(), expected.to_string());
                tell(&Difference { customer: None, campaign: None, what, recorded, expected });
                differences += 1;
            }
        }
    }
    Ok(differences)
}

async fn count(db: &impl ConnectionTrait) -> Result<BTreeMap<RewardId, stock::Model>, Error> {
    let found = db.query_all_raw(Statement::from_string(db.get_database_backend(), COUNT)).await?;
    let counted = found.iter().map(|row| stock::Model::from_query_result(row, ""));
    Ok(counted.map(|row| row.map(|row| (row.reward_id, row))).collect::<Result<_, _>>()?)
}

/// Sets the counters that are wrong, under the locks of all stocks. So no redemption is under way.
pub(super) async fn repair(app: &App) -> Result<(), Error> {
    let tx = app.database.begin().await?;
    if app.database.backend() == DatabaseBackend::Postgres {
        let lock = stock::Entity::find().order_by_asc(stock::Column::RewardId).lock_exclusive();
        tx.query_all_raw(lock.build(DatabaseBackend::Postgres)).await?;
    }
    let mut counted = count(&tx).await?;
    for recorded in stock::Entity::find().all(&tx).await? {
        let expected = counted.remove(&recorded.reward_id).filter(|expected| *expected != recorded);
        if let Some(expected) = expected {
            stock::Entity::update(expected.into_active_model().reset_all()).exec(&tx).await?;
        }
    }
    Ok(tx.commit().await?)
}
