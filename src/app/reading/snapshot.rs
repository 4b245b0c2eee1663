//! Snapshots of customers. A snapshot contains everything that the balance, the progress and the newest awards of a customer
//! are computed from, as of one commit and independent of the clock.
//!
//! Snapshots are cache entries and never change. The key of a snapshot contains everything that it depends on, so a snapshot
//! under the version that a look-up returned is current. A snapshot is loaded in one read-only transaction, which sees a single
//! state of the database, and is stored under the version that this transaction saw.
//!
//! Instead of purchases, a snapshot contains lookbacks ([`crate::engine::lookback`]), and instead of all lots, those that change next
//! ([`super::points`]). Each of them is valid for a limited time. If that time is over, or if progress is requested from a snapshot that was loaded without it, the snapshot is loaded again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use entity::{CampaignId, CustomerId, award, customer};
use sea_orm::{EntityTrait, QueryFilter};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::time::Instant as Monotonic;

use crate::app::campaign::set::{Campaign, CampaignSet, Campaigns, Revision};
use crate::app::clock::Clock;
use crate::app::database::{Database, MAX_OPEN_BATCHES};
use crate::app::error::Error;
use crate::app::reading::lookback::{Memory, Wanted};
use crate::app::reading::lookup::{Head, Heads, Lookups};
use crate::app::reading::page::{Filter, Listed as _, Page, PageArgs, Slice, of_customers};
use crate::app::reading::points::Points;
use crate::app::reading::{lookback, lookup, points};
use crate::app::rows::any;
use crate::app::stored::running::Running;
use crate::cache::redis::Redis;
use crate::cache::{Cache, Found, Loaded, Tier};
use crate::engine::lookback::Lookback;
use crate::engine::progress::need;
use crate::engine::time::Instant;
use crate::{config, metrics};

/// The format of cached snapshots, which is part of their keys. It must be raised when the fields of a snapshot change or when
/// the engine computes something else from them.
const FORMAT: u32 = 5;
/// The number of awards in a snapshot: the default size of a page, and one more, which shows whether there is a next page.
const RECENT_AWARDS: usize = 21;
/// The minimum number of concurrent loads. Otherwise, the limit is the number of connections that writers and look-ups leave
/// free, so that loads do not take connections from them, even if the cache is empty.
const MIN_LOADS: usize = 2;
/// The maximum number of customers that are loaded together.
const MAX_MERGED: usize = 32;
/// One out of this many cache hits is compared with the database.
const HITS_PER_CHECK: u64 = 1_000;
/// The maximum number of attempts of a read. An attempt fails if campaigns changed during it, or if the snapshot came from a
/// concurrent search that did not need progress.
const MAX_ATTEMPTS: usize = 4;

/// A customer as of one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Without its head, whose content is in `running`.
    pub customer: Arc<customer::Model>,
    /// The revision of the campaign set when the customer was loaded.
    pub revision: Revision,
    /// The running states in the campaigns that are not settled.
    pub running: Running,
    /// What progress needs in addition to the running states. Empty if the snapshot was loaded without progress.
    lookbacks: BTreeMap<CampaignId, Box<Lookback>>,
    /// The newest awards, in the order of their list.
    awards: Vec<Arc<award::Model>>,
    /// What the customer holds. `None` if the clock changes nothing of it, so that all points are available.
    pub points: Option<Box<Points>>,
}

/// How much of a customer a reader needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// Balance and awards, which do not need any purchases.
    Balance,
    /// Also progress, which may need purchases.
    Progress,
}

/// A snapshot and the campaigns of its revision.
#[derive(Clone, Debug)]
pub struct View {
    pub snapshot: Arc<Snapshot>,
    /// The campaigns at the revision of the snapshot.
    pub campaigns: Arc<CampaignSet>,
    /// The cache tier in which the snapshot was found.
    pub tier: Tier,
    /// When the version was looked up. The snapshot is at least as recent as this.
    pub at: Monotonic,
    /// The id of the database.
    installation: Arc<str>,
}

/// A state of a customer and of the campaigns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    /// The id of the database.
    installation: Arc<str>,
    head: Head,
    /// The revision of the campaign set.
    revision: Revision,
}

impl View {
    /// The state that the snapshot belongs to.
    pub fn state(&self) -> Current {
        let customer::Model { id, version, stamp, .. } = *self.snapshot.customer;
        let (installation, revision) = (Arc::clone(&self.installation), self.snapshot.revision);
        Current { installation, head: Head { id, version, stamp }, revision }
    }
}

impl Snapshot {
    /// Whether the snapshot contains everything that is needed at `now`.
    fn holds(&self, campaigns: &CampaignSet, extent: Extent, now: Instant) -> bool {
        self.points.as_ref().is_none_or(|points| points.hold(now))
            && (extent == Extent::Balance || self.holds_progress(campaigns, now))
    }

    /// Whether the snapshot contains everything that progress at `now` needs.
    fn holds_progress(&self, campaigns: &CampaignSet, now: Instant) -> bool {
        let mut running = campaigns.all().iter().filter(|campaign| campaign.runs(now));
        running.all(|campaign| self.lookback(campaign, now).is_some())
    }

    /// Returns the lookback that the progress in the campaign at `now` needs, or `Some(None)` if the running state is enough.
    /// Returns `None` if a lookback is needed and the snapshot does not contain it.
    pub fn lookback(&self, campaign: &Campaign, now: Instant) -> Option<Option<&Lookback>> {
        let tail = self.running.get(campaign.id()).map(|standing| &standing.state);
        if tail.and_then(|tail| need(campaign.engine(), tail, now)).is_none() {
            return Some(None);
        }
        let lookback = self.lookbacks.get(&campaign.id()).filter(|lookback| lookback.holds(now));
        lookback.map(|lookback| Some(&**lookback))
    }

    /// Whether both snapshots are equal. Lookbacks are compared only where both snapshots have them, because it depends on the
    /// clock which ones were loaded.
    fn agrees(&self, other: &Self) -> bool {
        let same_lookbacks = self
            .lookbacks
            .iter()
            .all(|(campaign, mine)| other.lookbacks.get(campaign).is_none_or(|theirs| mine.agrees(theirs)));
        self.customer == other.customer
            && self.running == other.running
            && self.awards == other.awards
            && same_lookbacks
            && match (&self.points, &other.points) {
                (Some(mine), Some(theirs)) => mine.agree(theirs),
                (mine, theirs) => mine.is_none() && theirs.is_none(),
            }
    }

    /// Returns a page of all awards of the customer. Returns `None` if the page is not among the newest awards, which are all
    /// that the snapshot contains.
    pub fn awards(&self, page: &Page) -> Option<Slice<Arc<award::Model>>> {
        let is_first = !page.is_backward() && page.after().is_none() && page.before().is_none();
        let all = self.awards.len() < RECENT_AWARDS;
        (is_first && (all || page.fetched() <= RECENT_AWARDS)).then(|| {
            let rows = self.awards.iter().take(page.fetched()).cloned().collect();
            page.cut(rows)
        })
    }
}

/// Finds snapshots in the cache and loads the missing ones.
pub struct Snapshots {
    cache: Arc<Cache<Snapshot, Error>>,
    lookups: Lookups,
    loader: Loader,
    hits: AtomicU64,
    campaigns_turn: Mutex<()>,
}

#[derive(Clone)]
struct Loader {
    database: Database,
    clock: Clock,
    campaigns: Arc<Campaigns>,
    turns: Arc<Semaphore>,
    /// The loads that wait for a turn.
    waiting: Arc<Waiting>,
    memory: Memory,
}

type Waiting = parking_lot::Mutex<Vec<Load>>;

/// Customers to load.
struct Load {
    /// The value of each is an older snapshot, if there is one, whose lookbacks can be continued.
    customers: HashMap<CustomerId, Option<Arc<Snapshot>>>,
    extent: Extent,
    reply: oneshot::Sender<Result<HashMap<CustomerId, Snapshot>, Error>>,
}

impl Snapshots {
    pub(in crate::app) fn start(
        database: &Database,
        clock: &Clock,
        campaigns: &Arc<Campaigns>,
        config: &config::Cache,
        redis: Option<Redis>,
    ) -> Self {
        let taken = MAX_OPEN_BATCHES + lookup::WORKERS;
        let loads = database.max_connections().saturating_sub(taken).max(MIN_LOADS);
        Self {
            cache: Arc::new(Cache::new(config.snapshots_bytes(), redis)),
            lookups: Lookups::start(database, clock, config.max_staleness),
            hits: AtomicU64::new(0),
            campaigns_turn: Mutex::default(),
            loader: Loader {
                database: database.clone(),
                clock: clock.clone(),
                campaigns: Arc::clone(campaigns),
                turns: Arc::new(Semaphore::new(loads)),
                waiting: Arc::default(),
                memory: Memory::default(),
            },
        }
    }

    pub fn cache(&self) -> &Cache<Snapshot, Error> {
        &self.cache
    }

    /// Returns the current snapshots of these customers, by external id. If a version is given with a name, the snapshot has at
    /// least that version. Customers without a row are missing in the result.
    pub async fn find(&self, names: &[(String, Option<i64>)], extent: Extent) -> Result<HashMap<String, View>, Error> {
        for attempt in 0..MAX_ATTEMPTS {
            let remembered = (attempt == 0).then(|| self.loader.campaigns.last().revision);
            let heads = self.loader.campaigns.noticed(self.lookups.load_heads(names, remembered).await)?;
            if heads.customers.is_empty() {
                return Ok(HashMap::new());
            }
            if let Some(found) = self.views(&heads, extent).await? {
                return Ok(found);
            }
        }
        Err(Error::Unavailable)
    }

    /// Returns the current state of a customer, by external id. Returns `None` if the customer has no row.
    pub async fn current(&self, name: &str) -> Result<Option<Current>, Error> {
        let remembered = Some(self.loader.campaigns.last().revision);
        let heads = self.lookups.load_heads(&[(name.to_owned(), None)], remembered).await;
        let Heads { installation, revision, customers, .. } = self.loader.campaigns.noticed(heads)?;
        Ok(customers.get(name).map(|head| Current { installation, head: *head, revision }))
    }

    /// Returns the current snapshots of the customers of these rows, with everything that progress needs.
    pub async fn of_rows(&self, rows: &[Arc<customer::Model>]) -> Result<HashMap<CustomerId, View>, Error> {
        let names: Vec<_> = rows.iter().map(|row| (row.external_id.clone(), Some(row.version))).collect();
        let found = self.find(&names, Extent::Progress).await?;
        Ok(found.into_values().map(|view| (view.snapshot.customer.id, view)).collect())
    }

    /// Reads all lots of the customer of a snapshot. Returns `None` if the customer has changed since the snapshot.
    pub async fn all_points(&self, snapshot: &Snapshot) -> Result<Option<Points>, Error> {
        self.loader.all_points(snapshot).await
    }

    /// Returns whether the view is equal to the customer in the database. Returns `None` if they cannot be compared: the
    /// database has another version by now or does not respond, or too many loads are running.
    pub async fn check(&self, view: &View) -> Option<bool> {
        self.loader.check(&view.snapshot).await
    }

    /// Returns `None` if campaigns changed in the meantime and a snapshot cannot be used because of that.
    async fn views(&self, heads: &Heads, extent: Extent) -> Result<Option<HashMap<String, View>>, Error> {
        let Heads { revision, ref customers, at, .. } = *heads;
        let Loader { database, clock, campaigns, .. } = &self.loader;
        let set = match campaigns.known(revision) {
            Some(set) => set,
            None => {
                // One reader loads the set, and the others find it in memory afterwards. Writers do not use this lock.
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
                // The snapshot was loaded after campaigns had changed, perhaps by a reader that needed no progress. The search
                // did not check whether it is enough for the campaigns of its own revision.
                let Some(set) = campaigns.known(snapshot.revision) else { return Ok(None) };
                if !snapshot.holds(&set, extent, clock.now()) {
                    return Ok(None);
                }
                set
            };
            if tier != Tier::Sql && (self.hits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(HITS_PER_CHECK) {
                let (loader, snapshot) = (self.loader.clone(), Arc::clone(&snapshot));
                tokio::spawn(async move { loader.check(&snapshot).await });
            }
            let installation = Arc::clone(&heads.installation);
            views.insert(name, View { snapshot, campaigns, tier, at, installation });
        }
        Ok(Some(views))
    }

    /// Finds the snapshots of these customers, by external id. `set` may be later than the revision of the look-up if campaigns
    /// changed in between. A snapshot under the later revision is not older than the look-up, so it can be used.
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
            let holds = move |snapshot: &Snapshot| snapshot.holds(&held_against, extent, now);
            let (loader, names, by_key) = (self.loader.clone(), Arc::clone(&heads.installation), Arc::clone(&by_key));
            let cache = Arc::clone(&self.cache);
            let load = move |missing: Vec<String>| async move {
                let stale = missing.iter().map(|key| cache.kept(key).map(Arc::new)).collect();
                loader.load(&names, missing, stale, &by_key, extent).await
            };
            let mut next = self.cache.get(wanted, holds.clone(), load).await?;
            // The entry may come from the search of another reader, which did not need progress.
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

/// Returns the cache key of a snapshot, which contains everything that the snapshot depends on.
fn key(installation: &str, head: Head, campaigns: Revision) -> String {
    let Head { id, version, stamp } = head;
    let Revision { number, stamp: campaigns_stamp } = campaigns;
    format!("windfall:{installation}:{FORMAT}:{}:{version}:{stamp:x}:{number}:{campaigns_stamp:x}", id.0)
}

impl Loader {
    /// Loads the customers of the missing keys in one transaction. `stale` contains, for each key, the cached snapshot that
    /// lacks what is needed, if there is one.
    #[tracing::instrument(skip_all, fields(customers = missing.len()))]
    async fn load(
        &self,
        installation: &str,
        missing: Vec<String>,
        stale: Vec<Option<Arc<Snapshot>>>,
        wanted: &HashMap<String, (String, CustomerId)>,
        extent: Extent,
    ) -> Result<Vec<Loaded<Snapshot>>, Error> {
        let id_of = |key: &String| wanted.get(key).map(|(_, id)| *id);
        let customers = missing.iter().zip(stale).filter_map(|(key, stale)| Some((id_of(key)?, stale)));
        let (reply, mut answer) = oneshot::channel();
        self.waiting.lock().push(Load { customers: customers.collect(), extent, reply });
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            turn = self.turns.acquire() => {
                let _turn = turn.map_err(|_| Error::Unavailable)?;
                // Others may come first, but each round removes some of them.
                while answer.is_empty() && self.load_waiting().await {}
                answer.await
            }
        };
        let mut snapshots = answered.map_err(|_| Error::Unavailable)??;
        let loaded = missing.into_iter().filter_map(|missing| {
            let value = snapshots.remove(&id_of(&missing)?)?;
            let customer::Model { id, version, stamp, .. } = *value.customer;
            let key = key(installation, Head { id, version, stamp }, value.revision);
            Some(Loaded { wanted: missing, key, value })
        });
        Ok(loaded.collect())
    }

    /// Loads the customers of all loads that wait, in one transaction. Customers of whom only the balance is needed are not
    /// loaded together with others. Returns whether any load was waiting.
    async fn load_waiting(&self) -> bool {
        let loads: Vec<Load> = {
            let mut waiting = self.waiting.lock();
            let Some(extent) = waiting.first().map(|load| load.extent) else { return false };
            let mut merged = 0;
            waiting
                .extract_if(.., |load| {
                    let fits = load.extent == extent && (merged == 0 || merged + load.customers.len() <= MAX_MERGED);
                    merged += if fits { load.customers.len() } else { 0 };
                    fits
                })
                .collect()
        };
        let Some(extent) = loads.first().map(|load| load.extent) else { return false };
        let began = Monotonic::now();
        let customers = loads.iter().flat_map(|load| load.customers.clone()).collect();
        let read = self.read(customers, extent).await;
        ::metrics::histogram!(metrics::CACHE_LOAD_SECONDS).record(began.elapsed().as_secs_f64());
        let is_alone = loads.len() == 1;
        for Load { customers, reply, .. } in loads {
            let told = match &read {
                Ok(snapshots) => {
                    Ok(customers.keys().filter_map(|id| Some((*id, snapshots.get(id)?.clone()))).collect())
                }
                // One customer that cannot be read must not fail the others.
                Err(_) if !is_alone => self.read(customers, extent).await,
                Err(error) => Err(error.clone()),
            };
            let _ = reply.send(told);
        }
        true
    }

    /// Does the work of [`Snapshots::check`].
    async fn check(&self, snapshot: &Snapshot) -> Option<bool> {
        // If no permit is free, the check is skipped, because readers must not wait for checks.
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
            tracing::error!(customer, version, "a cached customer differs from the database: please report this");
        }
        Some(same)
    }

    /// Does the work of [`Snapshots::all_points`].
    async fn all_points(&self, snapshot: &Snapshot) -> Result<Option<Points>, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::Unavailable)?;
        let customer::Model { id: customer, balance, version, stamp, .. } = *snapshot.customer;
        let Some(held) = snapshot.running.held else { return Ok(None) };
        let tx = self.database.snapshot().await?;
        let row = customer::Entity::find_by_id(customer).one(&tx).await?;
        if row.is_none_or(|row| (row.version, row.stamp) != (version, stamp)) {
            return Ok(None);
        }
        let points = points::load_all(&tx, points::Wanted { customer, balance, held }).await?;
        tx.commit().await?;
        Ok(points)
    }

    /// Reads these customers. The value of each is an older snapshot, if there is one, whose lookbacks can be continued.
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
        let now = self.clock.now();
        let held = snapshots.values().filter_map(|snapshot| {
            let (customer, held) = (&snapshot.customer, snapshot.running.held?);
            let wanted = points::Wanted { customer: customer.id, balance: customer.balance, held };
            customer.due_at.map(|_| wanted)
        });
        for (customer, points) in points::load(&tx, held.collect(), now).await? {
            if let Some(snapshot) = snapshots.get_mut(&customer) {
                snapshot.points = Some(Box::new(points));
            }
        }
        if extent == Extent::Progress {
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
    /// Creates a snapshot without lookbacks, awards and lots.
    fn of_row(mut row: customer::Model, set: &CampaignSet) -> Result<Self, Error> {
        let mut running = Running::parse(&std::mem::take(&mut row.head))?;
        running.retain_counting(set);
        let (revision, lookbacks) = (set.revision, BTreeMap::new());
        Ok(Self { customer: Arc::new(row), revision, running, lookbacks, awards: Vec::new(), points: None })
    }

    /// Returns the lookbacks that progress at `now` needs. They continue the lookbacks of `older` if that snapshot has the same
    /// version.
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
