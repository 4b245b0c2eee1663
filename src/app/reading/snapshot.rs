//! A customer as it is at one commit: all that a balance, progress and the latest awards are told from, free of the clock.
//!
//! Snapshots are entries of the cache. One never changes: its key contains all that it depends on, so one that is found under
//! the version that a look-up told is current. It is loaded in one read-only transaction that sees one moment, and kept under
//! the version that this transaction saw. Of rolling windows it has aggregates, and these say until when they serve
//! ([`crate::engine::lookback`]): where the clock moves on beyond that, or where progress is asked for and was not before, the
//! snapshot does not hold and is loaded again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entity::{CampaignId, CustomerId, award, customer};
use sea_orm::{EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant as Moment;

use crate::app::campaigns::{Campaign, CampaignSet, Campaigns, Revision};
use crate::app::clock::Clock;
use crate::app::database::Database;
use crate::app::error::Error;
use crate::app::reading::lookback::{Memory, Wanted};
use crate::app::reading::lookup::{Head, Heads, Lookups};
use crate::app::reading::page::{Filter, Listed as _, Page, PageArgs, Slice, of_customers};
use crate::app::reading::{lookback, lookup};
use crate::app::rows::any;
use crate::app::stored::running::Running;
use crate::cache::redis::Redis;
use crate::cache::{Cache, Found, Loaded, Tier};
use crate::engine::lookback::Lookback;
use crate::engine::progress::need;
use crate::engine::time::Instant;
use crate::{config, metrics};

/// Changes with the snapshot's fields and with what the engine computes from them: entries of other formats are not found.
const FORMAT: u32 = 3;
/// Awards of a snapshot: the page that is asked for by default, and one more that tells whether it is the last.
const RECENT_AWARDS: usize = 21;
/// Loads at once, at least. There are as many as the connections that writers and look-ups leave: where there are enough of them,
/// loads take none from these, whatever happens to the cache.
const MIN_LOADS: usize = 2;
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
    /// Where it stands in each campaign that still counts.
    pub running: Running,
    /// What progress takes beside that, by campaign; nothing where nobody has asked for progress.
    lookbacks: BTreeMap<CampaignId, Box<Lookback>>,
    /// The newest, in their list's order.
    awards: Vec<Arc<award::Model>>,
}

/// What a reader wants of customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Balance and awards: what their rows tell.
    Balance,
    /// Progress too, which may take a look at purchases.
    Progress,
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
        running.all(|campaign| self.lookback(campaign, now).is_some())
    }

    /// What the campaign's progress at `now` takes beside the running state, if anything; none: it is not here.
    pub fn lookback(&self, campaign: &Campaign, now: Instant) -> Option<Option<&Lookback>> {
        let tail = self.running.get(campaign.id()).map(|standing| &standing.state);
        if tail.and_then(|tail| need(campaign.engine(), tail, now)).is_none() {
            return Some(None);
        }
        let lookback = self.lookbacks.get(&campaign.id()).filter(|lookback| lookback.holds(now));
        lookback.map(|lookback| Some(&**lookback))
    }

    /// Whether both say the same, as far as both say anything: the clock decides what progress was looked for.
    fn agrees(&self, other: &Self) -> bool {
        let same_lookbacks = self
            .lookbacks
            .iter()
            .all(|(campaign, mine)| other.lookbacks.get(campaign).is_none_or(|theirs| mine.agrees(theirs)));
        self.customer == other.customer
            && self.running == other.running
            && self.awards == other.awards
            && same_lookbacks
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
    memory: Memory,
}

impl Snapshots {
    /// Over a database.
    pub(in crate::app) fn start(
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
                memory: Memory::default(),
            },
        }
    }

    /// The cache behind it.
    pub fn cache(&self) -> &Cache<Snapshot, Error> {
        &self.cache
    }

    /// These customers (by external id) as they are now, each at least of the version that stands with it if there is such.
    /// Those that have no row are not there.
    pub async fn find(&self, names: &[(String, Option<i64>)], extent: Extent) -> Result<HashMap<String, View>, Error> {
        for attempt in 0..MAX_ATTEMPTS {
            let remembered = (attempt == 0).then(|| self.loader.campaigns.last().revision);
            let heads = self.loader.campaigns.noticed(self.lookups.of(names, remembered).await)?;
            if heads.customers.is_empty() {
                return Ok(HashMap::new());
            }
            if let Some(found) = self.views(&heads, extent).await? {
                return Ok(found);
            }
        }
        Err(Error::Unavailable)
    }

    /// Customers of which these rows were read, as they are now, with their progress.
    pub async fn of_rows(&self, rows: &[Arc<customer::Model>]) -> Result<HashMap<CustomerId, View>, Error> {
        let names: Vec<_> = rows.iter().map(|row| (row.external_id.clone(), Some(row.version))).collect();
        let found = self.find(&names, Extent::Progress).await?;
        Ok(found.into_values().map(|view| (view.snapshot.customer.id, view)).collect())
    }

    /// Whether the database says the same as this view of the same version; none: the version is gone, or nobody answers.
    pub async fn check(&self, view: &View) -> Option<bool> {
        self.loader.check(&view.snapshot).await
    }

    /// None: campaigns changed under it.
    async fn views(&self, heads: &Heads, extent: Extent) -> Result<Option<HashMap<String, View>>, Error> {
        let Heads { revision, ref customers, at, .. } = *heads;
        let Loader { database, clock, campaigns, .. } = &self.loader;
        let set = match campaigns.known(revision) {
            Some(set) => set,
            None => {
                // Once for all who wait; no writer ever does.
                let _turn = self.campaigns_turn.lock().await;
                campaigns.at(database.read(), revision).await?
            }
        };
        let found = self.search(heads, &set, extent).await?;
        let mut views = HashMap::with_capacity(found.len());
        for (name, Found { value: snapshot, tier }) in found {
            if !customers.contains_key(&name) {
                continue;
            }
            let campaigns = if snapshot.revision == set.revision {
                Arc::clone(&set)
            } else {
                // It was loaded after campaigns had changed, perhaps by a reader of balances: nobody has held it against its own set.
                let Some(set) = campaigns.known(snapshot.revision) else { return Ok(None) };
                if extent == Extent::Progress && !snapshot.holds(&set, clock.now()) {
                    return Ok(None);
                }
                set
            };
            if tier != Tier::Sql && (self.hits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(HITS_PER_CHECK) {
                let (loader, snapshot) = (self.loader.clone(), Arc::clone(&snapshot));
                tokio::spawn(async move { loader.check(&snapshot).await });
            }
            views.insert(name, View { snapshot, campaigns, tier, at });
        }
        Ok(Some(views))
    }

    /// The snapshots of these customers, by name. If campaigns changed since the look-up it is of a later set, which is as
    /// good: what is found under it is not older.
    async fn search(
        &self,
        heads: &Heads,
        set: &Arc<CampaignSet>,
        extent: Extent,
    ) -> Result<HashMap<String, Found<Snapshot>>, Error> {
        let keyed =
            |(name, head): (&String, &Head)| (key(&heads.installation, *head, set.revision), (name.clone(), head.id));
        let by_key: Arc<HashMap<String, (String, CustomerId)>> = Arc::new(heads.customers.iter().map(keyed).collect());
        let mut found = HashMap::with_capacity(by_key.len());
        let mut wanted: Vec<String> = by_key.keys().cloned().collect();
        for _ in 0..MAX_ATTEMPTS {
            let (now, held_against) = (self.loader.clock.now(), Arc::clone(set));
            let holds = move |snapshot: &Snapshot| extent == Extent::Balance || snapshot.holds(&held_against, now);
            let (loader, names, by_key) = (self.loader.clone(), Arc::clone(&heads.installation), Arc::clone(&by_key));
            let cache = Arc::clone(&self.cache);
            let load = move |missing: Vec<String>| async move {
                let stale = missing.iter().map(|key| cache.kept(key)).collect();
                loader.load(&names, missing, stale, &by_key, extent).await
            };
            let mut next = self.cache.get(wanted, holds.clone(), load).await?;
            // Another reader's search may have been for less.
            let lacks = |found: &Found<Snapshot>| found.value.revision == set.revision && !holds(&found.value);
            wanted = next.extract_if(|_, found| lacks(found)).map(|(key, _)| key).collect();
            found.extend(next);
            if wanted.is_empty() {
                break;
            }
        }
        if !wanted.is_empty() {
            return Err(Error::Unavailable);
        }
        let named = |(key, found): (String, Found<Snapshot>)| Some((by_key.get(&key)?.0.clone(), found));
        Ok(found.into_iter().filter_map(named).collect())
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
        stale: Vec<Option<Arc<Snapshot>>>,
        wanted: &HashMap<String, (String, CustomerId)>,
        extent: Extent,
    ) -> Result<Vec<Loaded<Snapshot>>, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::Unavailable)?;
        let began = Moment::now();
        let id_of = |key: &String| wanted.get(key).map(|(_, id)| *id);
        let customers = missing.iter().zip(stale).filter_map(|(key, stale)| Some((id_of(key)?, stale)));
        let mut snapshots = self.read(customers.collect(), extent).await?;
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
        let now = self.read(HashMap::from([(id, None)]), Extent::Progress).await.ok()?.remove(&id)?;
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

    /// These customers, each with an older snapshot of it if there is one.
    async fn read(
        &self,
        customers: HashMap<CustomerId, Option<Arc<Snapshot>>>,
        extent: Extent,
    ) -> Result<HashMap<CustomerId, Snapshot>, Error> {
        let tx = self.database.snapshot().await?;
        let set = self.campaigns.current(&tx).await?;
        let keyed = any(self.database.backend(), customer::Column::Id, customers.keys().map(|id| id.0));
        let rows = customer::Entity::find().filter(keyed).all(&tx).await?;
        let mut snapshots = HashMap::with_capacity(rows.len());
        for row in rows {
            snapshots.insert(row.id, Snapshot::of_row(row, &set)?);
        }
        if extent == Extent::Progress {
            let now = self.clock.now();
            let wanted = snapshots.values().flat_map(|snapshot| {
                snapshot.wanted(&set, now, customers.get(&snapshot.customer.id).and_then(Option::as_deref))
            });
            let found = lookback::look(&tx, &self.memory, now, wanted.collect()).await?;
            for (customer, campaign, lookback) in found {
                if let Some(snapshot) = snapshots.get_mut(&customer) {
                    snapshot.lookbacks.insert(campaign, Box::new(lookback));
                }
            }
        }
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

impl Snapshot {
    /// What the row tells alone.
    fn of_row(mut row: customer::Model, set: &CampaignSet) -> Result<Self, Error> {
        let mut running = Running::parse(&row.running)?;
        if running.retain_counting(set) {
            row.running = running.to_text()?;
        }
        let (revision, lookbacks) = (set.revision, BTreeMap::new());
        Ok(Self { customer: Arc::new(row), revision, running, lookbacks, awards: Vec::new() })
    }

    /// What progress at `now` takes beside it. `older`: a snapshot that was found for it, of the same version or not.
    fn wanted<'a>(&'a self, set: &'a CampaignSet, now: Instant, older: Option<&'a Self>) -> Vec<Wanted<'a>> {
        let same = |older: &&Self| older.customer == self.customer && older.revision == self.revision;
        let older = older.filter(same);
        let of = |campaign: &'a Arc<Campaign>| {
            let tail = &self.running.get(campaign.id())?.state;
            let need = need(campaign.engine(), tail, now)?;
            let earlier = older.and_then(|older| older.lookbacks.get(&campaign.id())).map(Box::as_ref);
            Some(Wanted { customer: self.customer.id, campaign, tail, need, earlier })
        };
        set.all().iter().filter(|campaign| campaign.runs(now)).filter_map(of).collect()
    }
}
