//! An application on a throwaway database of either engine. Tests call its use cases directly, without GraphQL and
//! HTTP. Its clock stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use entity::{AwardStatus, CampaignId, award, campaign, customer, ledger_entry, lot};
use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, Set};
use windfall::app::audit::difference::Difference;
use windfall::app::campaign::input::CampaignInput;
use windfall::app::clock::Clock;
use windfall::app::database::Database;
use windfall::app::error::Error;
use windfall::app::purchase::RecordPurchase;
use windfall::app::recorder::fact::{Fact, Recorded};
use windfall::app::viewer::{Actor, Admin, Shop};
use windfall::app::{App, audit};
use windfall::config::Config;
use windfall::engine::rule::{Period, Rule};
use windfall::ingest::topics;

use super::graphql::{admin, origin, storefront};
use super::postgres::Postgres;
use super::sqlite::Sqlite;

/// The database engine that a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

pub(crate) const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

/// 2026-11-02T12:00:00Z in microseconds: the instant that the clock shows at first.
pub(crate) const NOW: i64 = 1_793_620_800_000_000;
pub(crate) const DAY: i64 = 86_400_000_000;
pub(crate) const HOUR: i64 = 3_600_000_000;

/// The URL of an empty database. An SQLite database is removed with the second value.
pub(crate) async fn scratch(engine: Engine) -> (String, Option<Sqlite>) {
    match engine {
        Engine::Sqlite => {
            let sqlite = Sqlite::new();
            (sqlite.url(), Some(sqlite))
        }
        Engine::Postgres => (Postgres::shared().create_database().await, None),
    }
}

pub(crate) struct TestApp {
    pub(crate) app: Arc<App>,
    now: Arc<AtomicI64>,
    pub(crate) url: String,
    _sqlite: Option<Sqlite>,
}

/// The number of cases to run: `some`, or `many` with `WINDFALL_TEST_SIZE=full`.
pub(crate) fn cases(some: usize, many: usize) -> usize {
    if std::env::var("WINDFALL_TEST_SIZE").is_ok_and(|size| size == "full") { many } else { some }
}

/// The default configuration on a database.
pub(crate) fn settings(url: &str) -> Config {
    let mut config = Config::defaults().expect("valid defaults");
    config.database.url = url.to_owned().into();
    config
}

pub(crate) async fn open(url: &str) -> Database {
    Database::connect(&settings(url).database).await.unwrap()
}

impl TestApp {
    pub(crate) async fn start(engine: Engine) -> Self {
        Self::start_with(engine, |_| {}).await
    }

    /// An application on an empty database, whose configuration differs from the default.
    pub(crate) async fn start_with(engine: Engine, configure: impl FnOnce(&mut Config)) -> Self {
        let (url, sqlite) = scratch(engine).await;
        let mut config = settings(&url);
        configure(&mut config);
        Self { _sqlite: sqlite, ..Self::on(config).await }
    }

    /// An application on an existing database, which is migrated first.
    pub(crate) async fn on(config: Config) -> Self {
        let database = Database::connect(&config.database).await.unwrap();
        database.migrate().await.unwrap();
        let now = Arc::new(AtomicI64::new(NOW));
        let app = App::start(database, Clock::Fixed(Arc::clone(&now)), &config).await.unwrap();
        // Dead letters can be replayed. No topic is read.
        topics::start(&app, None).unwrap();
        Self { app, now, url: config.database.url.expose().to_owned(), _sqlite: None }
    }

    /// Another application on the same database, with the same clock.
    pub(crate) async fn another(&self) -> Arc<App> {
        let clock = Clock::Fixed(Arc::clone(&self.now));
        App::start(open(&self.url).await, clock, &settings(&self.url)).await.unwrap()
    }

    /// The same database with a new application, in place of one that was stopped.
    pub(crate) async fn again(self) -> Self {
        Self { app: self.another().await, ..self }
    }

    /// The URL of the database, as the configuration key `database.url` takes it.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn set_now(&self, now: i64) {
        self.now.store(now, Ordering::SeqCst);
    }

    pub(crate) fn admin() -> Admin {
        admin().require_admin().unwrap()
    }

    pub(crate) fn actor() -> Actor {
        admin().require_actor(&origin()).unwrap()
    }

    pub(crate) fn shop() -> Shop {
        storefront().require_shop().unwrap()
    }

    /// A draft with a rule of the engine. The checks of a caller's input are bypassed.
    pub(crate) async fn draft(&self, name: &str, rule: &Rule, period: &Period) -> CampaignId {
        let tx = self.app.database.begin().await.unwrap();
        let row = campaign::ActiveModel {
            name: Set(name.to_owned()),
            created_at: Set(0),
            starts_at: Set(period.starts_at.0),
            ends_at: Set(period.ends_at.map(|end| end.0)),
            rule: Set(serde_json::to_value(rule).unwrap()),
            pauses: Set(serde_json::to_value(&period.pauses).unwrap()),
            set_revision: Set(0),
            ended: Set(false),
            ..Default::default()
        };
        let id = row.insert(&tx).await.unwrap().id;
        tx.commit().await.unwrap();
        id
    }

    /// Creates a campaign as a caller does, activates it, and completes its backfill.
    pub(crate) async fn campaign(&self, input: serde_json::Value) -> CampaignId {
        let input: CampaignInput = serde_json::from_value(input).unwrap();
        let actor = Self::actor();
        let campaign = windfall::app::campaign::create(&self.app, &actor, input, None).await.unwrap();
        self.activate(campaign.id()).await;
        campaign.id()
    }

    pub(crate) async fn activate(&self, id: CampaignId) {
        windfall::app::campaign::activate(&self.app, &Self::actor(), id).await.unwrap();
        windfall::app::jobs::runner::finish(&self.app).await.unwrap();
    }

    pub(crate) async fn record(&self, facts: Vec<Fact>) -> Vec<Recorded> {
        let answers = self.app.recorder.record(Self::shop().who(), facts).await.unwrap();
        answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect()
    }

    /// Records one purchase in EUR.
    pub(crate) async fn buy(&self, customer: &str, id: &str, at: i64, total: &str) -> Result<Recorded, Error> {
        self.send(purchase_input(customer, id, at, total)).await
    }

    /// Records a purchase as a shop sends it.
    pub(crate) async fn send(&self, input: RecordPurchase) -> Result<Recorded, Error> {
        let mut answers = windfall::app::purchase::record(&self.app, &Self::shop(), vec![(vec![], input)]).await?;
        answers.remove(0)
    }

    /// A purchase in EUR that passed its checks.
    pub(crate) fn buy_fact(&self, customer: &str, id: &str, at: i64, total: &str) -> Fact {
        let checked = purchase_input(customer, id, at, total).check(&[], self.app.clock.now());
        Fact::Purchase(checked.expect("a legal purchase"))
    }

    /// The available lots of a customer: when each expires, and what of it is left, reserved, spent and expired.
    pub(crate) async fn lots(&self, external_id: &str) -> Vec<(String, [i64; 4])> {
        let Some(customer) = self.customer(external_id).await else { return Vec::new() };
        let lots = lot::Entity::find()
            .filter(lot::Column::CustomerId.eq(customer.id))
            .filter(lot::Column::MaturesAt.eq(0))
            .order_by_asc(lot::Column::ExpiresAt)
            .all(self.app.database.read())
            .await
            .unwrap();
        let expiry = |at| windfall::engine::time::Instant(at).to_string();
        lots.iter().map(|lot| (expiry(lot.expires_at), [lot.left, lot.reserved, lot.spent, lot.expired])).collect()
    }

    pub(crate) async fn audit(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        audit::run(&self.app, None, |difference| differences.push(difference.clone())).await.unwrap();
        differences
    }

    #[track_caller]
    pub(crate) fn audit_is_clean(&self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let differences = self.audit().await;
            let text: Vec<String> = differences.iter().map(ToString::to_string).collect();
            assert!(text.is_empty(), "audit at {caller}:\n{}", text.join("\n"));
        }
    }

    pub(crate) async fn customer(&self, external_id: &str) -> Option<customer::Model> {
        customer::Entity::find()
            .filter(customer::Column::ExternalId.eq(external_id))
            .one(self.app.database.read())
            .await
            .unwrap()
    }

    /// The STANDING and DECLINED awards of a customer, in award order.
    pub(crate) async fn awards(&self, external_id: &str) -> Vec<award::Model> {
        let Some(customer) = self.customer(external_id).await else { return Vec::new() };
        award::Entity::find()
            .filter(award::Column::CustomerId.eq(customer.id))
            .filter(award::Column::Status.ne(AwardStatus::Reversed))
            .order_by_asc(award::Column::EarnedAt)
            .order_by_asc(award::Column::PurchaseExternalId)
            .order_by_asc(award::Column::Ordinal)
            .all(self.app.database.read())
            .await
            .unwrap()
    }

    pub(crate) async fn ledger(&self, external_id: &str) -> Vec<ledger_entry::Model> {
        let Some(customer) = self.customer(external_id).await else { return Vec::new() };
        ledger_entry::Entity::find()
            .filter(ledger_entry::Column::CustomerId.eq(customer.id))
            .order_by_asc(ledger_entry::Column::Sequence)
            .all(self.app.database.read())
            .await
            .unwrap()
    }
}

pub(crate) fn purchase_input(customer: &str, id: &str, at: i64, total: &str) -> RecordPurchase {
    RecordPurchase {
        external_id: id.to_owned(),
        customer_external_id: customer.to_owned(),
        purchased_at: windfall::engine::time::Instant(at).to_string(),
        total: total.to_owned(),
        currency: "EUR".to_owned(),
        refunded: None,
        refunded_until: None,
        channel: None,
        lines: None,
        revision: 0,
    }
}
