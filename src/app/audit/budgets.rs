//! Audits the budgets and statistics of all campaigns. Replays the budget decisions in their order, and compares the counters
//! with the awards.

use std::collections::BTreeMap;

use entity::{AwardStatus, CampaignId, CustomerId, award, budget, budget_decision, customer};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect,
};

use crate::app::audit::difference::{Difference, Tell, word};
use crate::app::campaign::set::CampaignSet;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, join};
use crate::app::stats::{counted, counters};
use crate::app::stored::budget::{decided_status, decision_kind};
use crate::engine::budget::{Budget, DecisionKind};

/// The number of decisions that are read at a time.
const PAGE: u64 = 1_000;

/// Reports each difference in the budgets and statistics. Returns the number of differences.
pub(super) async fn audit(snapshot: &DatabaseTransaction, tell: Tell<'_>) -> Result<u64, Error> {
    let set = CampaignSet::load(snapshot).await?;
    let mut found = Found { set: &set, tell, count: 0 };
    let (counted, counters) = (counted(snapshot).await?, counters(snapshot).await?);
    for row in budget::Entity::find().order_by_asc(budget::Column::CampaignId).all(snapshot).await? {
        replay(snapshot, &mut found, &row).await?;
        if row.points_limit.is_some() {
            let stands = counted.get(&row.campaign_id).map_or(0, |total| total.points_standing);
            found.compare(row.campaign_id, "points used of the budget", row.points_used, stands);
        }
    }
    for campaign in set.all() {
        let id = campaign.id();
        let expected = counted.get(&id).copied().unwrap_or_default();
        let recorded = counters.get(&id).copied().unwrap_or_default();
        found.compare(id, "statistics: awards", recorded.awards, expected.awards);
        found.compare(id, "statistics: customers", recorded.customers, expected.customers);
        found.compare(id, "statistics: points standing", recorded.points_standing, expected.points_standing);
        found.compare(id, "statistics: points declined", recorded.points_declined, expected.points_declined);
    }
    Ok(found.count)
}

struct Found<'a> {
    set: &'a CampaignSet,
    tell: Tell<'a>,
    count: u64,
}

impl Found<'_> {
    fn compare(&mut self, id: CampaignId, what: &str, recorded: i64, expected: i64) {
        if recorded != expected {
            self.note(None, id, what.to_owned(), recorded.to_string(), expected.to_string());
        }
    }

    fn note(&mut self, customer: Option<String>, id: CampaignId, what: String, recorded: String, expected: String) {
        let name = self.set.get(id).map(|campaign| campaign.row.name.clone()).unwrap_or_default();
        (self.tell)(&Difference { customer, campaign: Some((id.0, name)), what, recorded, expected });
        self.count += 1;
    }
}

/// The state of the replay of one budget.
#[derive(Default)]
struct Replay {
    number: i64,
    used: i64,
    limit: Option<i64>,
    /// Awards with a status that differs from the last decision, by customer and number: the status, and the decision.
    wrong: BTreeMap<(i64, i64), (AwardStatus, AwardStatus)>,
}

/// Makes every decision again, in the recorded order.
async fn replay(snapshot: &DatabaseTransaction, found: &mut Found<'_>, row: &budget::Model) -> Result<(), Error> {
    let id = row.campaign_id;
    let mut replay = Replay::default();
    loop {
        let page = budget_decision::Entity::find()
            .filter(budget_decision::Column::CampaignId.eq(id))
            .filter(budget_decision::Column::DecisionNo.gt(replay.number))
            .order_by_asc(budget_decision::Column::DecisionNo)
            .limit(PAGE)
            .all(snapshot)
            .await?;
        if page.is_empty() {
            break;
        }
        replay.compare_statuses(snapshot, id, &page).await?;
        for decision in page {
            replay.step(found, &decision);
        }
    }
    found.compare(id, "last decision number", row.decision_no, replay.number);
    // A draft has no decisions.
    if replay.number > 0 {
        let show = |limit: Option<i64>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        if row.points_limit != replay.limit {
            found.note(None, id, "budget".to_owned(), show(row.points_limit), show(replay.limit));
        }
        if replay.limit.is_some() {
            found.compare(id, "points used of the budget after the last decision", row.points_used, replay.used);
        }
    }
    note_wrong_statuses(snapshot, found, id, replay.wrong).await
}

impl Replay {
    fn step(&mut self, found: &mut Found<'_>, decision: &budget_decision::Model) {
        let id = decision.campaign_id;
        found.compare(id, "decision number", decision.decision_no, self.number + 1);
        self.number = decision.decision_no;
        match decision_kind(decision.kind) {
            Some(kind) => self.check(found, decision, kind),
            None => self.limit = Some(decision.points).filter(|limit| *limit >= 0),
        }
        // Without a limit, no decisions were recorded. So the points that stood when a limit was set come from its row. The
        // comparison with the standing points at the end checks them.
        self.used = decision.points_used;
    }

    /// Makes the decision about an award again, and compares the result with the recorded one.
    fn check(&mut self, found: &mut Found<'_>, decision: &budget_decision::Model, kind: DecisionKind) {
        let id = decision.campaign_id;
        let mut budget = Budget { limit: self.limit.unwrap_or(i64::MAX), used: self.used };
        let standing = kind == DecisionKind::Standing;
        let fits = budget.fits(decision.points);
        let decides = matches!(kind, DecisionKind::Standing | DecisionKind::Declined);
        if decides && standing != fits {
            let status = |stands: bool| if stands { AwardStatus::Standing } else { AwardStatus::Declined };
            found.note(None, id, format!("decision {}", self.number), word(status(standing)), word(status(fits)));
        }
        budget.carry_out(kind, decision.points);
        let what = format!("points used of the budget after decision {}", self.number);
        found.compare(id, &what, decision.points_used, budget.used);
    }

    /// Compares the statuses of the campaign's awards with the decisions on this page. REVERSED awards have lost their decision.
    /// The campaign is compared too: if an award was deleted, a repair may give its number to an award of another campaign.
    async fn compare_statuses(
        &mut self,
        snapshot: &impl ConnectionTrait,
        campaign: CampaignId,
        page: &[budget_decision::Model],
    ) -> Result<(), Error> {
        let mut decided: BTreeMap<(i64, i64), AwardStatus> = BTreeMap::new();
        for decision in page {
            let (Some(customer), Some(number), Some(status)) =
                (decision.customer_id, decision.award_number, decided_status(decision.kind))
            else {
                continue;
            };
            // A later decision about the same award replaces an earlier one.
            decided.insert((customer, number), status);
        }
        let mut keys = Rows::new(snapshot.get_database_backend(), &[("customer_id", Kind::Int), ("number", Kind::Int)]);
        for (customer, number) in decided.keys() {
            self.wrong.remove(&(*customer, *number));
            keys.push(vec![(*customer).into(), (*number).into()]);
        }
        if keys.is_empty() {
            return Ok(());
        }
        let on = format!(
            "t.customer_id = r.customer_id AND t.number = r.number AND t.campaign_id = {} AND t.status <> 'reversed'",
            campaign.0
        );
        for row in join(snapshot, "t.*", "award", keys, &on, "").await? {
            let award = award::Model::from_query_result(&row, "")?;
            let key = (award.customer_id.0, award.number);
            match decided.get(&key) {
                Some(decided) if *decided != award.status => {
                    self.wrong.insert(key, (award.status, *decided));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

async fn note_wrong_statuses(
    snapshot: &DatabaseTransaction,
    found: &mut Found<'_>,
    id: CampaignId,
    wrong: BTreeMap<(i64, i64), (AwardStatus, AwardStatus)>,
) -> Result<(), Error> {
    for ((customer_id, number), (recorded, decided)) in wrong {
        let customer = customer::Entity::find_by_id(CustomerId(customer_id)).one(snapshot).await?;
        let customer = customer.map(|customer| customer.external_id);
        let what = format!("status of award {number} by its budget decision");
        found.note(customer, id, what, word(recorded), word(decided));
    }
    Ok(())
}
