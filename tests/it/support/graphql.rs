//! An application on a throwaway database, which runs GraphQL requests without HTTP. Its clock stands still.

use std::ops::Deref;
use std::sync::Arc;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use windfall::app::origin::{Origin, RequestId};
use windfall::app::viewer::Viewer;
use windfall::config::Config;
use windfall::engine::time::{Instant, parse_instant};
use windfall::gate::Rights;
use windfall::graphql::session::Caller;
use windfall::http::graphql::{Executor, GraphqlRequest};

use super::app::{Engine, TestApp};

/// The instant that the clock shows at first.
pub(crate) const NOW: &str = "2026-11-02T12:00:00Z";

/// A [`TestApp`] with a GraphQL endpoint.
pub(crate) struct GraphqlApp {
    test: TestApp,
    pub(crate) executor: Arc<Executor>,
}

impl Deref for GraphqlApp {
    type Target = TestApp;

    fn deref(&self) -> &TestApp {
        &self.test
    }
}

/// The viewer that the token of this customer stands for.
pub(crate) fn customer(external_id: &str) -> Viewer {
    Viewer::Customer(external_id.into())
}

pub(crate) fn storefront() -> Viewer {
    Viewer::Storefront("shop".into())
}

pub(crate) fn admin() -> Viewer {
    Viewer::Admin("eve".into())
}

/// The origin of all requests that a [`GraphqlApp`] runs.
pub(crate) fn origin() -> Origin {
    Origin { request_id: RequestId::parse("request-7").unwrap(), address: Some([192, 0, 2, 7].into()) }
}

impl GraphqlApp {
    pub(crate) async fn sqlite() -> Self {
        Self::of(TestApp::start(Engine::Sqlite).await)
    }

    pub(crate) async fn postgres() -> Self {
        Self::of(TestApp::start(Engine::Postgres).await)
    }

    /// An application on an existing database.
    pub(crate) async fn on(config: Config) -> Self {
        Self::of(TestApp::on(config).await)
    }

    pub(crate) fn of(test: TestApp) -> Self {
        let limits = Config::defaults().expect("valid defaults").limits;
        let executor = Arc::new(Executor::new(Arc::clone(&test.app), &limits).expect("a valid schema"));
        Self { test, executor }
    }

    /// Changes the database without the application's knowledge.
    pub(crate) async fn execute(&self, sql: &str) {
        let tx = self.app.database.begin().await.expect("a transaction");
        tx.execute_unprepared(sql).await.expect("a statement that works");
        tx.commit().await.expect("a commit");
    }

    pub(crate) fn set_clock(&self, instant: &str) {
        self.set_now(parse_instant(instant).expect("an instant").0);
    }

    /// Runs a request and returns the whole response.
    pub(crate) async fn run(&self, viewer: &Viewer, query: &str, variables: Value) -> Value {
        let request =
            GraphqlRequest { query: query.to_owned(), variables: variables.to_string(), ..GraphqlRequest::default() };
        let viewer = viewer.clone();
        let caller = Caller { viewer, origin: origin(), expires_at: Instant::FOREVER, tells_reads: false };
        let reply = match self.executor.admit(request, Rights { introspection: true, unlisted: true }) {
            Ok(admitted) => self.executor.execute(caller, admitted).await.0,
            Err(refused) => refused,
        };
        serde_json::to_value(&reply).expect("an answer is JSON")
    }

    /// Runs a request that must have no errors and returns its data.
    pub(crate) async fn data(&self, viewer: &Viewer, query: &str, variables: Value) -> Value {
        let mut answer = self.run(viewer, query, variables).await;
        assert_eq!(answer.get("errors"), None, "{query}");
        answer["data"].take()
    }

    /// The error codes of a response.
    pub(crate) async fn codes(&self, viewer: &Viewer, query: &str, variables: Value) -> Vec<String> {
        codes(&self.run(viewer, query, variables).await)
    }

    /// The number of SQL statements that this query takes.
    pub(crate) async fn statements(&self, viewer: &Viewer, query: &str, variables: Value) -> u64 {
        let before = self.app.database.statements();
        self.data(viewer, query, variables).await;
        self.app.database.statements() - before
    }

    /// Creates and activates a campaign and returns its id. The fields of `input` replace those of [`campaign_input`].
    pub(crate) async fn campaign(&self, input: Value) -> String {
        let id = self.draft(input).await;
        let activate =
            "mutation($id: ID!) { activateCampaign(id: $id) { campaign { status } userErrors { code path } } }";
        let answer = self.data(&admin(), activate, json!({ "id": id })).await;
        assert_eq!(answer["activateCampaign"]["userErrors"], json!([]));
        id
    }

    /// Creates a draft and returns its id. The fields of `input` replace those of [`campaign_input`].
    pub(crate) async fn draft(&self, input: Value) -> String {
        let query = "mutation($input: CampaignInput!) { \
            createCampaign(input: $input) { campaign { id } userErrors { code path message } } }";
        let answer = self.data(&admin(), query, json!({ "input": campaign_input(input) })).await;
        assert_eq!(answer["createCampaign"]["userErrors"], json!([]));
        text(&answer["createCampaign"]["campaign"]["id"])
    }

    /// Records a purchase, which must be accepted, and returns the payload.
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

/// The error codes of a response.
pub(crate) fn codes(answer: &Value) -> Vec<String> {
    let errors = answer["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().map(|error| text(&error["extensions"]["code"])).collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}

/// A campaign that awards 10 points for three purchases, since the start of the month. The fields of `input` replace
/// its own.
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

/// Makes two tests of each function: one on SQLite, one on PostgreSQL.
macro_rules! on_both {
    ($($(#[$doc:meta])* async fn $name:ident($app:ident: &GraphqlApp) $body:block)+) => {
        $($(#[$doc])* mod $name {
            #[allow(unused_imports, clippy::allow_attributes, reason = "not every test uses all of them")]
            use super::*;

            async fn body($app: &GraphqlApp) $body

            #[tokio::test]
            async fn on_sqlite() {
                body(&GraphqlApp::sqlite().await).await;
            }

            #[tokio::test]
            async fn on_postgres() {
                body(&GraphqlApp::postgres().await).await;
            }
        })+
    };
}
pub(crate) use on_both;
