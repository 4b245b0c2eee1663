//! The endpoint over HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use windfall::cli::token::mint;
use windfall::config;
use windfall::engine::time::parse_instant;
use windfall::http::auth::{Role, Verifier};
use windfall::http::router::router;

use crate::support::app::{NOW, TestApp};

struct Server {
    address: SocketAddr,
    client: Client,
    app: TestApp,
}

fn auth() -> config::Auth {
    config::Auth {
        hs256_secret: Some("0123456789abcdef0123456789abcdef".to_owned().into()),
        public_keys: None,
        issuer: "windfall".to_owned(),
        audience: "windfall".to_owned(),
        leeway: Duration::ZERO,
    }
}

fn token(role: Role, subject: &str) -> String {
    mint(&auth(), role, subject, Duration::from_secs(60), parse_instant(NOW).unwrap().0).unwrap()
}

impl Server {
    async fn start() -> Self {
        let app = TestApp::sqlite().await;
        let verifier = Verifier::new(&auth(), parse_instant(NOW).unwrap().0).await.unwrap();
        let mut config = config::Config::defaults().unwrap();
        config.http.body_limit_bytes = 64 * 1024;
        let router = router(app.app.clone(), verifier, &config, TaskTracker::new()).unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, client: Client::builder().no_proxy().build().unwrap(), app }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.client.post(self.url("/graphql")).header(CONTENT_TYPE, "application/json").body(body)
    }

    async fn query(&self, token: &str, query: &str) -> Value {
        let body = json!({ "query": query, "variables": null }).to_string();
        json_of(self.post(body).bearer_auth(token).send().await.unwrap()).await
    }
}

async fn json_of(response: Response) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json; charset=utf-8");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

async fn refused(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body = json_of(response).await;
    assert_eq!(body.get("data"), None);
    (status, body["errors"][0]["extensions"]["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn tokens_become_viewers() {
    let server = Server::start().await;
    let me = "{ me { externalId } }";
    let answer = server.query(&token(Role::Customer, "ada"), me).await;
    assert_eq!(answer, json!({ "data": { "me": { "externalId": "ada" } } }));
    assert_eq!(server.query(&token(Role::Storefront, "shop"), me).await, json!({ "data": { "me": null } }));
    let customers = "{ customers { nodes { externalId } } }";
    assert_eq!(server.query(&token(Role::Admin, "eve"), customers).await["data"]["customers"]["nodes"], json!([]));
    let anonymous = server.post(json!({ "query": me }).to_string()).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::OK);
    let anonymous = json_of(anonymous).await;
    assert_eq!(anonymous["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    assert_eq!(anonymous["data"], json!({ "me": null }));
}

#[tokio::test]
async fn a_bad_token_is_refused_whatever_is_asked() {
    let server = Server::start().await;
    let asks = json!({ "query": "{ __typename }" }).to_string();
    assert_eq!(server.post(asks.clone()).send().await.unwrap().status(), StatusCode::OK);
    let response = server.post(asks.clone()).bearer_auth("nonsense").send().await.unwrap();
    assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(
        refused(server.post(asks).bearer_auth("nonsense")).await,
        (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED".into())
    );
}

#[tokio::test]
async fn what_is_no_request_is_told_as_a_graphql_error() {
    let server = Server::start().await;
    let bad = |status| (status, "BAD_USER_INPUT".to_owned());
    for body in [
        "",
        "{",
        "[]",
        "[{\"query\": \"{ __typename }\"}]",
        "7",
        "{}",
        "{\"query\": 7}",
        "{\"query\": \"{ __typename }\", \"variables\": []}",
        "{\"query\": \"{ __typename }\", \"operationName\": 1}",
        "{\"query\": \"{ __typename }\", \"extensions\": 1}",
    ] {
        assert_eq!(refused(server.post(body)).await, bad(StatusCode::BAD_REQUEST), "{body}");
    }
    let asks = json!({ "query": "{ __typename }" }).to_string();
    let plain = server.client.post(server.url("/graphql")).header(CONTENT_TYPE, "text/plain").body(asks.clone());
    assert_eq!(refused(plain).await, bad(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    let untyped = server.client.post(server.url("/graphql")).body(asks.clone());
    assert_eq!(refused(untyped).await, bad(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    let encoded = server.post(asks.clone()).header(CONTENT_ENCODING, "gzip");
    assert_eq!(refused(encoded).await, bad(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    assert_eq!(refused(server.post(" ".repeat(70_000))).await, bad(StatusCode::PAYLOAD_TOO_LARGE));
    let charset = server.client.post(server.url("/graphql")).header(CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(charset.body(asks).send().await.unwrap().status(), StatusCode::OK);
    let put = server.client.put(server.url("/graphql")).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(put.headers()[ALLOW], "GET, HEAD, POST");
}

#[tokio::test]
async fn request_errors_have_no_data_and_introspection_needs_a_right() {
    let server = Server::start().await;
    let answer = server.query(&token(Role::Admin, "eve"), "{ nothing }").await;
    assert_eq!(
        (answer.get("data"), &answer["errors"][0]["extensions"]["code"]),
        (None, &json!("GRAPHQL_VALIDATION_FAILED"))
    );
    let schema = "{ __schema { queryType { name } } }";
    for role in [Role::Customer, Role::Storefront] {
        let refused = server.query(&token(role, "ada"), schema).await;
        assert_eq!(refused["errors"][0]["extensions"]["code"], "FORBIDDEN");
    }
    let admin = server.query(&token(Role::Admin, "eve"), schema).await;
    assert_eq!(admin["data"]["__schema"]["queryType"]["name"], "Query");
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_nothing() {
    let server = Server::start().await;
    let shop = token(Role::Storefront, "shop");
    for n in 0..50 {
        let query = format!(
            "mutation {{ recordPurchase(input: {{externalId: \"p{n}\", customerExternalId: \"ada\", \
            purchasedAt: \"2026-11-02T10:00:00Z\", total: \"1\", currency: \"EUR\"}}) {{ replayed }} }}"
        );
        let request =
            server.post(json!({ "query": query }).to_string()).bearer_auth(&shop).timeout(Duration::from_millis(n % 7));
        let _ = request.send().await;
    }
    // Nothing is left half-way: what comes next is answered.
    let answer = server
        .query(&shop, "{ customers { nodes { balance { version } purchases(first: 100) { nodes { id } } } } }")
        .await;
    assert_eq!(answer.get("errors"), None, "{answer}");
}

#[tokio::test]
async fn health_and_readiness() {
    let server = Server::start().await;
    let status = async |path: &str| server.client.get(server.url(path)).send().await.unwrap().status();
    assert_eq!((status("/healthz").await, status("/readyz").await), (StatusCode::OK, StatusCode::OK));
    server.app.app.database.clone().close().await.unwrap();
    assert_eq!((status("/healthz").await, status("/readyz").await), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
}
