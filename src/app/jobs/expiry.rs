//! Posts what the clock has done to points: expiries and the ends of reservations that are due. It also tries refunds that wait for
//! their purchase, and ends those that have waited too long.
//!
//! Balances, lots and progress are right without this job, because each read applies the clock itself. The job makes the ledger
//! and the subscribers follow within a minute, also for a customer who buys nothing more. A tick that comes late, comes twice or
//! runs on two nodes at a time posts the same entries: the write path decides them under the customer's lock.

use std::time::Duration;

use entity::{CustomerId, customer, job};
use futures_util::future::join_all;
use sea_orm::{ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};

use super::queue::{self, End};
use super::settlement::certain_now;
use crate::app::App;
use crate::app::error::Error;
use crate::app::recorder::fact::Fact;
use crate::app::waiting_fact;
use crate::engine::time::Instant;

/// How often due points are posted.
pub(super) const PERIOD: Duration = Duration::from_secs(60);
/// The number of customers that are posted together. The next ones are read when these are committed.
const PAGE: u64 = 256;
/// The maximum number of commits for one customer in a tick. Each posts up to 500 entries. The next tick continues.
const MAX_COMMITS: usize = 1_000;

/// Posts everything that is due at this tick. A customer for whom this fails keeps no other one waiting.
pub(super) async fn run_tick(app: &App, job: &job::Model) -> Result<End, Error> {
    let Some(now) = certain_now(app).await? else { return Ok(End::Done) };
    let mut after = (i64::MIN, CustomerId(i64::MIN));
    let mut failed = None;
    loop {
        let due = load_due(app, now, after).await?;
        let Some((due_at, id, _)) = due.last() else { break };
        after = (*due_at, *id);
        let posted = join_all(due.iter().map(|(_, _, customer)| post(app, customer, now))).await;
        failed = posted.into_iter().find_map(Result::err).or(failed);
        queue::renew(app, job, None).await?;
    }
    waiting_fact::sweep(app).await?;
    failed.map_or(Ok(End::Done), Err)
}

/// Loads the next customers whose points the clock has changed, by the instant of the first change.
async fn load_due(app: &App, now: Instant, after: (i64, CustomerId)) -> Result<Vec<(i64, CustomerId, String)>, Error> {
    let (due_at, id) = (customer::Column::DueAt, customer::Column::Id);
    let follows = Condition::any().add(due_at.gt(after.0)).add(due_at.eq(after.0).and(id.gt(after.1)));
    let rows = customer::Entity::find()
        .select_only()
        .columns([due_at, id, customer::Column::ExternalId])
        .filter(due_at.lte(now.0))
        .filter(due_at.gte(after.0))
        .filter(follows)
        .order_by_asc(due_at)
        .order_by_asc(id)
        .limit(PAGE)
        .into_tuple()
        .all(app.database.read())
        .await?;
    Ok(rows)
}

/// Posts what is due of this customer.
async fn post(app: &App, customer: &str, now: Instant) -> Result<(), Error> {
    let mut due_at = i64::MIN;
    for _ in 0..MAX_COMMITS {
        let answer = app.recorder.record_when_free(Fact::Expiry(customer.to_owned())).await?;
        match answer.await.map_err(|_| Error::Unavailable)?? {
            // A commit that posts nothing would post nothing the next time.
            Ok(recorded) => match recorded.customer.due_at.filter(|at| due_at < *at && *at <= now.0) {
                Some(next) => due_at = next,
                None => break,
            },
            // The fact is refused if the customer is gone.
            Err(_) => break,
        }
    }
    Ok(())
}
