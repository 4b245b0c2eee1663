//! Counting the past of a campaign that was activated with a start in the past: customer by customer, in chunks,
//! through the write path, beside the writers. It goes on where it stopped; two at once do the same work twice and
//! change nothing. Whatever customer it has not reached is evaluated by that customer's first change.

use entity::{CampaignId, campaign, customer};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::App;
use super::error::Error;
use super::recorder::Fact;

/// Customers in one chunk.
const CHUNK: u64 = 256;

/// Carries out all open backfills; answers how many customers it evaluated.
pub async fn run(app: &App) -> Result<u64, Error> {
    let mut evaluated = 0;
    let open = campaign::Entity::find()
        .filter(campaign::Column::BackfilledTo.is_not_null())
        .order_by_asc(campaign::Column::ActivatedRevision)
        .all(app.database.read())
        .await?;
    // One that fails holds up no other; it is told when all have been tried.
    let mut failed = None;
    for campaign in open {
        match backfill(app, campaign).await {
            Ok(customers) => evaluated += customers,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(evaluated), Err)
}

/// Waits until an activation wants the past counted.
pub async fn wanted(app: &App) {
    app.backfill_wanted.notified().await;
}

async fn backfill(app: &App, campaign: campaign::Model) -> Result<u64, Error> {
    let (Some(mut reached), Some(revision)) = (campaign.backfilled_to, campaign.activated_revision) else {
        return Ok(0);
    };
    let mut evaluated = 0;
    loop {
        let chunk: Vec<(i64, String)> = customer::Entity::find()
            .select_only()
            .column(customer::Column::Id)
            .column(customer::Column::ExternalId)
            .filter(customer::Column::Id.gt(reached))
            .filter(customer::Column::EvaluatedRevision.lt(revision))
            .order_by_asc(customer::Column::Id)
            .limit(CHUNK)
            .into_tuple()
            .all(app.database.read())
            .await?;
        let Some((last, _)) = chunk.last() else { break };
        reached = *last;
        evaluated += chunk.len() as u64;
        let mut answers = Vec::with_capacity(chunk.len());
        for (_, external_id) in chunk {
            answers.push(app.recorder.record_when_free(Fact::Evaluation(external_id)).await?);
        }
        for answer in answers {
            // A refusal means that the customer is gone: nothing is left to count.
            let _ = answer.await.map_err(|_| Error::Unavailable)??;
        }
        save_reached(app, campaign.id, Some(reached)).await?;
    }
    save_reached(app, campaign.id, None).await?;
    Ok(evaluated)
}

/// Opens the backfill of a campaign, from the first customer on.
pub(super) async fn open(tx: &DatabaseTransaction, id: CampaignId) -> Result<(), Error> {
    set_reached(tx, id, Some(0)).await
}

async fn save_reached(app: &App, id: CampaignId, reached: Option<i64>) -> Result<(), Error> {
    let tx = app.database.begin().await?;
    set_reached(&tx, id, reached).await?;
    Ok(tx.commit().await?)
}

async fn set_reached(tx: &DatabaseTransaction, id: CampaignId, reached: Option<i64>) -> Result<(), Error> {
    campaign::Entity::update_many()
        .col_expr(campaign::Column::BackfilledTo, Expr::value(reached))
        .filter(campaign::Column::Id.eq(id))
        .exec(tx)
        .await?;
    Ok(())
}
