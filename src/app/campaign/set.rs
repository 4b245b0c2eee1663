//! The set of all campaigns at one revision. A process parses the set once and keeps it until the revision changes.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{CampaignId, campaign};
use parking_lot::Mutex;
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Statement};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::app::error::Error;
use crate::app::node;
use crate::app::stored::erased_name::ErasureKey;
use crate::engine::lifecycle::{Life, Status};
use crate::engine::rule::{self, Period, Rule};
use crate::engine::time::Instant;

/// A campaign: its row, and the parsed parts that the engine uses.
#[derive(Clone, Debug)]
pub struct Campaign {
    pub row: campaign::Model,
    /// What the campaign counts and awards.
    pub rule: Rule,
    /// The period and the recorded transitions of the campaign.
    pub life: Life,
    /// How many points may stand at the same time. `None` without a budget.
    pub budget_limit: Option<i64>,
}

impl Campaign {
    /// Parses the stored parts of a campaign.
    pub fn from_row(row: campaign::Model, budget_limit: Option<i64>) -> Result<Self, Error> {
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

    /// Returns the campaign as the engine uses it.
    pub fn engine(&self) -> rule::Campaign<'_> {
        let settled_revision = self.row.settled_revision;
        rule::Campaign { rule: &self.rule, period: &self.life.period, settled_revision }
    }

    pub fn id(&self) -> CampaignId {
        self.row.id
    }

    /// Whether new facts count: the campaign is activated and not settled.
    pub fn counts(&self) -> bool {
        self.life.activated && !self.life.settled
    }

    /// Whether the campaign is ACTIVE or PAUSED.
    pub fn runs(&self, now: Instant) -> bool {
        matches!(self.life.status(now), Status::Active | Status::Paused)
    }
}

/// Identifies one state of the set of all campaigns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Grows by one with every change of the set. 0 if there has been none.
    pub number: i64,
    /// A new random number for every change. It distinguishes revisions with the same number if a backup of the database was
    /// restored in between.
    pub stamp: i64,
}

impl Revision {
    /// Reads the columns `current_set_revision` and `revision_stamp`. Fails if this program does not support the format in the
    /// column `format`.
    pub fn from_row(row: &QueryResult) -> Result<Self, Error> {
        node::check_format(row.try_get("", "format")?)?;
        Ok(Self { number: row.try_get("", "current_set_revision")?, stamp: row.try_get("", "revision_stamp")? })
    }
}

/// All campaigns at one revision: activated ones in activation order, then drafts.
#[derive(Debug, Default)]
pub struct CampaignSet {
    /// The revision of the set.
    pub revision: Revision,
    /// The key of the names of erased customers. `None` if no customer was ever erased. Part of the set, so that every batch knows
    /// it without a statement.
    pub erasure_key: Option<ErasureKey>,
    /// Whether refunds may wait for their purchase. Part of the set for the same reason.
    pub keeps_facts: bool,
    /// Whether commits write events to the outbox. Part of the set for the same reason.
    pub keeps_events: bool,
    campaigns: Vec<Arc<Campaign>>,
    by_id: HashMap<CampaignId, usize>,
}

impl CampaignSet {
    /// Loads the set. A single statement reads the revision and the rows, so that they belong together.
    pub async fn load(db: &impl ConnectionTrait) -> Result<Self, Error> {
        let sql = "SELECT i.set_revision AS current_set_revision, i.revision_stamp, i.format, i.erasure_key, i.keeps_facts, \
            i.keeps_events, b.points_limit, c.* FROM installation i \
            LEFT JOIN campaign c ON c.id = c.id LEFT JOIN budget b ON b.campaign_id = c.id \
            ORDER BY c.activated_revision IS NULL, c.activated_revision, c.id";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let mut set = Self::default();
        for row in rows {
            set.revision = Revision::from_row(&row)?;
            set.erasure_key = row.try_get::<Option<String>>("", "erasure_key")?.map(ErasureKey::stored);
            set.keeps_facts = row.try_get::<i64>("", "keeps_facts")? > 0;
            set.keeps_events = row.try_get::<i64>("", "keeps_events")? > 0;
            if row.try_get::<Option<i64>>("", "id")?.is_some() {
                let limit = row.try_get("", "points_limit")?;
                let campaign = Campaign::from_row(campaign::Model::from_query_result(&row, "")?, limit)?;
                set.by_id.insert(campaign.id(), set.campaigns.len());
                set.campaigns.push(Arc::new(campaign));
            }
        }
        Ok(set)
    }

    /// Finds a campaign by its key.
    pub fn get(&self, id: CampaignId) -> Option<&Arc<Campaign>> {
        self.by_id.get(&id).map(|index| &self.campaigns[*index])
    }

    /// Returns all campaigns: activated ones in activation order, then drafts.
    pub fn all(&self) -> &[Arc<Campaign>] {
        &self.campaigns
    }

    /// Returns the campaigns that new facts count for, in activation order.
    pub fn counting(&self) -> impl Iterator<Item = &Arc<Campaign>> {
        self.campaigns.iter().filter(|campaign| campaign.counts())
    }
}

/// The set that this process loaded last.
#[derive(Debug, Default)]
pub struct Campaigns {
    last: Mutex<Arc<CampaignSet>>,
    /// Cancelled as soon as the database is found to have a newer format than this program supports.
    pub outdated: CancellationToken,
}

impl Campaigns {
    /// Returns the set at the current revision of the database. Loads it only if the revision has changed. A transaction that
    /// holds the campaign lock gets the set that is valid until the transaction ends.
    pub async fn current(&self, db: &impl ConnectionTrait) -> Result<Arc<CampaignSet>, Error> {
        self.at(db, self.revision(db).await?).await
    }

    /// Reads the current revision of the campaign set.
    pub async fn revision(&self, db: &impl ConnectionTrait) -> Result<Revision, Error> {
        let sql = "SELECT set_revision AS current_set_revision, revision_stamp, format FROM installation";
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
        let row = row.ok_or_else(|| Error::Internal("the database has no installation row".to_owned()))?;
        self.noticed(Revision::from_row(&row))
    }

    /// Returns the result unchanged. Cancels [`Self::outdated`] if the result says that this program is outdated.
    pub fn noticed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Outdated { .. })) {
            self.outdated.cancel();
        }
        result
    }

    /// Returns the set that this process loaded last. It may be outdated.
    pub fn last(&self) -> Arc<CampaignSet> {
        Arc::clone(&self.last.lock())
    }

    /// Returns the set at this revision, if it is the one that this process loaded last.
    pub fn known(&self, revision: Revision) -> Option<Arc<CampaignSet>> {
        // The initial empty set has revision 0, too. That is correct: at revision 0, there are no campaigns.
        Some(self.last()).filter(|last| last.revision == revision)
    }

    /// Returns the set at this revision, which the caller has just read. Returns a later set if the revision has changed since.
    pub async fn at(&self, db: &impl ConnectionTrait, revision: Revision) -> Result<Arc<CampaignSet>, Error> {
        if let Some(known) = self.known(revision) {
            return Ok(known);
        }
        let set = Arc::new(CampaignSet::load(db).await?);
        // The set may be older than the one that it replaces. That does no harm: `known` compares revisions.
        *self.last.lock() = Arc::clone(&set);
        Ok(set)
    }
}
