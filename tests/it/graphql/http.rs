//! The GraphQL endpoint over HTTP: authentication, methods, media types, limits and headers.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windfall::cli::token::mint;
use windfall::config;
use windfall::engine::time::parse_instant;
use windfall::http::auth::{Role, Verifier};
use windfall::http::router::router;
use windfall::http::serve;

use crate::support::app::TestApp;
use crate::support::graphql::{GraphqlApp, NOW};

struct Server {
    address: SocketAddr,
    client: Client,
    app: GraphqlApp,
}

fn auth() -> config::Auth {
    config::Auth {
        hs256_secret: Some("0123456789abcdef0123456789abcdef".to_owned().into()),
        hs256_secret_previous: None,
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
        Self::start_with(|_| {}).await
    }

    async fn start_with(configure: impl FnOnce(&mut config::Config)) -> Self {
        let app = GraphqlApp::sqlite().await;
        let verifier = Verifier::new(&auth(), parse_instant(NOW).unwrap().0).await.unwrap();
        let mut config = config::Config::defaults().unwrap();
        config.http.body_limit_bytes = 256 * 1024;
        configure(&mut config);
        let router = router(app.app.clone(), verifier, &config, TaskTracker::new()).unwrap();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            serve(router, listener, &config.http, TaskTracker::new(), CancellationToken::new()).await;
        });
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
    assert_eq!(response.headers()["cache-control"], "no-store");
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
async fn only_admins_download_exports() {
    let server = Server::start().await;
    let job = windfall::app::export::request;
    let get = async |path: &str, token: Option<&str>| {
        let request = server.client.get(server.url(path));
        token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token))
    };
    server.app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
    let job = job(&server.app.app, &TestApp::actor(), "ada").await.unwrap();
    let path = format!("/exports/{}", job.id);
    let [eve, shop, ada] = [(Role::Admin, "eve"), (Role::Storefront, "shop"), (Role::Customer, "ada")]
        .map(|(role, subject)| token(role, subject));
    let unauthenticated = (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED".to_owned());
    let not_found = (StatusCode::NOT_FOUND, "NOT_FOUND".to_owned());
    assert_eq!(refused(get(&path, Some(&eve)).await).await, not_found, "the job is not done");
    windfall::app::jobs::runner::run_due(&server.app.app).await.unwrap();
    assert_eq!(refused(get(&path, None).await).await, unauthenticated);
    assert_eq!(get(&path, None).await.send().await.unwrap().headers()[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(refused(get(&path, Some("nonsense")).await).await, unauthenticated);
    for token in [&shop, &ada] {
        assert_eq!(refused(get(&path, Some(token)).await).await, (StatusCode::FORBIDDEN, "FORBIDDEN".into()));
    }
    for path in ["/exports/0", "/exports/999", "/exports/nonsense", "/exports/99999999999999999999", "/exports/-1"] {
        assert_eq!(refused(get(path, Some(&eve)).await).await, not_found, "{path}");
        assert_eq!(refused(get(path, None).await).await, unauthenticated, "{path}");
    }
    let posted = server.client.post(server.url(&path)).bearer_auth(&eve).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    let response = get(&path, Some(&eve)).await.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/x-ndjson"),
        ("content-disposition", "attachment; filename=\"export.ndjson\""),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    let body = response.text().await.unwrap();
    assert!(body.ends_with("}\n") && body.lines().any(|line| line.contains("\"externalId\":\"p\"")), "{body}");
}

/// A result that is replaced while it is sent must not look like a whole one.
#[tokio::test]
async fn a_download_whose_export_is_replaced_breaks_off() {
    let server = Server::start().await;
    server.app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
    let job = windfall::app::export::request(&server.app.app, &TestApp::actor(), "ada").await.unwrap();
    windfall::app::jobs::runner::run_due(&server.app.app).await.unwrap();
    // More than the buffers of the sockets between the server and its client.
    let parts = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 200) \
        INSERT INTO export_chunk (job_id, number, content) SELECT job_id, i, zeroblob(262144) FROM export_chunk, n";
    server.app.execute(parts).await;
    let request = server.client.get(server.url(&format!("/exports/{}", job.id)));
    let mut response = request.bearer_auth(token(Role::Admin, "eve")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.chunk().await.unwrap().is_some());
    windfall::app::export::request(&server.app.app, &TestApp::actor(), "ada").await.unwrap();
    let mut bytes = 0;
    let broken = loop {
        match response.chunk().await {
            Ok(Some(part)) => bytes += part.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "{bytes} bytes look like the whole result");
}

/// Under overload, most of the server's time would go into requests that it refuses. So the text of such a request is not read.
#[tokio::test]
async fn a_request_without_a_permit_is_refused_before_it_is_read() {
    let server = Server::start_with(|config| config.limits.concurrent_requests = 2).await;
    let [shop, other] = ["shop", "other"].map(|subject| token(Role::Storefront, subject));
    let nonsense = async |token: &str| refused(server.post("nonsense").bearer_auth(token)).await;
    let told = (StatusCode::BAD_REQUEST, "BAD_USER_INPUT".to_owned());
    assert_eq!(nonsense(&shop).await, told);
    // The purchase keeps its permit while it waits for the only connection that writes.
    let writes = server.app.app.database.begin().await.unwrap();
    let purchase = json!({ "query": "mutation { recordPurchase(input: { externalId: \"p\", customerExternalId: \"ada\", \
        purchasedAt: \"2026-11-02T10:00:00Z\", total: \"1\", currency: \"EUR\" }) { replayed } }" });
    let waiting = tokio::spawn(server.post(purchase.to_string()).bearer_auth(&shop).send());
    let overloaded = (StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED".to_owned());
    let sheds = async {
        while nonsense(&shop).await != overloaded {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sheds).await.expect("the permit is taken");
    // Another caller still has a share.
    assert_eq!(nonsense(&other).await, told);
    writes.rollback().await.unwrap();
    let recorded = json_of(waiting.await.unwrap().unwrap()).await;
    assert_eq!(recorded, json!({ "data": { "recordPurchase": { "replayed": false } } }));
    assert_eq!(nonsense(&shop).await, told);
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
    // The limit on bodies is lower for callers that cannot record purchases.
    let large = asks.clone() + &" ".repeat(140_000);
    assert_eq!(refused(server.post(large.clone())).await, bad(StatusCode::PAYLOAD_TOO_LARGE));
    let customer = server.post(large.clone()).bearer_auth(token(Role::Customer, "ada"));
    assert_eq!(refused(customer).await, bad(StatusCode::PAYLOAD_TOO_LARGE));
    let storefront = server.post(large).bearer_auth(token(Role::Storefront, "shop"));
    assert_eq!(storefront.send().await.unwrap().status(), StatusCode::OK);
    let larger = server.post(" ".repeat(270_000)).bearer_auth(token(Role::Storefront, "shop"));
    assert_eq!(refused(larger).await, bad(StatusCode::PAYLOAD_TOO_LARGE));
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
    // No abandoned request blocks the next one.
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

fn request_id(response: &Response) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_response_has_the_id_of_its_request() {
    let server = Server::start().await;
    let asks = json!({ "query": "{ __typename }" }).to_string();
    let get = |path: &str| server.client.get(server.url(path));
    let put = server.client.put(server.url("/graphql"));
    let bad_token = server.post(asks.clone()).bearer_auth("nonsense");
    let mut chosen = Vec::new();
    for request in
        [server.post(asks.clone()), server.post("nonsense"), bad_token, put, get("/healthz"), get("/nowhere")]
    {
        let id = request_id(&request.try_clone().unwrap().send().await.unwrap());
        assert!(id.len() == 32 && !chosen.contains(&id), "{id}");
        chosen.push(id);
        let sent = request.header("x-request-id", "proxy-1:7").send().await.unwrap();
        assert_eq!(request_id(&sent), "proxy-1:7");
    }
    for malformed in ["", "a b", "a,b", "\u{e9}", &"x".repeat(129)] {
        let response = server.post(asks.clone()).header("x-request-id", malformed).send().await.unwrap();
        assert_eq!(request_id(&response).len(), 32, "{malformed}");
    }
    let twice = server.post(asks).header("x-request-id", "a").header("x-request-id", "b").send().await.unwrap();
    assert_eq!(request_id(&twice).len(), 32);
}

#[tokio::test]
async fn the_trail_has_the_request_and_the_address_of_the_client() {
    let server = Server::start_with(|config| config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]).await;
    let eve = token(Role::Admin, "eve");
    let delete = || {
        let query = "mutation { deleteCampaign(id: \"x\") { userErrors { code } } }";
        server.post(json!({ "query": query }).to_string()).bearer_auth(&eve)
    };
    let own = request_id(&delete().send().await.unwrap());
    let through_proxy =
        delete().header("x-forwarded-for", "198.51.100.7, 203.0.113.9").header("x-request-id", "proxy-1");
    assert_eq!(request_id(&through_proxy.send().await.unwrap()), "proxy-1");
    let as_events =
        delete().header(ACCEPT, "text/event-stream").header("x-request-id", "events-1").send().await.unwrap();
    assert!(as_events.text().await.unwrap().contains("NOT_FOUND"));
    let answer = server.query(&eve, "{ trail { nodes { subjectOfToken requestId address } } }").await;
    let entry = |id: &str, address: &str| json!({ "subjectOfToken": "eve", "requestId": id, "address": address });
    let expected = [entry("events-1", "127.0.0.1"), entry("proxy-1", "203.0.113.9"), entry(&own, "127.0.0.1")];
    assert_eq!(answer["data"]["trail"]["nodes"], json!(expected));
}

#[tokio::test]
async fn queries_can_be_sent_by_get_and_mutations_cannot() {
    let server = Server::start().await;
    let get = |query: &str, variables: &str| {
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        let parameters = parameters.append_pair("query", query).append_pair("variables", variables).finish();
        server.client.get(server.url(&format!("/graphql?{parameters}")))
    };
    let ada = token(Role::Customer, "ada");
    let answer = json_of(get("{ me { externalId } }", "").bearer_auth(&ada).send().await.unwrap()).await;
    assert_eq!(answer, json!({ "data": { "me": { "externalId": "ada" } } }));
    let head = server.client.head(server.url("/graphql?query={__typename}")).send().await.unwrap();
    assert_eq!((head.status(), head.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    let mutation =
        get("mutation { deleteCampaign(id: \"x\") { deletedId } }", "").bearer_auth(&ada).send().await.unwrap();
    assert_eq!(mutation.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(mutation.headers()[ALLOW], "POST");
    assert_eq!(json_of(mutation).await["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    let bad = (StatusCode::BAD_REQUEST, "BAD_USER_INPUT".to_owned());
    assert_eq!(refused(get("{ __typename }", "[")).await, bad);
    assert_eq!(refused(server.client.get(server.url("/graphql"))).await, bad);
}

#[tokio::test]
async fn the_client_chooses_how_it_is_answered() {
    let server = Server::start().await;
    let answer = async |accept: &str, query: &str| {
        let body = json!({ "query": query }).to_string();
        let response = server.post(body).header(ACCEPT, accept).send().await.unwrap();
        (response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned())
    };
    let (json, graphql) = ("application/json; charset=utf-8", "application/graphql-response+json; charset=utf-8");
    for (accept, query, status, content_type) in [
        ("*/*", "{ __typename }", 200, json),
        ("application/graphql-response+json", "{ __typename }", 200, graphql),
        ("application/graphql-response+json", "{ nothing }", 400, graphql),
        ("application/graphql-response+json", "{", 400, graphql),
        ("application/graphql-response+json", "subscription { pointsUpdated { change } }", 400, graphql),
        ("application/json", "{ nothing }", 200, json),
        ("text/html", "{ __typename }", 406, json),
    ] {
        assert_eq!(answer(accept, query).await, (status, content_type.to_owned()), "{accept} {query}");
    }
}

#[tokio::test]
async fn what_is_refused_comes_as_it_is_accepted_too() {
    let server = Server::start().await;
    let (json, graphql) = ("application/json; charset=utf-8", "application/graphql-response+json; charset=utf-8");
    let asks = json!({ "query": "{ __typename }" }).to_string();
    let plain = || server.client.post(server.url("/graphql")).header(CONTENT_TYPE, "text/plain").body("{}");
    for (accept, content_type) in
        [("application/graphql-response+json", graphql), ("application/json", json), ("text/event-stream", json)]
    {
        for (request, status, code) in [
            (server.post(asks.clone()).bearer_auth("nonsense"), 401, "UNAUTHENTICATED"),
            (server.post("{"), 400, "BAD_USER_INPUT"),
            (server.post(" ".repeat(140_000)), 413, "BAD_USER_INPUT"),
            (plain(), 415, "BAD_USER_INPUT"),
            (server.client.put(server.url("/graphql")), 405, "BAD_USER_INPUT"),
            (server.client.get(server.url("/graphql?query=mutation{__typename}")), 405, "BAD_USER_INPUT"),
            (server.client.get(server.url("/graphql")).header("upgrade", "websocket"), 400, "BAD_USER_INPUT"),
        ] {
            let response = request.header(ACCEPT, accept).send().await.unwrap();
            let told = (response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap());
            assert_eq!(told, (status, content_type), "{accept}");
            let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            assert_eq!(body["errors"][0]["extensions"]["code"], code);
        }
    }
}

#[tokio::test]
async fn documents_are_limited_as_configured_and_refusals_say_how() {
    let server = Server::start_with(|config| {
        config.limits.document_tokens = 40;
        config.limits.document_aliases = 2;
        config.limits.document_directives = 1;
        config.limits.document_depth = 3;
    })
    .await;
    let eve = token(Role::Admin, "eve");
    let message = async |query: &str| {
        let answer = server.query(&eve, query).await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "TOO_EXPENSIVE", "{answer}");
        answer["errors"][0]["message"].as_str().unwrap().to_owned()
    };
    for (query, told) in [
        ("{ a: __typename b: __typename c: __typename }", "3 aliases, and at most 2 are allowed: split it"),
        ("{ __typename @skip(if: false) a: __typename @skip(if: false) }", "2 directives, and at most 1 are allowed"),
        ("{ me { awards { nodes { id } } } }", "4 levels of fields, and at most 3 are allowed: request the inner"),
        (
            format!("{{ {} }}", "__typename ".repeat(40)).as_str(),
            "42 tokens (names, values, brackets and signs), and at most 40 are",
        ),
    ] {
        let message = message(query).await;
        assert!(message.contains(told), "{message}");
    }
    let server = Server::start().await;
    let most = server.query(&eve, "{ campaigns(first: 2147483647) { nodes { id } } }").await;
    let more = server.query(&eve, "{ campaigns(first: 101) { nodes { id } } }").await;
    for answer in [most, more] {
        let message = answer["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("at most 100") || message.contains("0 to 100"), "{message}");
    }
}

#[tokio::test]
async fn the_server_says_where_everything_is() {
    let server = Server::start_with(|config| config.http.graphiql = true).await;
    let addresses = server.client.get(server.url("/")).send().await.unwrap();
    assert_eq!(addresses.headers()[CONTENT_TYPE], "application/json; charset=utf-8");
    let addresses: Value = serde_json::from_slice(&addresses.bytes().await.unwrap()).unwrap();
    for (name, path) in addresses.as_object().unwrap() {
        let Some(path) = path.as_str().filter(|path| path.starts_with('/')) else { continue };
        let response = server.client.get(server.url(path)).send().await.unwrap();
        // An unrouted path responds with 404 and no body. `/metrics` responds with a body even if the process records no metrics.
        let is_routed = response.status() != StatusCode::NOT_FOUND || !response.bytes().await.unwrap().is_empty();
        assert!(is_routed, "{name}");
    }
    assert_eq!((&addresses["graphql"], &addresses["graphiql"]), (&json!("/graphql"), &json!("/graphiql")));
    let slash = server.client.post(server.url("/graphql/")).header(CONTENT_TYPE, "application/json");
    let answer = slash.body(json!({ "query": "{ __typename }" }).to_string()).send().await.unwrap();
    assert_eq!(json_of(answer).await, json!({ "data": { "__typename": "Query" } }));
}

#[tokio::test]
async fn events_are_streamed_as_their_protocol_has_it() {
    let server = Server::start().await;
    let stream = async |query: &str| {
        let body = json!({ "query": query }).to_string();
        let response = server.post(body).header(ACCEPT, "text/event-stream").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream; charset=utf-8");
        response.text().await.unwrap()
    };
    let complete = "event: complete\ndata:\n\n";
    let typename = stream("{ __typename }").await;
    assert_eq!(typename, format!(":\n\nevent: next\ndata: {{\"data\":{{\"__typename\":\"Query\"}}}}\n\n{complete}"));
    let invalid = stream("{ nothing }").await;
    assert!(invalid.contains("GRAPHQL_VALIDATION_FAILED") && invalid.ends_with(complete), "{invalid}");
    let anonymous = stream("subscription { pointsUpdated { change } }").await;
    assert!(anonymous.contains("\"UNAUTHENTICATED\"") && anonymous.ends_with(complete), "{anonymous}");
}

#[tokio::test]
async fn a_text_can_be_named_by_its_hash_once_it_was_sent() {
    let server = Server::start().await;
    let ada = token(Role::Customer, "ada");
    let persisted = json!({ "persistedQuery": {
        "version": 1, "sha256Hash": "8e3a9b4ac1dc7a2c4ccd1d5c1d0f8bd8a3d2fdfbbac1fd8b0a4dbd57f0e4a3f1"
    } });
    let unknown = server.post(json!({ "extensions": persisted }).to_string()).bearer_auth(&ada).send().await.unwrap();
    let unknown = json_of(unknown).await;
    assert_eq!(unknown["errors"][0]["message"], "PersistedQueryNotFound");
    assert_eq!(unknown["errors"][0]["extensions"]["code"], "PERSISTED_QUERY_NOT_FOUND");
    let other = json!({ "query": "{ __typename }", "extensions": persisted }).to_string();
    assert_eq!(refused(server.post(other)).await, (StatusCode::OK, "BAD_USER_INPUT".to_owned()));
    let wrong = json!({ "extensions": { "persistedQuery": { "version": 2, "sha256Hash": "" } } }).to_string();
    assert_eq!(refused(server.post(wrong)).await, (StatusCode::BAD_REQUEST, "BAD_USER_INPUT".to_owned()));
}

#[tokio::test]
async fn where_documents_are_listed_only_admins_run_others() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("me.graphql"), "query Me { me { externalId } }").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "no document").unwrap();
    let documents = folder.path().to_owned();
    let server = Server::start_with(|config| config.http.documents = Some(documents)).await;
    let code = |answer: &Value| answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned);
    let (ada, eve) = (token(Role::Customer, "ada"), token(Role::Admin, "eve"));
    assert_eq!(server.query(&ada, "query Me { me { externalId } }").await["data"]["me"]["externalId"], "ada");
    let other = "{ me { id } }";
    assert_eq!(code(&server.query(&ada, other).await).as_deref(), Some("FORBIDDEN"));
    assert_eq!(server.query(&eve, other).await, json!({ "data": { "me": null } }));
}

#[tokio::test]
async fn who_asks_too_much_waits_and_nobody_else_does() {
    let server = Server::start_with(|config| {
        config.limits.customer.points_per_second = 1.try_into().unwrap();
        config.limits.customer.burst_points = 10.try_into().unwrap();
    })
    .await;
    let ask = |subject: &str| {
        let body = json!({ "query": "{ me { id } }" }).to_string();
        server.post(body).bearer_auth(token(Role::Customer, subject)).send()
    };
    let mut limited = None;
    for _ in 0..20 {
        let response = ask("ada").await.unwrap();
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            limited = Some(response);
            break;
        }
    }
    let limited = limited.expect("ten points are not enough for twenty requests");
    let seconds = limited.headers()[RETRY_AFTER].to_str().unwrap().to_owned();
    let answer = json_of(limited).await;
    assert_eq!(answer["errors"][0]["extensions"]["code"], "RATE_LIMITED");
    assert_eq!(answer["errors"][0]["extensions"]["retryAfterSeconds"].to_string(), seconds);
    assert_eq!(ask("bob").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn browsers_are_told_which_pages_may_ask() {
    let server = Server::start_with(|config| config.http.allowed_origins = vec!["https://shop.example".into()]).await;
    let preflight = async |origin: &str| {
        let request = server.client.request(reqwest::Method::OPTIONS, server.url("/graphql")).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        let response = request.header("access-control-request-headers", "authorization").send().await.unwrap();
        let told = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (told("access-control-allow-origin"), told("access-control-allow-headers"))
    };
    let (origin, headers) = preflight("https://shop.example").await;
    assert_eq!((origin.as_deref(), headers.as_deref()), (Some("https://shop.example"), Some("authorization")));
    assert_eq!(preflight("https://evil.example").await.0, None);
    let plain = server.client.get(server.url("/healthz")).send().await.unwrap();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ] {
        assert_eq!(plain.headers()[name], value);
    }
}

#[tokio::test]
async fn graphiql_and_introspection_are_there_when_asked_for() {
    let schema = "{ __schema { queryType { name } } }";
    let server = Server::start().await;
    assert_eq!(server.client.get(server.url("/graphiql")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let server = Server::start_with(|config| {
        config.http.graphiql = true;
        config.http.introspection = true;
    })
    .await;
    let answer = server.query(&token(Role::Customer, "ada"), schema).await;
    assert_eq!(answer["data"]["__schema"]["queryType"]["name"], "Query");
    let page = server.client.get(server.url("/graphiql")).send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    let page = page.text().await.unwrap();
    // Every file that the page names is served.
    let named: Vec<&str> = page.split('"').filter(|text| text.starts_with("graphiql/")).collect();
    assert_eq!(named.len(), 6, "{page}");
    for file in named {
        let response = server.client.get(server.url(&format!("/{file}"))).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{file}");
        assert!(!response.bytes().await.unwrap().is_empty(), "{file}");
    }
}
