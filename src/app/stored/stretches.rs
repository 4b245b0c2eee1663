//! Stretches of customers' histories in SQL: the rows `r`, which contain the stretches, and the condition that a stored row is
//! in one of them.

use entity::{CampaignId, CustomerId};
use sea_orm::{DatabaseBackend, DbErr, QueryResult};

use crate::app::rows::{Kind, Rows};
use crate::engine::purchase::Key;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The column with the index of a stretch among those of the statement. Statements select it, and [`index`] reads it.
pub const INDEX: &str = "r.stretch";

/// Returns the index of the stretch that a selected row belongs to.
pub fn index(row: &QueryResult) -> Result<usize, DbErr> {
    Ok(usize::try_from(row.try_get::<i64>("", "stretch")?).unwrap_or(usize::MAX))
}

/// Which ends of a stretch a statement uses, and whether the ends belong to the stretch.
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
    /// Returns the operators that compare a key with `after` and with `to`.
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

/// The kinds of rows that have a place in the order of a customer's purchases.
#[derive(Clone, Copy, Debug)]
pub enum Stored {
    /// Purchases, placed by their own key.
    Purchases,
    /// Checkpoints of a campaign, placed by the last purchase that they count.
    Checkpoints,
    /// Awards of a campaign, placed by the purchase that reached them.
    Awards,
}

/// The stretches that a statement looks for.
pub struct Stretches {
    rows: Rows,
    count: i64,
}

impl Stretches {
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
        // Purchases do not belong to a campaign, so conditions on them ignore this id.
        self.push_in(customer, CampaignId(0), stretch);
    }

    /// Adds a stretch of the checkpoints or awards of a customer in a campaign.
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

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the rows `r` of the statement.
    pub fn into_rows(self) -> Rows {
        self.rows
    }
}

/// Returns the condition that a row `alias` is in the stretch `r`.
///
/// An end that is not needed is omitted, because PostgreSQL assumes that a range with two ends is short. It would then sort the
/// whole range instead of reading its beginning in the order of an index.
pub fn lies_in(alias: &str, stored: Stored, ends: Ends) -> String {
    let (after, to) = ends.operators();
    // COALESCE, because the rows `r` contain null instead of an empty text.
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
            // Compared as pairs, so that the index is searched by both columns. Otherwise each page would read all purchases of
            // the same instant again.
            Stored::Purchases => format!("({at}, {id}) {operator} ({end_at}, {end_id})"),
            // With a separate bound on the instant. These tables have several indexes, and PostgreSQL cannot estimate how many
            // rows match a comparison of pairs.
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
