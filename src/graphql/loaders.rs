//! Loaders for nested fields. They load what all parents of a level need together, so that a request takes as many
//! statements for fifty customers as for one. Loaders cache nothing: the response to a mutation shows what the mutation
//! changed.
//!
//! A key `Find…` names something that the viewer asks for, and the loader checks whether the viewer may see it. Any
//! other key belongs to something that the viewer has already been shown.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_graphql::dataloader::{DataLoader, Loader};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::reads::Reads;
use crate::app::award::{AwardFilter, Reaching};
use crate::app::campaign::set::{Campaign, CampaignSet};
use crate::app::customer::Current;
use crate::app::error::Error;
use crate::app::model::{
    Award, CampaignId, Customer, CustomerId, DeadLetter, Job, LedgerEntry, Purchase, Redemption, Refund, Reward,
    RewardId, TrailEntry,
};
use crate::app::reading::evidence::Evidence;
use crate::app::reading::page::{Page, Slice};
use crate::app::reading::progress::CampaignProgress;
use crate::app::reading::purchase_revision::Content;
use crate::app::reading::snapshot::{Extent, View};
use crate::app::redemption::State;
use crate::app::viewer::Viewer;
use crate::app::{self, App};
use crate::engine::account::Totals;
use crate::engine::budget::Budget;
use crate::engine::reward::Units;

/// The loaders of one request, with the rights of its viewer.
pub struct Loaders {
    app: Arc<App>,
    viewer: Viewer,
    /// The campaigns at the revision that this request's look-up of customers found, so that both are equally current.
    /// Only queries look customers up, so the response to a mutation never shows campaigns from before the mutation.
    campaigns: OnceLock<Arc<CampaignSet>>,
    reads: Reads,
}

impl Loaders {
    /// The application, for a read of anything but customers in the cache and campaigns.
    fn app(&self) -> &App {
        self.reads.note_other();
        &self.app
    }

    /// Creates the loaders of one request. Each load begins when a turn of the request ends.
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

/// The turns of a request. A turn is one poll of the request. Loads begin at the end of the turn in which they were
/// requested: by then, every resolver that could proceed has requested its loads too. A fixed delay would be too short
/// on a busy machine and too long on an idle one.
///
/// Therefore a resolver that loads must be polled by the request itself, not in a task of its own.
#[derive(Clone, Default)]
pub struct Turns(Arc<Notify>);

impl Turns {
    /// Ends the current turn: the loads that were requested in it begin.
    pub fn end(&self) {
        self.0.notify_waiters();
    }
}

type Loaded<K, V> = Result<HashMap<K, V>, Error>;

/// A customer by external id, the version that the viewer has seen, and how much of the customer to load.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindCustomer(pub String, pub Option<i64>, pub Extent);

impl Loader<FindCustomer> for Loaders {
    type Value = Current;
    type Error = Error;

    async fn load(&self, keys: &[FindCustomer]) -> Loaded<FindCustomer, Current> {
        // A customer that is requested twice is loaded once, so that the response shows one version of the customer.
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
            match &current.view {
                Some(view) => self.reads.note(name, view),
                None => self.reads.note_other(),
            }
        }
        Ok(keys.iter().filter_map(|key| Some((key.clone(), found.get(&key.0)?.clone()))).collect())
    }
}

/// The snapshot of a customer, by external id, at least at this version. It is not checked whether the viewer may see the customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewOf(pub String, pub i64);

impl Loader<ViewOf> for Loaders {
    type Value = View;
    type Error = Error;

    async fn load(&self, keys: &[ViewOf]) -> Loaded<ViewOf, View> {
        let names: Vec<_> = keys.iter().map(|ViewOf(name, version)| (name.clone(), Some(*version))).collect();
        let found = self.app().snapshots().find(&names, Extent::Balance).await?;
        Ok(keys.iter().filter_map(|key| Some((key.clone(), found.get(&key.0)?.clone()))).collect())
    }
}

/// A purchase by external id, if the viewer may see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FindPurchase(pub String);

impl Loader<FindPurchase> for Loaders {
    type Value = Arc<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[FindPurchase]) -> Loaded<FindPurchase, Arc<Purchase>> {
        let names = keys.iter().map(|key| key.0.clone()).collect();
        let found = app::purchase::find(self.app(), self.viewer.require_reader()?, names).await?;
        Ok(found.into_iter().map(|(name, row)| (FindPurchase(name), Arc::new(row))).collect())
    }
}

/// An award by customer and number, if the viewer may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindAward(pub CustomerId, pub i64);

impl Loader<FindAward> for Loaders {
    type Value = Arc<Award>;
    type Error = Error;

    async fn load(&self, keys: &[FindAward]) -> Loaded<FindAward, Arc<Award>> {
        let wanted = keys.iter().map(|key| (key.0, key.1)).collect();
        let found = app::award::find(self.app(), self.viewer.require_reader()?, wanted).await?;
        Ok(found.into_iter().map(|((customer, number), row)| (FindAward(customer, number), Arc::new(row))).collect())
    }
}

/// A ledger entry by customer and sequence, if the viewer may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindLedgerEntry(pub CustomerId, pub i64);

impl Loader<FindLedgerEntry> for Loaders {
    type Value = Arc<LedgerEntry>;
    type Error = Error;

    async fn load(&self, keys: &[FindLedgerEntry]) -> Loaded<FindLedgerEntry, Arc<LedgerEntry>> {
        let wanted = keys.iter().map(|key| (key.0, key.1)).collect();
        let found = app::ledger::find(self.app(), self.viewer.require_reader()?, wanted).await?;
        let keyed = found.into_iter().map(|((customer, sequence), row)| {
            let key = FindLedgerEntry(customer, sequence);
            (key, Arc::new(row))
        });
        Ok(keyed.collect())
    }
}

/// A campaign that the viewer or an award names, if the viewer may see it.
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
            // A campaign that an award names may have been activated after the customers were looked up.
            None => app::campaign::list::find(&*self.app().campaigns().await?, reader, ids()),
        };
        Ok(found.into_iter().map(|(id, campaign)| (FindCampaign(id), campaign)).collect())
    }
}

/// An entry of the trail, if the viewer may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindTrailEntry(pub i64);

impl Loader<FindTrailEntry> for Loaders {
    type Value = Arc<TrailEntry>;
    type Error = Error;

    async fn load(&self, keys: &[FindTrailEntry]) -> Loaded<FindTrailEntry, Arc<TrailEntry>> {
        // To everyone but admins, no entry exists.
        let Ok(admin) = self.viewer.require_admin() else { return Ok(HashMap::new()) };
        let found = app::reading::trail::find(self.app(), &admin, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, row)| (FindTrailEntry(id), Arc::new(row))).collect())
    }
}

/// A reward by id, if the viewer may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindReward(pub RewardId);

impl Loader<FindReward> for Loaders {
    type Value = Arc<Reward>;
    type Error = Error;

    async fn load(&self, keys: &[FindReward]) -> Loaded<FindReward, Arc<Reward>> {
        let ids = keys.iter().map(|key| key.0).collect();
        let found = app::reward::find(self.app(), self.viewer.require_reader()?, ids).await?;
        Ok(found.into_iter().map(|(id, row)| (FindReward(id), Arc::new(row))).collect())
    }
}

/// The reward of a redemption or an entry that the viewer has been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RewardOf(pub RewardId);

impl Loader<RewardOf> for Loaders {
    type Value = Arc<Reward>;
    type Error = Error;

    async fn load(&self, keys: &[RewardOf]) -> Loaded<RewardOf, Arc<Reward>> {
        let found = app::reward::by_ids(self.app(), keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, row)| (RewardOf(id), Arc::new(row))).collect())
    }
}

/// The units of a reward that the viewer has been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnitsOf(pub RewardId);

impl Loader<UnitsOf> for Loaders {
    type Value = Units;
    type Error = Error;

    async fn load(&self, keys: &[UnitsOf]) -> Loaded<UnitsOf, Units> {
        let found = app::reward::units_now(self.app(), keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, units)| (UnitsOf(id), units)).collect())
    }
}

/// A redemption by customer and number, if the viewer may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindRedemption(pub CustomerId, pub i64);

impl Loader<FindRedemption> for Loaders {
    type Value = Arc<Redemption>;
    type Error = Error;

    async fn load(&self, keys: &[FindRedemption]) -> Loaded<FindRedemption, Arc<Redemption>> {
        let wanted = keys.iter().map(|key| (key.0, key.1)).collect();
        let found = app::redemption::find(self.app(), self.viewer.require_reader()?, wanted).await?;
        let keyed = |((customer, number), row)| (FindRedemption(customer, number), Arc::new(row));
        Ok(found.into_iter().map(keyed).collect())
    }
}

/// The codes of a redemption that the viewer has been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodesOf(pub CustomerId, pub i64);

impl Loader<CodesOf> for Loaders {
    type Value = Vec<String>;
    type Error = Error;

    async fn load(&self, keys: &[CodesOf]) -> Loaded<CodesOf, Vec<String>> {
        let found = app::redemption::codes(self.app(), keys.iter().map(|key| (key.0, key.1)).collect()).await?;
        Ok(found.into_iter().map(|((customer, number), codes)| (CodesOf(customer, number), codes)).collect())
    }
}

/// A page of the redemptions of a customer, in one of these states.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedemptionsOf(pub CustomerId, pub Page, pub Option<Vec<State>>);

impl Loader<RedemptionsOf> for Loaders {
    type Value = Slice<Redemption>;
    type Error = Error;

    async fn load(&self, keys: &[RedemptionsOf]) -> Loaded<RedemptionsOf, Slice<Redemption>> {
        let mut loaded = HashMap::new();
        for ((page, states), customers) in grouped(keys, |key| ((key.1.clone(), key.2.clone()), key.0)) {
            let slices = app::redemption::of_customers_by_page(self.app(), customers, &page, states.as_deref()).await?;
            let keyed = |(id, slice)| (RedemptionsOf(id, page.clone(), states.clone()), slice);
            loaded.extend(slices.into_iter().map(keyed));
        }
        Ok(loaded)
    }
}

/// A job by id, if the viewer may see it. For everyone but admins, no job exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindJob(pub i64);

impl Loader<FindJob> for Loaders {
    type Value = Arc<Job>;
    type Error = Error;

    async fn load(&self, keys: &[FindJob]) -> Loaded<FindJob, Arc<Job>> {
        let Ok(admin) = self.viewer.require_admin() else { return Ok(HashMap::new()) };
        let found = app::jobs::list::find(self.app(), &admin, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, row)| (FindJob(id), Arc::new(row))).collect())
    }
}

/// A dead letter by id, if the viewer may see it. For everyone but admins, no dead letter exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FindDeadLetter(pub i64);

impl Loader<FindDeadLetter> for Loaders {
    type Value = Arc<DeadLetter>;
    type Error = Error;

    async fn load(&self, keys: &[FindDeadLetter]) -> Loaded<FindDeadLetter, Arc<DeadLetter>> {
        let Ok(admin) = self.viewer.require_admin() else { return Ok(HashMap::new()) };
        let found = app::dead_letter::find(self.app(), &admin, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, row)| (FindDeadLetter(id), Arc::new(row))).collect())
    }
}

/// The customer of a row that the viewer has been shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CustomerOf(pub CustomerId);

impl Loader<CustomerOf> for Loaders {
    type Value = Arc<Customer>;
    type Error = Error;

    async fn load(&self, keys: &[CustomerOf]) -> Loaded<CustomerOf, Arc<Customer>> {
        let found = app::customer::by_ids(self.app(), keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, row)| (CustomerOf(id), Arc::new(row))).collect())
    }
}

/// The purchase of a row or payload that the viewer has been shown, by external id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PurchaseOf(pub String);

impl Loader<PurchaseOf> for Loaders {
    type Value = Arc<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[PurchaseOf]) -> Loaded<PurchaseOf, Arc<Purchase>> {
        let found = app::purchase::by_external_ids(self.app(), keys.iter().map(|key| key.0.clone()).collect()).await?;
        Ok(found.into_iter().map(|(name, row)| (PurchaseOf(name), Arc::new(row))).collect())
    }
}

/// The award of a ledger entry that the viewer has been shown, by customer and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AwardOf(pub CustomerId, pub i64);

impl Loader<AwardOf> for Loaders {
    type Value = Arc<Award>;
    type Error = Error;

    async fn load(&self, keys: &[AwardOf]) -> Loaded<AwardOf, Arc<Award>> {
        let found = app::award::by_keys(self.app(), keys.iter().map(|key| (key.0, key.1)).collect()).await?;
        Ok(found.into_iter().map(|((customer, number), row)| (AwardOf(customer, number), Arc::new(row))).collect())
    }
}

/// The refunds of the purchase with this external id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefundsOf(pub String);

impl Loader<RefundsOf> for Loaders {
    type Value = Arc<[Refund]>;
    type Error = Error;

    async fn load(&self, keys: &[RefundsOf]) -> Loaded<RefundsOf, Arc<[Refund]>> {
        let found = app::purchase::refunds_of(self.app(), keys.iter().map(|key| key.0.clone()).collect()).await?;
        Ok(found.into_iter().map(|(purchase, rows)| (RefundsOf(purchase), rows.into())).collect())
    }
}

/// The `STANDING` and `DECLINED` awards that a purchase reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwardsReachedBy(pub Reaching);

impl Loader<AwardsReachedBy> for Loaders {
    type Value = Vec<Arc<Award>>;
    type Error = Error;

    async fn load(&self, keys: &[AwardsReachedBy]) -> Loaded<AwardsReachedBy, Vec<Arc<Award>>> {
        let wanted = keys.iter().map(|key| key.0.clone()).collect();
        let found = app::award::reached_by(self.app(), wanted).await?;
        let found: HashMap<_, Vec<Arc<Award>>> =
            found.into_iter().map(|(key, rows)| (key, rows.into_iter().map(Arc::new).collect())).collect();
        let of = |key: &AwardsReachedBy| {
            let found = found.get(&(key.0.customer, key.0.key.external_id.clone()));
            (key.clone(), found.cloned().unwrap_or_default())
        };
        Ok(keys.iter().map(of).collect())
    }
}

/// A page of a customer's awards that match the filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwardsOf(pub CustomerId, pub Page, pub AwardFilter);

impl Loader<AwardsOf> for Loaders {
    type Value = Slice<Award>;
    type Error = Error;

    async fn load(&self, keys: &[AwardsOf]) -> Loaded<AwardsOf, Slice<Award>> {
        let mut loaded = HashMap::new();
        for ((page, filter), customers) in grouped(keys, |key| ((key.1.clone(), key.2.clone()), key.0)) {
            let slices = app::award::of_customers_by_page(self.app(), customers, &page, &filter).await?;
            loaded.extend(slices.into_iter().map(|(id, slice)| (AwardsOf(id, page.clone(), filter.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// A page of the ledger of a customer, up to a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerOf(pub CustomerId, pub i64, pub Page);

impl Loader<LedgerOf> for Loaders {
    type Value = Slice<LedgerEntry>;
    type Error = Error;

    async fn load(&self, keys: &[LedgerOf]) -> Loaded<LedgerOf, Slice<LedgerEntry>> {
        let mut loaded = HashMap::new();
        for (page, mut rest) in grouped(keys, |key| (key.2.clone(), (key.0, key.1))) {
            // A customer of whom the response shows two versions is read twice.
            while !rest.is_empty() {
                let mut customers = HashMap::new();
                rest.retain(|(id, to)| *customers.entry(*id).or_insert(*to) != *to);
                let slices = app::ledger::of_customers_by_page(self.app(), &customers, &page).await?;
                loaded
                    .extend(slices.into_iter().map(|(id, slice)| (LedgerOf(id, customers[&id], page.clone()), slice)));
            }
        }
        Ok(loaded)
    }
}

/// A page of the purchases of a customer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PurchasesOf(pub CustomerId, pub Page);

impl Loader<PurchasesOf> for Loaders {
    type Value = Slice<Purchase>;
    type Error = Error;

    async fn load(&self, keys: &[PurchasesOf]) -> Loaded<PurchasesOf, Slice<Purchase>> {
        let mut loaded = HashMap::new();
        for (page, customers) in grouped(keys, |key| (key.1.clone(), key.0)) {
            let slices = app::purchase::of_customers_by_page(self.app(), customers, &page).await?;
            loaded.extend(slices.into_iter().map(|(id, slice)| (PurchasesOf(id, page.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// The progress of a customer in all running campaigns, or in one of them.
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
            let progress = app::reading::progress::load(self.app(), &customers, campaign).await?;
            for (customer, of_customer) in customers.into_iter().zip(progress) {
                loaded.insert(ProgressOf(customer, campaign), of_customer);
            }
        }
        Ok(loaded)
    }
}

/// The customer with this external id, which a content of a purchase that the viewer has been shown names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomerNamed(pub String);

impl Loader<CustomerNamed> for Loaders {
    type Value = Arc<Customer>;
    type Error = Error;

    async fn load(&self, keys: &[CustomerNamed]) -> Loaded<CustomerNamed, Arc<Customer>> {
        let names = keys.iter().map(|key| key.0.clone()).collect();
        let found = app::customer::by_external_ids(self.app(), names).await?;
        Ok(found.into_iter().map(|(name, row)| (CustomerNamed(name), Arc::new(row))).collect())
    }
}

/// A page of the contents of a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionsOf(pub Arc<Purchase>, pub Page);

impl Hash for RevisionsOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.0.external_id, self.0.version, &self.1).hash(state);
    }
}

impl Loader<RevisionsOf> for Loaders {
    type Value = Slice<Content>;
    type Error = Error;

    async fn load(&self, keys: &[RevisionsOf]) -> Loaded<RevisionsOf, Slice<Content>> {
        let mut loaded = HashMap::new();
        for (page, purchases) in grouped(keys, |key| (key.1.clone(), Arc::clone(&key.0))) {
            let slices = app::reading::purchase_revision::pages(self.app(), &purchases, &page).await?;
            let keyed = purchases.into_iter().zip(slices);
            loaded.extend(keyed.map(|(purchase, slice)| (RevisionsOf(purchase, page.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// A page of the evidence of an award.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceOf(pub Arc<Award>, pub Page);

impl Hash for EvidenceOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.customer_id, self.0.number, self.0.version, &self.1).hash(state);
    }
}

impl Loader<EvidenceOf> for Loaders {
    type Value = Slice<Evidence>;
    type Error = Error;

    async fn load(&self, keys: &[EvidenceOf]) -> Loaded<EvidenceOf, Slice<Evidence>> {
        let mut loaded = HashMap::new();
        for (page, awards) in grouped(keys, |key| (key.1.clone(), Arc::clone(&key.0))) {
            let reader = self.viewer.require_reader()?;
            let slices = app::reading::evidence::pages(self.app(), reader, &awards, &page).await?;
            loaded
                .extend(awards.into_iter().zip(slices).map(|(award, slice)| (EvidenceOf(award, page.clone()), slice)));
        }
        Ok(loaded)
    }
}

/// The budget of a campaign. Nothing is loaded for a campaign without a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetOf(pub CampaignId);

impl Loader<BudgetOf> for Loaders {
    type Value = Budget;
    type Error = Error;

    async fn load(&self, keys: &[BudgetOf]) -> Loaded<BudgetOf, Budget> {
        let found = app::stats::budgets(self.app(), keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, budget)| (BudgetOf(id), budget)).collect())
    }
}

/// The backfill of a campaign: the number of customers done, and of all customers. Nothing is loaded if no backfill is
/// open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackfillOf(pub CampaignId);

impl Loader<BackfillOf> for Loaders {
    type Value = (i64, i64);
    type Error = Error;

    async fn load(&self, keys: &[BackfillOf]) -> Loaded<BackfillOf, (i64, i64)> {
        let campaigns: Vec<CampaignId> = keys.iter().map(|key| key.0).collect();
        let found = app::jobs::evaluation::load_backfills(self.app(), &campaigns).await?;
        Ok(found.into_iter().map(|(id, progress)| (BackfillOf(id), progress)).collect())
    }
}

/// The totals of a campaign. Nothing is loaded for a campaign that has awarded nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatsOf(pub CampaignId);

impl Loader<StatsOf> for Loaders {
    type Value = Totals;
    type Error = Error;

    async fn load(&self, keys: &[StatsOf]) -> Loaded<StatsOf, Totals> {
        let admin = self.viewer.require_admin()?;
        let found = app::stats::load(self.app(), &admin, keys.iter().map(|key| key.0).collect()).await?;
        Ok(found.into_iter().map(|(id, totals)| (StatsOf(id), totals)).collect())
    }
}

/// Groups keys by their arguments: keys with equal arguments are loaded together. `split` returns the arguments and the
/// parent of a key.
fn grouped<K, A: Hash + Eq, T>(keys: &[K], split: impl Fn(&K) -> (A, T)) -> HashMap<A, Vec<T>> {
    let mut groups: HashMap<A, Vec<T>> = HashMap::new();
    for (arguments, parent) in keys.iter().map(split) {
        groups.entry(arguments).or_default().push(parent);
    }
    groups
}
