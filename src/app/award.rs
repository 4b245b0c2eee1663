//! Reads awards: by customer, by key and by the purchase that reached them.

use std::collections::{BTreeSet, HashMap};

use entity::{AwardStatus, CampaignId, CustomerId, award};
use sea_orm::{FromQueryResult, QueryResult, Value};

use super::App;
use super::customer::scope;
use super::error::Error;
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_customers};
use super::rows::{Kind, Rows, join};
use super::stored::history::{Lines, contents};
use super::viewer::Reader;
use crate::engine::purchase::Key;

impl Listed for award::Model {
    const LIST: List = List {
        name: "award",
        table: "award",
        order: &[("earned_at", Kind::Int), ("number", Kind::Int)],
        descending: true,
    };

    fn position(&self) -> Position {
        [Part::Int(self.earned_at), Part::Int(self.number)].into()
    }
}

/// Selects some of a customer's awards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AwardFilter {
    /// Only awards with one of these statuses; without duplicates. `None` selects every status.
    pub statuses: Option<Vec<Status>>,
    /// Only awards of this campaign. `None` selects every campaign.
    pub campaign: Option<CampaignId>,
}

/// Like [`AwardStatus`], but with an order and a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    Standing,
    Reversed,
    Declined,
}

impl From<AwardStatus> for Status {
    fn from(status: AwardStatus) -> Self {
        match status {
            AwardStatus::Standing => Self::Standing,
            AwardStatus::Reversed => Self::Reversed,
            AwardStatus::Declined => Self::Declined,
        }
    }
}

impl Status {
    const fn stored(self) -> &'static str {
        match self {
            Self::Standing => "standing",
            Self::Reversed => "reversed",
            Self::Declined => "declined",
        }
    }
}

impl AwardFilter {
    /// Statuses that few awards have become one search each, in an index that contains no standing awards. Otherwise, all awards
    /// are searched, because most of them stand.
    fn conditions(&self) -> Filter {
        let mut filter = Filter::default();
        let mut row: Vec<Value> = Vec::new();
        if let Some(campaign) = self.campaign {
            filter.sql += " AND s.campaign_id = r.campaign";
            filter.columns.push(("campaign", Kind::Int));
            row.push(campaign.0.into());
        }
        filter.rows = match self.statuses.as_deref() {
            None => vec![row],
            Some(statuses) if statuses.contains(&Status::Standing) => {
                let stored: Vec<String> = statuses.iter().map(|status| format!("'{}'", status.stored())).collect();
                filter.sql += &format!(" AND s.status IN ({})", stored.join(", "));
                vec![row]
            }
            Some(statuses) => {
                // The indexes repeat the first condition.
                filter.sql += " AND s.status <> 'standing' AND s.status = r.status";
                filter.columns.push(("status", Kind::Text));
                let with = |status: &Status| row.iter().cloned().chain([status.stored().into()]).collect();
                statuses.iter().map(with).collect()
            }
        };
        filter
    }
}

/// Loads the same page of the awards of each customer.
pub async fn of_customers_by_page(
    app: &App,
    customers: Vec<CustomerId>,
    page: &Page,
    filter: &AwardFilter,
) -> Result<HashMap<CustomerId, Slice<award::Model>>, Error> {
    of_customers(app.database.read(), customers, page, &filter.conditions(), |row: &award::Model| row.customer_id).await
}

/// Loads awards by key. Leaves out those that the reader may not see.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    keys: Vec<(CustomerId, i64)>,
) -> Result<HashMap<(CustomerId, i64), award::Model>, Error> {
    let scope = scope(app, reader).await?;
    by_keys(app, keys.into_iter().filter(|(customer, _)| scope.sees(*customer)).collect()).await
}

/// Loads awards by key without checking rights: for ledger entries that the reader already sees.
pub async fn by_keys(
    app: &App,
    keys: Vec<(CustomerId, i64)>,
) -> Result<HashMap<(CustomerId, i64), award::Model>, Error> {
    let mut rows = Rows::new(app.database.backend(), &[("customer_id", Kind::Int), ("number", Kind::Int)]);
    for (customer, number) in keys {
        rows.push(vec![customer.0.into(), number.into()]);
    }
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let on = "t.customer_id = r.customer_id AND t.number = r.number";
    let found = models(&join(app.database.read(), "t.*", "award", rows, on, "").await?)?;
    Ok(found.into_iter().map(|row| ((row.customer_id, row.number), row)).collect())
}

/// A purchase whose awards are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reaching {
    pub customer: CustomerId,
    pub key: Key,
    /// Whether other contents of the purchase may have counted. Awards of settled campaigns may have been reached at their instants.
    pub is_revised: bool,
}

/// Loads the reached awards (STANDING and DECLINED) of these purchases, newest first, by customer and external id of the purchase.
pub async fn reached_by(
    app: &App,
    purchases: Vec<Reaching>,
) -> Result<HashMap<(CustomerId, String), Vec<award::Model>>, Error> {
    let revised = purchases.iter().filter(|purchase| purchase.is_revised);
    let revised: Vec<String> = revised.map(|purchase| purchase.key.external_id.clone()).collect();
    let read = app.database.read();
    let mut contents =
        if revised.is_empty() { HashMap::new() } else { contents(read, revised, Lines::LeftOut).await? };
    let mut reaching = BTreeSet::new();
    for Reaching { customer, key, .. } in &purchases {
        reaching.insert((customer.0, key.at.0, key.external_id.clone()));
        let others = contents.remove(&key.external_id).unwrap_or_default();
        reaching.extend(others.into_iter().map(|other| (customer.0, other.purchased_at, other.external_id)));
    }
    let columns = [("customer_id", Kind::Int), ("at", Kind::Int), ("purchase", Kind::Text)];
    let mut rows = Rows::new(app.database.backend(), &columns);
    for (customer, at, external_id) in reaching {
        rows.push(vec![customer.into(), at.into(), external_id.into()]);
    }
    let on = "t.customer_id = r.customer_id AND t.earned_at = r.at AND t.purchase_external_id = r.purchase \
        AND t.status <> 'reversed'";
    let mut reached: HashMap<_, Vec<award::Model>> = HashMap::new();
    for row in models(&join(read, "t.*", "award", rows, on, "ORDER BY t.number DESC").await?)? {
        reached.entry((row.customer_id, row.purchase_external_id.clone())).or_default().push(row);
    }
    Ok(reached)
}

fn models(rows: &[QueryResult]) -> Result<Vec<award::Model>, Error> {
    Ok(rows.iter().map(|row| award::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}
