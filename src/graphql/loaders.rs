//! What nested fields load, for all parents of a level together: a request costs as many statements for fifty customers
//! as for one. Nothing is kept: a mutation's answer shows what it changed.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::{Value, value};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::app::award::AwardFilter;
use crate::app::campaigns::{Campaign, CampaignSet};
use crate::app::customer::Current;
use crate::app::error::Error;
use crate::app::model::{Award, CampaignId, Customer, CustomerId, LedgerEntry, Purchase, Refund};
use crate::app::reading::page::{Page, Slice};
use crate::app::reading::progress::CampaignProgress;
use crate::app::reading::recent_stats::Totals;
use crate::app::reading::snapshot::{Extent, View};
use crate::app::viewer::Viewer;
use crate::app::{self, App};
use crate::engine::budget::Budget;
use crate::engine::purchase::Key;

/// Loads for one viewer.
pub struct Loaders {
    app: Arc<App>,
    viewer: Viewer,
    /// As the customers' look-up of this request found them: as current as they. Only queries look customers up, so no
    /// mutation is answered with what was before it.
    campaigns: OnceLock<Arc<CampaignSet>>,
    reads: Reads,
}

/// Where a request's customers were found.
#[derive(Clone, Default)]
pub struct Reads(Arc<Mutex<Vec<Value>>>);

impl Reads {
    fn note(&self, customer: &str, view: &View) {
        let age_ms = u64::try_from(view.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let read = value!({
            "customer": customer.to_owned(),
            "version": view.snapshot.customer.version,
            "source": view.tier.as_str().to_owned(),
            "ageMs": age_ms,
        });
        self.0.lock().push(read);
    }

    /// For the answer's extensions. `source`: `l1`, `l2` or `sql`; `ageMs`: since the version was looked up.
    pub fn tell(&self) -> Value {
        Value::List(std::mem::take(&mut *self.0.lock()))
    }
}

impl Loaders {
    /// For one request, whose turns these are.
    pub fn start(app: Arc<App>, viewer: Viewer, turns: Turns, reads: Reads) -> DataLoader<Self> {
        let spawn = move |load: BoxFuture<'static, ()>| {
            let turn = Arc::clone(&turns.0).notified_owned();
            tokio::spawn(async move {
                turn.await;
                load.await;
            })
        };
        DataLoader::new(Self { app, viewer, campaigns: OnceLock::new(), reads }, spawn).delay(Duration::ZERO)
    }
}

/// When a request's loads begin: at the end of the turn in which they were asked for, when every resolver that could go
/// on has asked too. A time in its place would be too short whenever the machine is busy, and too long whenever it is not.
///
/// So whatever loads must be polled by the request itself, not in a task of its own.
#[derive(Clone, Default)]
pub struct Turns(Arc<Notify>);

impl Turns {
    /// Ends a turn.
    pub fn end(&self) {
        self.0.notify_waiters();
    }
}

type Loaded<K, V> = Result<HashMap<K, V>, Error>;

/// A customer that the viewer names, the version that it has seen, and what it asks of the customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindCustomer(pub String, pub Option<i64>, pub Extent);

impl Loader<FindCustomer> for Loaders {
    type Value = Current;
    type Error = Error;

    async fn load(&self, keys: &[FindCustomer]) -> Loaded<FindCustomer, Current> {
        // Asked for twice it is found once: an answer shows one version of it.
        let with_progress = keys.iter().filter(|key| key.2 == Extent::Progress).map(|key| key.0.as_str());
        let with_progress: HashSet<&str> = with_progress.collect();
        let mut found: HashMap<String, Current> = HashMap::new();
        for extent in [Extent::Balance, Extent::Progress] {
            let asked =
                keys.iter().filter(|key| (extent == Extent::Progress) == with_progress.contains(key.0.as_str()));
            let names: Vec<_> = asked.map(|key| (key.0.clone(), key.1)).collect();
            if !names.is_empty() {
                found.extend(app::customer::find(&self.app, self.viewer.require_reader()?, names, extent).await?);
            }
        }
        if let Some(view) = found.values().find_map(|current| current.view.as_ref()) {
            let _ = self.campaigns.set(Arc::clone(&view.campaigns));
        }
        for (name, current) in &found {
            if let Some(view) = &current.view {
                self.reads.note(name, view);
            }
        }
        Ok(keys.iter().filter_map(|key| Some((key.clone(), found.get(&key.0)?.clone()))).collect())
    }
}

/// A purchase that the viewer names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindPurchase(pub String);

impl Loader<FindPurchase> for Loaders {
    type Value = Arc<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[FindPurchase]) -> Loaded<FindPurchase, Arc<Purchase>> {
        let names = keys.iter().map(|key| key.0.clone()).collect();
        let found = app::purchase::find(&self.app, self.viewer.require_reader()?, names).await?;
        Ok(found.into_iter().map(|(name, row)| (FindPurchase(name), Arc::new(row))).collect())
    }
}

/// An award that the viewer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindAward(pub CustomerId, pub i64);

impl Loader<FindAward> for Loaders {
    type Value = Arc<Award>;
    type Error = Error;

    async fn load(&self, keys: &[FindAward]) -> Loaded<FindAward, Arc<Award>> {
        let wanted = keys.iter().map(|key| (key.0, key.1)).collect();
        let found = app::award::find(&self.app, self.viewer.require_reader()?, wanted).await?;
        Ok(found.into_iter().map(|((customer, number), row)| (FindAward(customer, number), Arc::new(row))).collect())
    }
}

/// A ledger entry that the viewer names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindLedgerEntry(pub CustomerId, pub i64);

impl Loader<FindLedgerEntry> for Loaders {
    type Value = Arc<LedgerEntry>;
    type Error = Error;

    async fn load(&self, keys: &[FindLedgerEntry]) -> Loaded<FindLedgerEntry, Arc<LedgerEntry>> {
        let wanted = keys.iter().map(|key| (key.0, key.1)).collect();
        let found = app::ledger::find(&self.app, self.viewer.require_reader()?, wanted).await?;
        let keyed = found.into_iter().map(|((customer, sequence), row)| {
            let key = FindLedgerEntry(customer, sequence);
            (key, Arc::new(row))
        });
        Ok(keyed.collect())
    }
}

/// A campaign, named by the viewer or by an award.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindCampaign(pub CampaignId);

impl Loader<FindCampaign> for Loaders {
    type Value = Arc<Campaign>;
    type Error = Error;

    async fn load(&self, keys: &[FindCampaign]) -> Loaded<FindCampaign, Arc<Campaign>> {
        let reader = self.viewer.require_reader()?;
        let ids = || keys.iter().map(|key| key.0).collect::<Vec<_>>();
        let looked_up = self.campaigns.get().map(|campaigns| app::campaign::list::find(campaigns, reader, ids()));
        let found = match looked_up.filter(|found| found.len() == keys.len()) {
            Some(found) => found,
            // One may have been activated since, and be an award's.
            None => app::campaign::list::find(&*self.app.campaigns().await?, reader, ids()),
        };
        Ok(found.into_iter().map(|(id, campaign)| (FindCampaign(id), campaign)).collect())
    }
}

/// The customer of a row that the viewer was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CustomerOf(pub CustomerId);

impl Loader<CustomerOf> for Loaders {
    type Value = Arc<Customer>;
    type Error = Error;

    async fn load(&self, keys: &[CustomerOf]) -> Loaded<CustomerOf, Arc<Customer>> {
        let found = app::customer::by_ids(&self.app, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, row)| (CustomerOf(id), Arc::new(row))).collect())
    }
}

/// The purchase of a row or payload that the viewer was shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PurchaseOf(pub String);

impl Loader<PurchaseOf> for Loaders {
    type Value = Arc<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[PurchaseOf]) -> Loaded<PurchaseOf, Arc<Purchase>> {
        let found = app::purchase::by_external_ids(&self.app, keys.iter().map(|key| key.0.clone()).collect()).await?;
        Ok(found.into_iter().map(|(name, row)| (PurchaseOf(name), Arc::new(row))).collect())
    }
}

/// The award of a ledger entry that the viewer was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AwardOf(pub CustomerId, pub i64);

impl Loader<AwardOf> for Loaders {
    type Value = Arc<Award>;
    type Error = Error;

    async fn load(&self, keys: &[AwardOf]) -> Loaded<AwardOf, Arc<Award>> {
        let found = app::award::by_keys(&self.app, keys.iter().map(|key| (key.0, key.1)).collect()).await?;
        Ok(found.into_iter().map(|((customer, number), row)| (AwardOf(customer, number), Arc::new(row))).collect())
    }
}

/// The refunds of a purchase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefundsOf(pub String);

impl Loader<RefundsOf> for Loaders {
    type Value = Arc<[Refund]>;
    type Error = Error;

    async fn load(&self, keys: &[RefundsOf]) -> Loaded<RefundsOf, Arc<[Refund]>> {
        let found = app::purchase::refunds_of(&self.app, keys.iter().map(|key| key.0.clone()).collect()).await?;
        Ok(found.into_iter().map(|(purchase, rows)| (RefundsOf(purchase), rows.into())).collect())
    }
}

/// The awards that a purchase reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwardsReachedBy(pub CustomerId, pub Key);

impl Loader<AwardsReachedBy> for Loaders {
    type Value = Vec<Arc<Award>>;
    type Error = Error;

    async fn load(&self, keys: &[AwardsReachedBy]) -> Loaded<AwardsReachedBy, Vec<Arc<Award>>> {
        let wanted = keys.iter().map(|key| (key.0, key.1.clone())).collect();
        let found = app::award::reached_by(&self.app, wanted).await?;
        let keyed = found.into_iter().map(|((customer, key), rows)| {
            let rows = rows.into_iter().map(Arc::new).collect();
            (AwardsReachedBy(customer, key), rows)
        });
        Ok(keyed.collect())
    }
}

/// A page of a customer's awards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwardsOf(pub CustomerId, pub Page, pub AwardFilter);

impl Loader<AwardsOf> for Loaders {
    type Value = Slice<Award>;
    type Error = Error;

    async fn load(&self, keys: &[AwardsOf]) -> Loaded<AwardsOf, Slice<Award>> {
        let mut loaded = HashMap::new();
        for ((page, filter), customers) in grouped(keys, |key| ((key.1.clone(), key.2.clone()), key.0)) {
            let slices = app::award::of_customers_by_page(&self.app, customers, &page, &filter).await?;
            loaded.extend(slices.into_iter().map(|(id, slice)| (AwardsOf(id, page.clone(), filter.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// A page of a customer's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerOf(pub CustomerId, pub Page);

impl Loader<LedgerOf> for Loaders {
    type Value = Slice<LedgerEntry>;
    type Error = Error;

    async fn load(&self, keys: &[LedgerOf]) -> Loaded<LedgerOf, Slice<LedgerEntry>> {
        let mut loaded = HashMap::new();
        for (page, customers) in grouped(keys, |key| (key.1.clone(), key.0)) {
            let slices = app::ledger::of_customers_by_page(&self.app, customers, &page).await?;
            loaded.extend(slices.into_iter().map(|(id, slice)| (LedgerOf(id, page.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// A page of a customer's purchases.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PurchasesOf(pub CustomerId, pub Page);

impl Loader<PurchasesOf> for Loaders {
    type Value = Slice<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[PurchasesOf]) -> Loaded<PurchasesOf, Slice<Purchase>> {
        let mut loaded = HashMap::new();
        for (page, customers) in grouped(keys, |key| (key.1.clone(), key.0)) {
            let slices = app::purchase::of_customers_by_page(&self.app, customers, &page).await?;
            loaded.extend(slices.into_iter().map(|(id, slice)| (PurchasesOf(id, page.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// Where a customer stands in the running campaigns, or in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressOf(pub Arc<Customer>, pub Option<CampaignId>);

impl Hash for ProgressOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.id, self.0.version, self.1).hash(state);
    }
}

impl Loader<ProgressOf> for Loaders {
    type Value = Vec<CampaignProgress>;
    type Error = Error;

    async fn load(&self, keys: &[ProgressOf]) -> Loaded<ProgressOf, Vec<CampaignProgress>> {
        let mut loaded = HashMap::new();
        for (campaign, customers) in grouped(keys, |key| (key.1, Arc::clone(&key.0))) {
            let progress = app::reading::progress::of(&self.app, &customers, campaign).await?;
            for (customer, of_customer) in customers.into_iter().zip(progress) {
                loaded.insert(ProgressOf(customer, campaign), of_customer);
            }
        }
        Ok(loaded)
    }
}

/// A page of an award's evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceOf(pub Arc<Award>, pub Page);

impl Hash for EvidenceOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.customer_id, self.0.number, self.0.version, &self.1).hash(state);
    }
}

impl Loader<EvidenceOf> for Loaders {
    type Value = Slice<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[EvidenceOf]) -> Loaded<EvidenceOf, Slice<Purchase>> {
        let mut loaded = HashMap::new();
        for (page, awards) in grouped(keys, |key| (key.1.clone(), Arc::clone(&key.0))) {
            let slices = app::reading::evidence::pages(&self.app, &awards, &page).await?;
            loaded
                .extend(awards.into_iter().zip(slices).map(|(award, slice)| (EvidenceOf(award, page.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// A campaign's budget; none: it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetOf(pub CampaignId);

impl Loader<BudgetOf> for Loaders {
    type Value = Budget;
    type Error = Error;

    async fn load(&self, keys: &[BudgetOf]) -> Loaded<BudgetOf, Budget> {
        let found = app::stats::budgets(&self.app, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, budget)| (BudgetOf(id), budget)).collect())
    }
}

/// How far a campaign's backfill is: customers done, of how many; none: its past is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackfillOf(pub CampaignId);

impl Loader<BackfillOf> for Loaders {
    type Value = (i64, i64);
    type Error = Error;

    async fn load(&self, keys: &[BackfillOf]) -> Loaded<BackfillOf, (i64, i64)> {
        let campaigns: Vec<CampaignId> = keys.iter().map(|key| key.0).collect();
        let found = app::jobs::evaluation::load_backfills(&self.app, &campaigns).await?;
        Ok(found.into_iter().map(|(id, progress)| (BackfillOf(id), progress)).collect())
    }
}

/// A campaign's totals; none: it awarded nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatsOf(pub CampaignId);

impl Loader<StatsOf> for Loaders {
    type Value = Totals;
    type Error = Error;

    async fn load(&self, keys: &[StatsOf]) -> Loaded<StatsOf, Totals> {
        let admin = self.viewer.require_admin()?;
        let found = app::stats::of(&self.app, &admin, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, totals)| (StatsOf(id), totals)).collect())
    }
}

/// Keys by their arguments: those of equal ones are loaded together.
fn grouped<K, A: Hash + Eq, T>(keys: &[K], split: impl Fn(&K) -> (A, T)) -> HashMap<A, Vec<T>> {
    let mut groups: HashMap<A, Vec<T>> = HashMap::new();
    for (arguments, parent) in keys.iter().map(split) {
        groups.entry(arguments).or_default().push(parent);
    }
    groups
}
