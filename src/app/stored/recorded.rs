//! Purchases as they are recorded, with what tells whether a settled campaign counts them.

use std::borrow::Cow;

use entity::{purchase, refund};
use sea_orm::ConnectionTrait;

use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::stored::history::FirstRows;
use crate::app::stored::{history, purchase as purchases, refund as refunds};
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;

/// The rows with their refunds, in order, and the last of them where more may follow.
pub async fn with_refunds(
    db: &impl ConnectionTrait,
    first: Vec<FirstRows>,
) -> Result<Vec<(Vec<Recorded>, Option<Key>)>, Error> {
    let ids = first.iter().flat_map(|first| &first.rows).map(|row| row.external_id.clone());
    let refunds = history::refunds(db, ids).await?;
    let recorded =
        |row: &purchase::Model| Recorded::of(row, refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default());
    let stretch = |FirstRows { rows, more }: FirstRows| {
        let recorded = rows.iter().map(recorded).collect::<Result<Vec<_>, _>>()?;
        let cut_at = recorded.last().filter(|_| more).map(|last| last.purchase.key.clone());
        Ok((recorded, cut_at))
    };
    first.into_iter().map(stretch).collect()
}

/// A purchase with the campaign-set revisions of its commit and of its refunds'.
#[derive(Clone)]
pub struct Recorded {
    /// With its refunds.
    pub purchase: Purchase,
    set_revision: i64,
    refund_set_revisions: Vec<i64>,
}

impl Recorded {
    /// From its row and those of all its refunds.
    pub fn of(row: &purchase::Model, refunds: &[refund::Model]) -> Result<Self, Error> {
        let refund_set_revisions = refunds.iter().map(|refund| refund.set_revision).collect();
        let refunds = refunds.iter().map(refunds::from_row).collect::<Result<_, _>>()?;
        Ok(Self { purchase: purchases::from_row(row, refunds)?, set_revision: row.set_revision, refund_set_revisions })
    }

    /// What of it counts for the campaign.
    pub fn eligible_for(&self, campaign: &Campaign) -> Option<Eligible> {
        campaign.engine().eligible(self.counted_by(campaign)?.as_ref())
    }

    /// The purchase as the campaign sees it: once it settled, without what was recorded since.
    fn counted_by(&self, campaign: &Campaign) -> Option<Cow<'_, Purchase>> {
        let Some(settled) = campaign.row.settled_revision else { return Some(Cow::Borrowed(&self.purchase)) };
        if self.set_revision >= settled {
            return None;
        }
        let mut purchase = self.purchase.clone();
        let mut set_revisions = self.refund_set_revisions.iter();
        purchase.refunds.retain(|_| set_revisions.next().is_some_and(|set_revision| *set_revision < settled));
        Some(Cow::Owned(purchase))
    }
}
