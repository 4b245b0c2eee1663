//! A customer as it is at one commit: all that a balance, progress and the latest awards are told from, free of the clock.
//!
//! Snapshots are entries of the cache. One never changes: its key contains all that it depends on, so one that is found under
//! the version that a look-up told is current. It is loaded in one read-only transaction that sees one moment, and kept under
//! the version that this transaction saw. Where the clock moves on and asks for purchases that were not loaded, the snapshot
//! does not hold any more and is loaded again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entity::{CampaignId, CustomerId, award, customer};
use sea_orm::{ConnectionTrait, EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant as Moment;

use super::App;
use super::campaigns::{Campaign, CampaignSet, Campaigns, Revision};
use super::clock::Clock;
use super::database::Database;
use super::error::Error;
use super::history::{self, Lines, Span};
use super::lookup::{self, Head, Heads, Lookups};
use super::page::{Filter, Listed as _, Page, PageArgs, Slice, of_customers};
use super::rows::any;
use super::running::Running;
use crate::cache::redis::Redis;
use crate::cache::{Cache, Found, Loaded, Tier};
use crate::config;
use crate::engine::evaluate::Range;
use crate::engine::progress::reads;
use crate::engine::purchase::Key;
use crate::engine::rule::Eligible;
use crate::engine::time::Instant;
use crate::metrics;

/// Changes with the snapshot's fields and with what the engine computes from them: entries of other formats are not found.
const FORMAT: u32 = 2;
/// Awards of a snapshot: the page that is asked for by default, and one more that tells whether it is the last.
const RECENT_AWARDS: usize = 21;
/// Loads at once, at least. There are as many as the connections that writers and look-ups leave: where there are enough of them,
/// loads take none from these, whatever happens to the cache.
const MIN_LOADS: usize = 2;
/// So much earlier than the load's clock the reader's may be, µs: readers that came before, nodes whose clocks differ.
const CLOCK_MARGIN: i64 = 60_000_000;
/// Of so many hits, one is held against the database.
const HITS_PER_CHECK: u64 = 1_000;
/// How often a read begins anew because campaigns changed under it.
const MAX_ATTEMPTS: usize = 4;

/// A customer at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its row.
    pub customer: Arc<customer::Model>,
    /// The campaign-set revision of that moment.
    pub revision: Revision,
    /// Where it stands in each campaign.
    pub running: Running,
    /// What progress needs beside that, by campaign.
    extra: BTreeMap<CampaignId, Box<Extra>>,
    /// The newest, in their list's order.
    awards: Vec<Arc<award::Model>>,
}

/// Purchases that count in a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Extra {
    /// Of the customer's order.
    range: Range,
    /// All inside the range, in order.
    purchases: Vec<Eligible>,
}

impl Extra {
    fn within(&self, range: &Range) -> impl Iterator<Item = &Eligible> {
        self.purchases.iter().filter(|purchase| range.contains(&purchase.key))
    }
}

/// A snapshot, with the campaigns of its revision.
#[derive(Clone, Debug)]
pub struct View {
    /// The customer.
    pub snapshot: Arc<Snapshot>,
    /// Of the same revision.
    pub campaigns: Arc<CampaignSet>,
    /// Where it was found.
    pub tier: Tier,
    /// When its version was looked up: it is not older than this.
    pub at: Moment,
}

impl Snapshot {
    /// Whether all is here that progress at `now` is told from.
    fn holds(&self, campaigns: &CampaignSet, now: Instant) -> bool {
        let mut running = campaigns.all().iter().filter(|campaign| campaign.runs(now));
        running.all(|campaign| self.purchases(campaign, now).is_some())
    }

    /// What the engine reads beside the running state to tell the campaign's progress at `now`; none: it is not here.
    pub fn purchases(&self, campaign: &Campaign, now: Instant) -> Option<Vec<Eligible>> {
        let state = self.running.get(campaign.id()).map(|standing| &standing.state);
        let needed = state.and_then(|state| reads(campaign.engine(), state, now));
        let Some(needed) = needed else { return Some(Vec::new()) };
        let extra = self.extra.get(&campaign.id()).filter(|extra| extra.range.covers(&needed))?;
        Some(extra.within(&needed).cloned().collect())
    }

    /// Whether both say the same, as far as both say anything: the clock decides which purchases were loaded.
    fn agrees(&self, other: &Self) -> bool {
        let same_purchases = self.extra.iter().all(|(campaign, mine)| {
            other.extra.get(campaign).is_none_or(|theirs| mine.within(&theirs.range).eq(theirs.within(&mine.range)))
        });
        self.customer == other.customer
            && self.running == other.running
            && self.awards == other.awards
            && same_purchases
    }

    /// A page of all the customer's awards; none: it is not among the newest, which are here.
    pub fn awards(&self, page: &Page) -> Option<Slice<Arc<award::Model>>> {
        let is_first = !page.is_backward() && page.after().is_none() && page.before().is_none();
        let all = self.awards.len() < RECENT_AWARDS;
        (is_first && (all || page.fetched() <= RECENT_AWARDS)).then(|| {
            let rows = self.awards.iter().take(page.fetched()).cloned().collect();
            page.cut(rows)
        })
    }
}

/// Reads snapshots.
pub struct Snapshots {
    cache: Arc<Cache<Snapshot, Error>>,
    lookups: Lookups,
    loader: Loader,
    hits: AtomicU64,
    campaigns_turn: Mutex<()>,
}

/// What a load needs.
#[derive(Clone)]
struct Loader {
    database: Database,
    clock: Clock,
    campaigns: Arc<Campaigns>,
    turns: Arc<Semaphore>,
}

impl Snapshots {
    /// Over a database.
    pub(super) fn start(
        database: &Database,
        clock: &Clock,
        campaigns: &Arc<Campaigns>,
        config: &config::Cache,
        writers: u32,
        redis: Option<Redis>,
    ) -> Self {
        let taken = writers as usize + lookup::WORKERS;
        let loads = database.max_connections().saturating_sub(taken).max(MIN_LOADS);
        Self {
            cache: Arc::new(Cache::new(config.l1_bytes, redis)),
            lookups: Lookups::start(database, config.max_staleness),
            hits: AtomicU64::new(0),
            campaigns_turn: Mutex::default(),
            loader: Loader {
                database: database.clone(),
                clock: clock.clone(),
                campaigns: Arc::clone(campaigns),
                turns: Arc::new(Semaphore::new(loads)),
            },
        }
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Cache<Snapshot, Error> {
        &self.cache
    }

    /// These customers (by external id) as they are now, each at least of the version that stands with it if there is such.
    /// Those that have no row are not there.
    pub async fn find(&self, names: &[(String, Option<i64>)]) -> Result<HashMap<String, View>, Error> {
        for attempt in 0..MAX_ATTEMPTS {
            let remembered = (attempt == 0).then(|| self.loader.campaigns.last().revision);
            let heads = self.loader.campaigns.noticed(self.lookups.of(names, remembered).await)?;
            if heads.customers.is_empty() {
                return Ok(HashMap::new());
            }
            if let Some(found) = self.views(&heads).await? {
                return Ok(found);
            }
        }
        Err(Error::Unavailable)
    }

    /// A customer of which this row was read, as it is now.
    pub async fn of_rows(&self, rows: &[Arc<customer::Model>]) -> Result<HashMap<CustomerId, View>, Error> {
        let names: Vec<_> = rows.iter().map(|row| (row.external_id.clone(), Some(row.version))).collect();
        let found = self.find(&names).await?;
        Ok(found.into_values().map(|view| (view.snapshot.customer.id, view)).collect())
    }

    /// Whether the database says the same as this view of the same version; none: the version is gone, or nobody answers.
    pub async fn check(&self, view: &View) -> Option<bool> {
        self.loader.check(&view.snapshot).await
    }

    /// None: campaigns changed under it.
    async fn views(&self, heads: &Heads) -> Result<Option<HashMap<String, View>>, Error> {
        let Heads { revision, ref installation, ref customers, at } = *heads;
        let Loader { database, clock, campaigns, .. } = &self.loader;
        let set = match campaigns.known(revision) {
            Some(set) => set,
            None => {
                // Once for all who wait; no writer ever does.
                let _turn = self.campaigns_turn.lock().await;
                campaigns.at(database.read(), revision).await?
            }
        };
        // If campaigns changed since the look-up it is a later one, which is as good: what is found under it is not older.
        let keyed = |(name, head): (&String, &Head)| (key(installation, *head, set.revision), (name.clone(), head.id));
        let by_key: Arc<HashMap<String, (String, CustomerId)>> = Arc::new(customers.iter().map(keyed).collect());
        let (now, held_against) = (clock.now(), Arc::clone(&set));
        let holds = move |snapshot: &Snapshot| snapshot.holds(&held_against, now);
        let (loader, installation, wanted) = (self.loader.clone(), Arc::clone(installation), Arc::clone(&by_key));
        let load = move |missing: Vec<String>| async move { loader.load(&installation, missing, &wanted).await };
        let found = self.cache.get(by_key.keys().cloned().collect(), holds, load).await?;
        let mut views = HashMap::with_capacity(found.len());
        for (key, Found { value: snapshot, tier }) in found {
            let Some((name, _)) = by_key.get(&key) else { continue };
            // What was loaded is of now, and so may its campaigns be.
            let known = if snapshot.revision == set.revision {
                Some(Arc::clone(&set))
            } else {
                campaigns.known(snapshot.revision)
            };
            let Some(campaigns) = known else { return Ok(None) };
            if tier != Tier::Sql && (self.hits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(HITS_PER_CHECK) {
                let (loader, snapshot) = (self.loader.clone(), Arc::clone(&snapshot));
                tokio::spawn(async move { loader.check(&snapshot).await });
            }
            views.insert(name.clone(), View { snapshot, campaigns, tier, at });
        }
        Ok(Some(views))
    }
}

/// Contains all that the entry depends on.
fn key(installation: &str, head: Head, campaigns: Revision) -> String {
    let Head { id, version, stamp } = head;
    let Revision { number, stamp: campaigns_stamp } = campaigns;
    format!("windfall:{installation}:{FORMAT}:{}:{version}:{stamp:x}:{number}:{campaigns_stamp:x}", id.0)
}

impl Loader {
    /// The customers of these keys as they are now, all in one transaction.
    #[tracing::instrument(skip_all, fields(customers = missing.len()))]
    async fn load(
        &self,
        installation: &str,
        missing: Vec<String>,
        wanted: &HashMap<String, (String, CustomerId)>,
    ) -> Result<Vec<Loaded<Snapshot>>, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::Unavailable)?;
        let began = Moment::now();
        let id_of = |key: &String| wanted.get(key).map(|(_, id)| *id);
        let ids = missing.iter().filter_map(id_of).collect();
        let mut snapshots = self.read(ids).await?;
        ::metrics::histogram!(metrics::CACHE_LOAD_SECONDS).record(began.elapsed().as_secs_f64());
        let loaded = missing.into_iter().filter_map(|missing| {
            let value = snapshots.remove(&id_of(&missing)?)?;
            let customer::Model { id, version, stamp, .. } = *value.customer;
            let key = key(installation, Head { id, version, stamp }, value.revision);
            Some(Loaded { wanted: missing, key, value })
        });
        Ok(loaded.collect())
    }

    /// Whether the database says the same of this version, if it still has it; none: it has not, or it does not answer.
    async fn check(&self, snapshot: &Snapshot) -> Option<bool> {
        // What is checked is no reason to let readers wait.
        let _turn = self.turns.try_acquire().ok()?;
        let id = snapshot.customer.id;
        let now = self.read(vec![id]).await.ok()?.remove(&id)?;
        let same_version = now.customer.version == snapshot.customer.version
            && now.customer.stamp == snapshot.customer.stamp
            && now.revision == snapshot.revision;
        if !same_version {
            return None;
        }
        ::metrics::counter!(metrics::CACHE_DRIFT_CHECKS).increment(1);
        let same = snapshot.agrees(&now);
        if !same {
            ::metrics::counter!(metrics::CACHE_DRIFT).increment(1);
            let (customer, version) = (id.0, now.customer.version);
            tracing::error!(customer, version, "the cache has another customer than the database: please report this");
        }
        Some(same)
    }

    async fn read(&self, ids: Vec<CustomerId>) -> Result<HashMap<CustomerId, Snapshot>, Error> {
        let tx = self.database.snapshot().await?;
        let set = self.campaigns.current(&tx).await?;
        let now = self.clock.now();
        let keyed = any(self.database.backend(), customer::Column::Id, ids.iter().map(|id| id.0));
        let rows = customer::Entity::find().filter(keyed).all(&tx).await?;
        let mut snapshots = HashMap::with_capacity(rows.len());
        for row in rows {
            let running = Running::parse(&row.running)?;
            let extra = needs(&running, &set, now);
            let (id, customer) = (row.id, Arc::new(row));
            snapshots.insert(id, Snapshot { customer, revision: set.revision, running, extra, awards: Vec::new() });
        }
        fill(&tx, &mut snapshots, &set).await?;
        let page =
            award::Model::LIST.page(PageArgs { first: i32::try_from(RECENT_AWARDS).ok(), ..PageArgs::default() })?;
        let owner = |row: &award::Model| row.customer_id;
        for (id, slice) in of_customers(&tx, snapshots.keys().copied(), &page, &Filter::default(), owner).await? {
            if let Some(snapshot) = snapshots.get_mut(&id) {
                snapshot.awards = slice.rows.into_iter().map(Arc::new).collect();
            }
        }
        tx.commit().await?;
        Ok(snapshots)
    }
}

/// The ranges that progress reads now or a little earlier, without their purchases; not earlier than the last purchase, where only
/// a wrong clock is, and where a rolling window reads the whole history.
fn needs(running: &Running, set: &CampaignSet, now: Instant) -> BTreeMap<CampaignId, Box<Extra>> {
    let mut extra = BTreeMap::new();
    for campaign in set.all().iter().filter(|campaign| campaign.runs(now)) {
        let Some(standing) = running.get(campaign.id()) else { continue };
        let range_at = |at| reads(campaign.engine(), &standing.state, at);
        let last = standing.state.last.as_ref().map_or(now, |last| last.at.min(now));
        let range = match (range_at(now.minus(CLOCK_MARGIN).max(last)), range_at(now)) {
            (Some(earlier), Some(now)) => earlier.hull(now),
            (Some(range), None) | (None, Some(range)) => range,
            (None, None) => continue,
        };
        extra.insert(campaign.id(), Box::new(Extra { range, purchases: Vec::new() }));
    }
    extra
}

/// Reads what the ranges contain: of each customer the stretch from the earliest start to the latest end.
async fn fill(
    db: &impl ConnectionTrait,
    snapshots: &mut HashMap<CustomerId, Snapshot>,
    set: &CampaignSet,
) -> Result<(), Error> {
    let mut spans: HashMap<CustomerId, Span> = HashMap::new();
    let mut lines = Lines::LeftOut;
    for (id, snapshot) in &*snapshots {
        for (campaign, extra) in &snapshot.extra {
            let range = &extra.range;
            let Some(campaign) = set.get(*campaign) else { continue };
            if Lines::of(&campaign.rule) == Lines::Loaded {
                lines = Lines::Loaded;
            }
            let after = range.after.clone().unwrap_or_else(|| Key::before(campaign.life.period.starts_at));
            let span = spans.entry(*id).or_insert_with(|| (after.clone(), range.to.clone()));
            span.0 = after.min(span.0.clone());
            span.1 = span.1.take().zip(range.to.clone()).map(|(a, b)| a.max(b));
        }
    }
    let history = history::load(db, spans, lines).await?;
    for (id, mut purchases) in history {
        purchases.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let Some(snapshot) = snapshots.get_mut(&id) else { continue };
        for (campaign, extra) in &mut snapshot.extra {
            let Extra { range, purchases: eligible } = &mut **extra;
            let Some(campaign) = set.get(*campaign) else { continue };
            let inside = purchases.iter().filter(|purchase| range.contains(&purchase.key));
            *eligible = inside.filter_map(|purchase| campaign.engine().eligible(purchase)).collect();
        }
    }
    Ok(())
}

impl App {
    /// Customers as they are now, through the cache.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }
}
