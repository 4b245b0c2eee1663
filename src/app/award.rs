//! Awards between the engine and their table; reading them.

use std::collections::HashMap;

use entity::{AwardStatus, CampaignId, CustomerId, award};
use sea_orm::{FromQueryResult, QueryResult};

use super::App;
use super::customer::scope;
use super::error::Error;
use super::page::{Filter, List, Listed, Page, Part, Position, Slice, of_customers};
use super::rows::{Kind, Rows, join};
use super::viewer::Reader;

use crate::engine::award::Reached;
use crate::engine::diff::Recorded;
use crate::engine::purchase::Key;
use crate::engine::time::Instant;
use crate::engine::window::Interval;

/// The key of the purchase that reached it.
pub fn reaching_key(row: &award::Model) -> Key {
    Key { at: Instant(row.earned_at), external_id: row.purchase_external_id.clone() }
}

/// The key of the first purchase of its evidence.
pub fn evidence_key(row: &award::Model) -> Key {
    Key { at: Instant(row.evidence_from_at), external_id: row.evidence_from_external_id.clone() }
}

/// Its window, unclipped.
pub fn window(row: &award::Model) -> Interval {
    Interval { opens: Instant(row.opens_at), closes: row.closes_at.map_or(Instant::FOREVER, Instant) }
}

/// As the engine compares it.
pub fn recorded(row: &award::Model) -> Recorded {
    Recorded {
        number: row.number,
        standing: row.status == AwardStatus::Standing,
        reached: Reached {
            by: reaching_key(row),
            nth: row.nth,
            ordinal: row.ordinal,
            points: row.points,
            window: window(row),
            evidence_from: evidence_key(row),
        },
    }
}

/// A new award's row.
pub fn to_row(
    reached: &Reached,
    customer_id: CustomerId,
    number: i64,
    campaign_id: CampaignId,
    status: AwardStatus,
    version: i64,
) -> award::Model {
    let closes = reached.window.closes;
    award::Model {
        customer_id,
        number,
        campaign_id,
        purchase_external_id: reached.by.external_id.clone(),
        nth: reached.nth,
        ordinal: reached.ordinal,
        points: reached.points,
        status,
        earned_at: reached.by.at.0,
        opens_at: reached.window.opens.0,
        closes_at: (closes != Instant::FOREVER).then_some(closes.0),
        evidence_from_at: reached.evidence_from.at.0,
        evidence_from_external_id: reached.evidence_from.external_id.clone(),
        version,
    }
}

/// The row of a recorded award that is reached otherwise now.
pub fn moved_to(row: &award::Model, reached: &Reached, version: i64) -> award::Model {
    to_row(reached, row.customer_id, row.number, row.campaign_id, row.status, version)
}

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

/// Which of a customer's awards are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AwardFilter {
    /// Of one of these, none of them twice; none: of any.
    pub statuses: Option<Vec<Status>>,
    /// Of this campaign; none: of any.
    pub campaign: Option<CampaignId>,
}

/// [`AwardStatus`], with an order and a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names of AwardStatus")]
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
    const ALL: [Self; 3] = [Self::Standing, Self::Reversed, Self::Declined];

    /// As stored.
    const fn stored(self) -> &'static str {
        match self {
            Self::Standing => "standing",
            Self::Reversed => "reversed",
            Self::Declined => "declined",
        }
    }
}

impl AwardFilter {
    /// One range of an index for each status: of a campaign's awards, or of all.
    fn conditions(&self) -> Filter {
        if *self == Self::default() {
            return Filter::default();
        }
        let of_campaign = self.campaign.map(|campaign| (" AND s.campaign_id = r.campaign", campaign));
        let mut columns = vec![("status", Kind::Text)];
        columns.extend(of_campaign.map(|_| ("campaign", Kind::Int)));
        let row = |status: &Status| {
            let campaign = of_campaign.map(|(_, campaign)| campaign.0.into());
            std::iter::once(status.stored().into()).chain(campaign).collect()
        };
        let statuses = self.statuses.as_deref().unwrap_or(&Status::ALL);
        let sql = " AND s.status = r.status".to_owned() + of_campaign.map_or("", |(sql, _)| sql);
        Filter { sql, columns, rows: statuses.iter().map(row).collect() }
    }
}

/// The same page of each customer's awards.
pub async fn of_customers_by_page(
    app: &App,
    customers: Vec<CustomerId>,
    page: &Page,
    filter: &AwardFilter,
) -> Result<HashMap<CustomerId, Slice<award::Model>>, Error> {
    of_customers(app.database.read(), customers, page, &filter.conditions(), |row: &award::Model| row.customer_id).await
}

/// Those of these awards that the reader may see.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    keys: Vec<(CustomerId, i64)>,
) -> Result<HashMap<(CustomerId, i64), award::Model>, Error> {
    let scope = scope(app, reader).await?;
    by_keys(app, keys.into_iter().filter(|(customer, _)| scope.sees(*customer)).collect()).await
}

/// Awards by key: of ledger entries that the reader has been shown.
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

/// The reached awards (STANDING and DECLINED) of these purchases, newest first.
pub async fn reached_by(
    app: &App,
    purchases: Vec<(CustomerId, Key)>,
) -> Result<HashMap<(CustomerId, Key), Vec<award::Model>>, Error> {
    let columns = [("customer_id", Kind::Int), ("at", Kind::Int), ("purchase", Kind::Text)];
    let mut rows = Rows::new(app.database.backend(), &columns);
    for (customer, key) in &purchases {
        rows.push(vec![customer.0.into(), key.at.0.into(), key.external_id.clone().into()]);
    }
    let on = "t.customer_id = r.customer_id AND t.earned_at = r.at AND t.purchase_external_id = r.purchase \
        AND t.status <> 'reversed'";
    let mut reached: HashMap<_, Vec<award::Model>> = purchases.into_iter().map(|key| (key, Vec::new())).collect();
    for row in models(&join(app.database.read(), "t.*", "award", rows, on, "ORDER BY t.number DESC").await?)? {
        reached.entry((row.customer_id, reaching_key(&row))).or_default().push(row);
    }
    Ok(reached)
}

fn models(rows: &[QueryResult]) -> Result<Vec<award::Model>, Error> {
    Ok(rows.iter().map(|row| award::Model::from_query_result(row, "")).collect::<Result<_, _>>()?)
}
