//! An application on a throwaway database, with a clock that stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use windfall::app::App;
use windfall::app::clock::Clock;
use windfall::app::database::Database;
use windfall::app::viewer::Viewer;
use windfall::config;
use windfall::engine::time::{Instant, parse_instant};
use windfall::gate::Rights;
use windfall::graphql::session::Caller;
use windfall::http::graphql::{Executor, GraphqlRequest};

use super::direct::{cache, redis};
use super::postgres::Postgres;
use super::sqlite::Sqlite;

/// What the clock shows at first.
pub(crate) const NOW: &str = "2026-11-02T12:00:00Z";

pub(crate) struct TestApp {
    pub(crate) app: Arc<App>,
    pub(crate) executor: Arc<Executor>,
    clock: Arc<AtomicI64>,
    _sqlite: Option<Sqlite>,
}

/// A customer's token.
pub(crate) fn customer(external_id: &str) -> Viewer {
    Viewer::Customer(external_id.to_owned())
}

/// The shop's token.
pub(crate) fn storefront() -> Viewer {
    Viewer::Storefront("shop".to_owned())
}

/// An admin's token.
pub(crate) fn admin() -> Viewer {
    Viewer::Admin("eve".to_owned())
}

impl TestApp {
    pub(crate) async fn sqlite() -> Self {
        Self::with_queue(10_000).await
    }

    /// On SQLite; so many facts may wait to be written.
    pub(crate) async fn with_queue(queue_items: usize) -> Self {
        let sqlite = Sqlite::new();
        let url = sqlite.url();
        Self::on(url, Some(sqlite), queue_items).await
    }

    pub(crate) async fn postgres() -> Self {
        Self::on(Postgres::shared().create_database().await, None, 10_000).await
    }

    async fn on(url: String, sqlite: Option<Sqlite>, queue_items: usize) -> Self {
        Self::of(&url, sqlite, queue_items, &cache(), None).await
    }

    /// A node on this database.
    pub(crate) async fn with(url: &str, cache: &config::Cache, redis_url: Option<String>) -> Self {
        Self::of(url, None, 10_000, cache, redis_url).await
    }

    async fn of(
        url: &str,
        sqlite: Option<Sqlite>,
        queue_items: usize,
        cache: &config::Cache,
        redis_url: Option<String>,
    ) -> Self {
        let options = config::Database {
            url: url.to_owned().into(),
            migrate: true,
            connections: 4,
            statement_timeout: Duration::from_secs(30),
            idle_transaction_timeout: Duration::from_secs(5),
        };
        let database = Database::connect(&options).await.expect("a database");
        database.migrate().await.expect("a migrated database");
        let clock = Arc::new(AtomicI64::new(parse_instant(NOW).expect("an instant").0));
        let writer =
            config::Writer { queue_items, queue_bytes: 64 << 20, batch_items: 256, fold_purchases: 2_048, writers: 2 };
        let app =
            App::start(database, Clock::Fixed(Arc::clone(&clock)), &writer, cache, &redis(redis_url)).await.unwrap();
        let limits = config::Config::defaults().expect("valid defaults").limits;
        let executor = Arc::new(Executor::new(Arc::clone(&app), &limits).expect("a valid schema"));
        Self { app, executor, clock, _sqlite: sqlite }
    }

    /// Changes the database behind the application's back.
    pub(crate) async fn execute(&self, sql: &str) {
        let tx = self.app.database.begin().await.expect("a transaction");
        tx.execute_unprepared(sql).await.expect("a statement that works");
        tx.commit().await.expect("a commit");
    }

    pub(crate) fn set_clock(&self, instant: &str) {
        self.clock.store(parse_instant(instant).expect("an instant").0, Ordering::SeqCst);
    }

    /// The whole answer.
    pub(crate) async fn run(&self, viewer: &Viewer, query: &str, variables: Value) -> Value {
        let request =
            GraphqlRequest { query: query.to_owned(), variables: variables.to_string(), ..GraphqlRequest::default() };
        let caller = Caller { viewer: viewer.clone(), expires_at: Instant::FOREVER, tells_reads: false };
        let reply = match self.executor.admit(request, Rights { introspection: true, unlisted: true }) {
            Ok(admitted) => self.executor.execute(caller, admitted).await,
            Err(refused) => refused,
        };
        serde_json::to_value(&reply).expect("an answer is JSON")
    }

    /// The data of an answer without errors.
    pub(crate) async fn data(&self, viewer: &Viewer, query: &str, variables: Value) -> Value {
        let mut answer = self.run(viewer, query, variables).await;
        assert_eq!(answer.get("errors"), None, "{query}");
        answer["data"].take()
    }

    /// The codes of an answer's errors.
    pub(crate) async fn codes(&self, viewer: &Viewer, query: &str, variables: Value) -> Vec<String> {
        codes(&self.run(viewer, query, variables).await)
    }

    /// How many statements this query takes.
    pub(crate) async fn statements(&self, viewer: &Viewer, query: &str, variables: Value) -> u64 {
        let before = self.app.database.statements();
        self.data(viewer, query, variables).await;
        self.app.database.statements() - before
    }

    /// Makes and activates a campaign; its id. `input` is laid over a default of three purchases for 10 points.
    pub(crate) async fn campaign(&self, input: Value) -> String {
        let id = self.draft(input).await;
        let activate =
            "mutation($id: ID!) { activateCampaign(id: $id) { campaign { status } userErrors { code path } } }";
        let answer = self.data(&admin(), activate, json!({ "id": id })).await;
        assert_eq!(answer["activateCampaign"]["userErrors"], json!([]));
        id
    }

    /// Makes a campaign; its id.
    pub(crate) async fn draft(&self, input: Value) -> String {
        let query = "mutation($input: CampaignInput!) { \
            createCampaign(input: $input) { campaign { id } userErrors { code path message } } }";
        let answer = self.data(&admin(), query, json!({ "input": campaign_input(input) })).await;
        assert_eq!(answer["createCampaign"]["userErrors"], json!([]));
        text(&answer["createCampaign"]["campaign"]["id"])
    }

    /// Records a purchase of the customer that must be accepted; the payload.
    pub(crate) async fn purchase(&self, id: &str, customer: &str, at: &str, total: &str) -> Value {
        let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
            purchase { id externalId } awards { id points status ordinal earnedAt } balance { available version cursor } \
            replayed userErrors { code path message } } }";
        let input = json!({
            "externalId": id, "customerExternalId": customer, "purchasedAt": at, "total": total, "currency": "EUR",
        });
        let mut answer = self.data(&storefront(), query, json!({ "input": input })).await;
        assert_eq!(answer["recordPurchase"]["userErrors"], json!([]));
        answer["recordPurchase"].take()
    }
}

/// The codes of an answer's errors.
pub(crate) fn codes(answer: &Value) -> Vec<String> {
    let errors = answer["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| text(&error["extensions"]["code"])).collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}

/// `input` laid over a campaign that awards 10 points for three purchases, since the start of the month.
pub(crate) fn campaign_input(input: Value) -> Value {
    let mut whole = json!({
        "name": "Three", "startsAt": "2026-11-01T00:00:00Z", "currency": "EUR",
        "window": { "campaign": "WHOLE" }, "goal": { "purchases": { "atLeast": 3, "repeat": true } },
        "award": { "points": 10 },
    });
    let (Value::Object(fields), Value::Object(over)) = (&mut whole, input) else { panic!("an input is an object") };
    fields.extend(over);
    whole
}

/// Each test on SQLite and on PostgreSQL.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($app:ident: &TestApp) $body:block)+) => {
        $($(#[$doc])* mod $name {
            #[allow(unused_imports, clippy::allow_attributes, reason = "not every test uses all of them")]
            use super::*;

            async fn body($app: &TestApp) $body

            #[tokio::test]
            async fn on_sqlite() {
                body(&TestApp::sqlite().await).await;
            }

            #[tokio::test]
            async fn on_postgres() {
                body(&TestApp::postgres().await).await;
            }
        })+
    };
}
pub(crate) use on_both;
