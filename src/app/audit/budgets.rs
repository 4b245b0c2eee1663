//! Budgets and statistics, over all customers: the decisions replayed in their order, the counters against the awards.

use std::collections::BTreeMap;

use entity::{AwardStatus, CampaignId, CustomerId, award, budget, budget_decision, customer};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect,
};

use crate::app::audit::difference::{Difference, Tell, word};
use crate::app::campaigns::CampaignSet;
use crate::app::error::Error;
use crate::app::rows::{Kind, Rows, join};
use crate::app::stats::{counted, counters};
use crate::app::stored::budget::{decided_status, decision_kind};
use crate::engine::budget::{Budget, DecisionKind};

/// Decisions read at a time.
const PAGE: u64 = 1_000;

/// Tells what of the campaigns is not as it should be; how many differences.
pub(super) async fn audit(snapshot: &DatabaseTransaction, tell: Tell<'_>) -> Result<u64, Error> {
    let set = CampaignSet::load(snapshot).await?;
    let mut found = Found { set: &set, tell, count: 0 };
    let (counted, counters) = (counted(snapshot).await?, counters(snapshot).await?);
    for row in budget::Entity::find().order_by_asc(budget::Column::CampaignId).all(snapshot).await? {
        replay(snapshot, &mut found, &row).await?;
        if row.points_limit.is_some() {
            let stands = counted.get(&row.campaign_id).map_or(0, |total| total.points_standing);
            found.compare(row.campaign_id, "points out of the budget", row.points_used, stands);
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

/// Where the replay of a budget stands.
#[derive(Default)]
struct Replay {
    number: i64,
    used: i64,
    limit: Option<i64>,
    /// Awards whose status is not what was decided last: the status, and the decision.
    wrong: BTreeMap<(i64, i64), (AwardStatus, AwardStatus)>,
}

/// Decides every decision again, in its order.
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
        replay.compare_statuses(snapshot, &page).await?;
        for decision in page {
            replay.step(found, &decision);
        }
    }
    found.compare(id, "last decision number", row.decision_no, replay.number);
    // Of a draft nothing was decided.
    if replay.number > 0 {
        let show = |limit: Option<i64>| limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        if row.points_limit != replay.limit {
            found.note(None, id, "budget".to_owned(), show(row.points_limit), show(replay.limit));
        }
        if replay.limit.is_some() {
            found.compare(id, "points out of the budget after the last decision", row.points_used, replay.used);
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
        // Without a limit nothing was numbered: the points that stood when it was set are taken from its row, and the sum at
        // the end checks them.
        self.used = decision.points_used;
    }

    /// Decides an award's decision again.
    fn check(&mut self, found: &mut Found<'_>, decision: &budget_decision::Model, kind: DecisionKind) {
        let id = decision.campaign_id;
        let mut budget = Budget { limit: self.limit.unwrap_or(i64::MAX), used: self.used };
        let standing = kind == DecisionKind::Standing;
        let fits = budget.fits(decision.points);
        if kind != DecisionKind::Released && standing != fits {
            let status = |stands: bool| if stands { AwardStatus::Standing } else { AwardStatus::Declined };
            found.note(None, id, format!("decision {}", self.number), word(status(standing)), word(status(fits)));
        }
        budget.carry_out(kind, decision.points);
        let what = format!("points out of the budget after decision {}", self.number);
        found.compare(id, &what, decision.points_used, budget.used);
    }

    /// An award stands, or is declined, as was decided; one that is reversed lost its decision.
    async fn compare_statuses(
        &mut self,
        snapshot: &impl ConnectionTrait,
        page: &[budget_decision::Model],
    ) -> Result<(), Error> {
        let mut decided: BTreeMap<(i64, i64), AwardStatus> = BTreeMap::new();
        for decision in page {
            let (Some(customer), Some(number), Some(status)) =
                (decision.customer_id, decision.award_number, decided_status(decision.kind))
            else {
                continue;
            };
            // A later decision about the same award stands in for an earlier one.
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
        let on = "t.customer_id = r.customer_id AND t.number = r.number AND t.status <> 'reversed'";
        for row in join(snapshot, "t.*", "award", keys, on, "").await? {
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
        let what = format!("award {number}, as its budget was decided");
        found.note(customer, id, what, word(recorded), word(decided));
    }
    Ok(())
}
