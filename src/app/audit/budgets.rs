//! Budgets and statistics, over all customers: the decisions replayed in their order, the counters against the awards.

use std::collections::HashMap;

use entity::{AwardStatus, BudgetDecisionKind, CampaignId, award, budget, budget_decision, campaign_stat};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};

use super::Difference;
use crate::app::campaigns::CampaignSet;
use crate::app::error::Error;

/// Decisions read at a time.
const PAGE: u64 = 1_000;

/// Awards, customers and points of one campaign and status, as the awards say.
struct Sum {
    awards: i64,
    customers: i64,
    points: i64,
}

pub(super) async fn differences(snapshot: &DatabaseTransaction) -> Result<Vec<Difference>, Error> {
    let set = CampaignSet::load(snapshot).await?;
    let mut found = Found { set: &set, differences: Vec::new() };
    let sums = sums(snapshot).await?;
    let sum = |id: CampaignId, status| sums.get(&(id, status)).unwrap_or(&Sum { awards: 0, customers: 0, points: 0 });
    for row in budget::Entity::find().order_by_asc(budget::Column::CampaignId).all(snapshot).await? {
        replay(snapshot, &mut found, &row).await?;
        if row.points_limit.is_some() {
            let stands = sum(row.campaign_id, "standing").points;
            found.compare(row.campaign_id, "points out of the budget", row.points_used, stands);
        }
    }
    let mut stats: HashMap<CampaignId, campaign_stat::Model> = HashMap::new();
    for shard in campaign_stat::Entity::find().all(snapshot).await? {
        let id = shard.campaign_id;
        let total = stats.entry(id).or_insert(campaign_stat::Model {
            awards: 0,
            customers: 0,
            points_standing: 0,
            points_declined: 0,
            ..shard.clone()
        });
        total.awards += shard.awards;
        total.customers += shard.customers;
        total.points_standing += shard.points_standing;
        total.points_declined += shard.points_declined;
    }
    for campaign in set.all() {
        let id = campaign.id();
        let (standing, declined) = (sum(id, "standing"), sum(id, "declined"));
        let stat = |pick: fn(&campaign_stat::Model) -> i64| stats.get(&id).map_or(0, pick);
        found.compare(id, "statistics: awards", stat(|stat| stat.awards), standing.awards);
        found.compare(id, "statistics: customers", stat(|stat| stat.customers), standing.customers);
        found.compare(id, "statistics: points standing", stat(|stat| stat.points_standing), standing.points);
        found.compare(id, "statistics: points declined", stat(|stat| stat.points_declined), declined.points);
    }
    Ok(found.differences)
}

struct Found<'a> {
    set: &'a CampaignSet,
    differences: Vec<Difference>,
}

impl Found<'_> {
    fn compare(&mut self, id: CampaignId, what: &str, recorded: i64, expected: i64) {
        if recorded != expected {
            self.note(id, what.to_owned(), recorded.to_string(), expected.to_string());
        }
    }

    fn note(&mut self, id: CampaignId, what: String, recorded: String, expected: String) {
        let name = self.set.get(id).map(|campaign| campaign.row.name.clone()).unwrap_or_default();
        self.differences.push(Difference { customer: None, campaign: Some((id.0, name)), what, recorded, expected });
    }
}

/// Decides every decision again, in its order.
async fn replay(snapshot: &DatabaseTransaction, found: &mut Found<'_>, row: &budget::Model) -> Result<(), Error> {
    let id = row.campaign_id;
    let (mut number, mut used, mut limit) = (0, 0, None);
    loop {
        let page = budget_decision::Entity::find()
            .filter(budget_decision::Column::CampaignId.eq(id))
            .filter(budget_decision::Column::DecisionNo.gt(number))
            .order_by_asc(budget_decision::Column::DecisionNo)
            .limit(PAGE)
            .all(snapshot)
            .await?;
        if page.is_empty() {
            break;
        }
        for decision in page {
            found.compare(id, "decision number", decision.decision_no, number + 1);
            number = decision.decision_no;
            let fits = limit.is_none_or(|limit| used + decision.points <= limit);
            let expected = match decision.kind {
                BudgetDecisionKind::Limit => {
                    limit = Some(decision.points).filter(|limit| *limit >= 0);
                    // Without a limit nothing was numbered: what stood then is told, and checked by the sum at the end.
                    decision.points_used
                }
                BudgetDecisionKind::Standing | BudgetDecisionKind::Declined => {
                    let stood = decision.kind == BudgetDecisionKind::Standing;
                    if stood != fits {
                        let word = |stands: bool| if stands { "STANDING" } else { "DECLINED" }.to_owned();
                        found.note(id, format!("decision {number}"), word(stood), word(fits));
                    }
                    if stood { used + decision.points } else { used }
                }
                BudgetDecisionKind::Released => used - decision.points,
            };
            found.compare(
                id,
                &format!("points out of the budget after decision {number}"),
                decision.points_used,
                expected,
            );
            used = decision.points_used;
        }
    }
    found.compare(id, "last decision number", row.decision_no, number);
    if number > 0 && row.points_limit.is_some() {
        found.compare(id, "points out of the budget after the last decision", row.points_used, used);
        if row.points_limit != limit {
            found.note(id, "budget".to_owned(), format!("{:?}", row.points_limit), format!("{limit:?}"));
        }
    }
    Ok(())
}

async fn sums(snapshot: &DatabaseTransaction) -> Result<HashMap<(CampaignId, &'static str), Sum>, Error> {
    let mut sums = HashMap::new();
    for (status, name) in [(AwardStatus::Standing, "standing"), (AwardStatus::Declined, "declined")] {
        let rows: Vec<(CampaignId, i64, i64, i64)> = award::Entity::find()
            .select_only()
            .column(award::Column::CampaignId)
            .column_as(award::Column::Number.count(), "awards")
            .column_as(Expr::col(award::Column::CustomerId).count_distinct(), "customers")
            .column_as(award::Column::Points.sum().cast_as("bigint"), "points")
            .filter(award::Column::Status.eq(status))
            .group_by(award::Column::CampaignId)
            .into_tuple()
            .all(snapshot)
            .await?;
        for (id, awards, customers, points) in rows {
            sums.insert((id, name), Sum { awards, customers, points });
        }
    }
    Ok(sums)
}
