//! All campaigns as they are at one campaign-set revision, parsed once and kept until the revision moves on.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CampaignId, campaign};
use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Statement};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::node;
use crate::engine::lifecycle::{Life, Status};
use crate::engine::rule::{self, Period, Rule};
use crate::engine::time::Instant;

/// A campaign: its row, and what the engine sees of it.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// As stored.
    pub row: campaign::Model,
    /// What it counts and awards.
    pub rule: Rule,
    /// Its period and recorded transitions.
    pub life: Life,
    /// Points that may stand at once; none: no budget.
    pub budget_limit: Option<i64>,
}

impl Campaign {
    /// Parses the stored parts.
    pub fn of(row: campaign::Model, budget_limit: Option<i64>) -> Result<Self, Error> {
        let broken =
            |part: &str, error: serde_json::Error| Error::Internal(format!("campaign {}: {part}: {error}", row.id.0));
        let rule = serde_json::from_value(row.rule.clone()).map_err(|error| broken("rule", error))?;
        let pauses = serde_json::from_value(row.pauses.clone()).map_err(|error| broken("pauses", error))?;
        let life = Life {
            period: Period { starts_at: Instant(row.starts_at), ends_at: row.ends_at.map(Instant), pauses },
            activated: row.activated_revision.is_some(),
            ended: row.ended,
            settled: row.settled_revision.is_some(),
            boundary: row.boundary.map(Instant),
        };
        Ok(Self { row, rule, life, budget_limit })
    }

    /// For the engine.
    pub fn engine(&self) -> rule::Campaign<'_> {
        rule::Campaign { rule: &self.rule, period: &self.life.period }
    }

    /// Its key.
    pub fn id(&self) -> CampaignId {
        self.row.id
    }

    /// Activated, and new facts still count.
    pub fn counts(&self) -> bool {
        self.life.activated && !self.life.settled
    }

    /// ACTIVE or PAUSED.
    pub fn runs(&self, now: Instant) -> bool {
        matches!(self.life.status(now), Status::Active | Status::Paused)
    }
}

/// Which state of all campaigns it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Grows by one with every change of a campaign. 0: there was none.
    pub number: i64,
    /// Random with every change: keeps revisions apart that repeat after the database went back.
    pub stamp: i64,
}

impl Revision {
    /// From the columns `current_set_revision` and `revision_stamp`, if this program knows the format in the column `format`.
    pub fn of(row: &QueryResult) -> Result<Self, Error> {
        node::check_format(row.try_get("", "format")?)?;
        Ok(Self { number: row.try_get("", "current_set_revision")?, stamp: row.try_get("", "revision_stamp")? })
    }
}

/// All campaigns at one revision, activated ones first in activation order, then drafts.
#[derive(Debug, Default)]
pub struct CampaignSet {
    /// Of the set.
    pub revision: Revision,
    campaigns: Vec<Arc<Campaign>>,
    by_id: HashMap<CampaignId, usize>,
}

impl CampaignSet {
    /// Reads the set, in one statement: the revision and the rows are of one moment.
    pub async fn load(db: &impl ConnectionTrait) -> Result<Self, Error> {
        let sql = "SELECT i.set_revision AS current_set_revision, i.revision_stamp, i.format, b.points_limit, c.* FROM installation i \
            LEFT JOIN campaign c ON c.id = c.id LEFT JOIN budget b ON b.campaign_id = c.id \
            ORDER BY c.activated_revision IS NULL, c.activated_revision, c.id";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let mut set = Self::default();
        for row in rows {
            set.revision = Revision::of(&row)?;
            if row.try_get::<Option<i64>>("", "id")?.is_some() {
                let limit = row.try_get("", "points_limit")?;
                let campaign = Campaign::of(campaign::Model::from_query_result(&row, "")?, limit)?;
                set.by_id.insert(campaign.id(), set.campaigns.len());
                set.campaigns.push(Arc::new(campaign));
            }
        }
        Ok(set)
    }

    /// By key.
    pub fn get(&self, id: CampaignId) -> Option<&Arc<Campaign>> {
        self.by_id.get(&id).map(|index| &self.campaigns[*index])
    }

    /// All, activated ones first in activation order.
    pub fn all(&self) -> &[Arc<Campaign>] {
        &self.campaigns
    }

    /// Those that new facts count for, in activation order.
    pub fn counting(&self) -> impl Iterator<Item = &Arc<Campaign>> {
        self.campaigns.iter().filter(|campaign| campaign.counts())
    }
}

/// The set that this process has seen last.
#[derive(Debug, Default)]
pub struct Campaigns {
    last: Mutex<Arc<CampaignSet>>,
    /// Is cancelled when the database was found to have moved on to a format that this program does not know.
    pub outdated: CancellationToken,
}

impl Campaigns {
    /// The set at the database's current revision, parsed anew only when that moved on. Inside a transaction that holds
    /// the campaign lock it is the set of that transaction.
    pub async fn current(&self, db: &impl ConnectionTrait) -> Result<Arc<CampaignSet>, Error> {
        self.at(db, self.revision(db).await?).await
    }

    /// The campaign-set revision now.
    pub async fn revision(&self, db: &impl ConnectionTrait) -> Result<Revision, Error> {
        let sql = "SELECT set_revision AS current_set_revision, revision_stamp, format FROM installation";
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let row = row.ok_or_else(|| Error::Internal("the database has no installation row".to_owned()))?;
        self.noticed(Revision::of(&row))
    }

    /// Notices where a result says that this program is outdated.
    pub fn noticed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Outdated { .. })) {
            self.outdated.cancel();
        }
        result
    }

    /// The set that this process has seen last.
    pub fn last(&self) -> Arc<CampaignSet> {
        Arc::clone(&self.last.lock())
    }

    /// The set at this revision, if it is the one that this process has seen last.
    pub fn known(&self, revision: Revision) -> Option<Arc<CampaignSet>> {
        // Revision 0 is also that of the empty set that no database has been asked for; it is right there too.
        Some(self.last()).filter(|last| last.revision == revision)
    }

    /// The set at this revision, which was read just now. If the database has moved on since: a later one.
    pub async fn at(&self, db: &impl ConnectionTrait, revision: Revision) -> Result<Arc<CampaignSet>, Error> {
        if let Some(known) = self.known(revision) {
            return Ok(known);
        }
        let set = Arc::new(CampaignSet::load(db).await?);
        // Whichever it is: it is used only by who finds the database at this very revision.
        *self.last.lock() = Arc::clone(&set);
        Ok(set)
    }
}
