//! Stretches of customers' histories in SQL: the rows `r` that name them, and the condition that a stored row lies in one.

use entity::{CampaignId, CustomerId};
use sea_orm::{DatabaseBackend, DbErr, QueryResult};

use crate::app::rows::{Kind, Rows};
use crate::engine::purchase::Key;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The column that holds a stretch's place among those of the statement, to be selected and read with [`index`].
pub const INDEX: &str = "r.stretch";

/// The place of the row's stretch among those of the statement.
pub fn index(row: &QueryResult) -> Result<usize, DbErr> {
    Ok(usize::try_from(row.try_get::<i64>("", "stretch")?).unwrap_or(usize::MAX))
}

/// Which ends of a stretch a statement looks at, and whether they belong to it.
#[derive(Clone, Copy, Debug)]
pub enum Ends {
    /// `after < key <= to`, as [`Stretch`] defines it.
    AfterTo,
    /// `after <= key <= to`.
    FromTo,
    /// `after < key < to`.
    Between,
    /// `key < to`: the statement ignores `after`.
    Before,
    /// `key <= to`: the statement ignores `after`.
    UpTo,
    /// `after < key`: the statement ignores `to`.
    After,
}

impl Ends {
    /// How a key is compared with `after` and with `to`.
    fn operators(self) -> (Option<&'static str>, Option<&'static str>) {
        match self {
            Self::AfterTo => (Some(">"), Some("<=")),
            Self::FromTo => (Some(">="), Some("<=")),
            Self::Between => (Some(">"), Some("<")),
            Self::Before => (None, Some("<")),
            Self::UpTo => (None, Some("<=")),
            Self::After => (Some(">"), None),
        }
    }
}

/// Stored rows that have a place in a customer's order.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// By their own key.
    Purchases,
    /// Of a campaign, by the last purchase that they count.
    Checkpoints,
    /// Of a campaign, by the purchase that reached them.
    Awards,
}

/// The stretches that a statement looks for.
pub struct Stretches {
    rows: Rows,
    count: i64,
}

impl Stretches {
    /// An empty list.
    pub fn new(backend: DatabaseBackend) -> Self {
        let columns = [
            ("stretch", Kind::Int),
            ("customer_id", Kind::Int),
            ("campaign_id", Kind::Int),
            ("after_at", Kind::Int),
            ("after_id", Kind::Text),
            ("to_at", Kind::Int),
            ("to_id", Kind::Text),
        ];
        Self { rows: Rows::new(backend, &columns), count: 0 }
    }

    /// Adds a stretch of a customer's purchases.
    pub fn push(&mut self, customer: CustomerId, stretch: &Stretch) {
        // No campaign has this id, and no purchase belongs to one.
        self.push_in(customer, CampaignId(0), stretch);
    }

    /// Adds a stretch of what a customer has in a campaign.
    pub fn push_in(&mut self, customer: CustomerId, campaign: CampaignId, stretch: &Stretch) {
        let after = stretch.after.clone().unwrap_or_else(|| Key::before(Instant::EPOCH));
        let to = stretch.to.clone().unwrap_or_else(|| Key::before(Instant::FOREVER));
        self.rows.push(vec![
            self.count.into(),
            customer.0.into(),
            campaign.0.into(),
            after.at.0.into(),
            after.external_id.into(),
            to.at.0.into(),
            to.external_id.into(),
        ]);
        self.count += 1;
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows `r`.
    pub fn into_rows(self) -> Rows {
        self.rows
    }
}

/// The condition that a row `alias` lies in the stretch `r`.
///
/// An end that is not needed is left out: PostgreSQL takes a range with two ends for a short one, and would then sort it as a whole
/// instead of reading its beginning in the order of an index.
pub fn lies_in(alias: &str, stored: Stored, ends: Ends) -> String {
    let (after, to) = ends.operators();
    // COALESCE: an empty text is null among the rows `r`.
    let after = after.map(|operator| (operator, "r.after_at", "COALESCE(r.after_id, '')"));
    let to = to.map(|operator| (operator, "r.to_at", "COALESCE(r.to_id, '')"));
    let mut conditions = vec![format!("{alias}.customer_id = r.customer_id")];
    let (at, id) = match stored {
        Stored::Purchases | Stored::Checkpoints => ("purchased_at", "external_id"),
        Stored::Awards => ("earned_at", "purchase_external_id"),
    };
    let (at, id) = (format!("{alias}.{at}"), format!("{alias}.{id}"));
    for (operator, end_at, end_id) in after.into_iter().chain(to) {
        conditions.push(match stored {
            // As pairs: the index is searched by both columns, so many purchases of one instant are not read again for each page.
            Stored::Purchases => format!("({at}, {id}) {operator} ({end_at}, {end_id})"),
            // With a bare bound on the instant: these tables have several indexes, and PostgreSQL cannot estimate pairs.
            Stored::Checkpoints | Stored::Awards => {
                let strict = operator.trim_end_matches('=');
                format!("{at} {strict}= {end_at} AND ({at} {strict} {end_at} OR {id} {operator} {end_id})")
            }
        });
    }
    if !matches!(stored, Stored::Purchases) {
        conditions.push(format!("{alias}.campaign_id = r.campaign_id"));
    }
    conditions.join(" AND ")
}
