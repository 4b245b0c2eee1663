//! Before the upgrade: origins, tokens in headers, and invalid handshakes.

use serde_json::{Value, json};
use tokio::net::TcpStream;
use windfall::http::auth::Role;

use super::{is_quiet, shop, shop_with};
use crate::support::server::token;
use crate::support::websocket::{HANDSHAKE, PROTOCOL, Socket, host};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_pages_are_refused_before_the_upgrade() {
    let (shop, _sqlite) = shop_with(|command| {
        command.env("WINDFALL__HTTP__ALLOWED_ORIGINS", "https://shop.example,https://www.shop.example:8443");
    })
    .await;
    let own = shop.address().to_owned();
    let secure = own.replace("http://", "https://");
    let other_port = format!("{own}0");
    for origin in [
        "https://evil.example",
        "http://shop.example",
        "https://shop.example.evil.example",
        "https://www.shop.example",
        "https://SHOP.example/",
        "null",
        "",
        &other_port,
    ] {
        let refused = Socket::connect_with(shop.address(), &[PROTOCOL, ("origin", origin)]).await.err();
        let refused = refused.unwrap_or_else(|| panic!("{origin} is accepted"));
        let code = &refused.body["errors"][0]["extensions"]["code"];
        assert_eq!((refused.status, code), (403, &json!("FORBIDDEN")), "{origin}");
    }
    for origin in [own.as_str(), &secure, "https://shop.example", "https://www.shop.example:8443"] {
        let socket = Socket::connect_with(shop.address(), &[PROTOCOL, ("origin", origin)]).await;
        is_quiet(&mut socket.unwrap_or_else(|refused| panic!("{origin}: {refused:?}"))).await;
    }
}

/// Initialises the socket and returns the customer that its operations run as.
async fn subject(socket: &mut Socket, init: Value) -> Value {
    socket.send(json!({ "type": "connection_init", "payload": init })).await;
    assert_eq!(socket.message().await, json!({ "type": "connection_ack" }));
    socket.subscribe("1", "{ me { externalId } }", Value::Null).await;
    socket.message().await["payload"]["data"]["me"]["externalId"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_in_the_handshake_counts_where_the_initialisation_has_none() {
    let (shop, _sqlite) = shop().await;
    let [ada, bob] = ["ada", "bob"].map(|customer| format!("Bearer {}", token(Role::Customer, customer)));
    for (init, expected) in [
        (json!(null), "ada"),
        (json!({}), "ada"),
        (json!({ "authorization": null }), "ada"),
        (json!({ "authorization": bob }), "bob"),
    ] {
        let socket = Socket::connect_with(shop.address(), &[PROTOCOL, ("authorization", &ada)]).await;
        assert_eq!(subject(&mut socket.expect("a WebSocket"), init).await, expected);
    }
    let headers = [PROTOCOL, ("authorization", &*ada), ("authorization", &*bob)];
    for headers in [&headers[..], &[PROTOCOL, ("authorization", "Bearer nonsense")]] {
        let refused = Socket::connect_with(shop.address(), headers).await.err().expect("no WebSocket");
        let code = &refused.body["errors"][0]["extensions"]["code"];
        assert_eq!((refused.status, code), (401, &json!("UNAUTHENTICATED")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_taken_where_clients_put_them_or_asked_for() {
    let (shop, _sqlite) = shop().await;
    let ada = token(Role::Customer, "ada");
    let bearer = format!("Bearer {ada}");
    for init in [
        json!({ "authorization": bearer }),
        json!({ "Authorization": bearer }),
        json!({ "headers": { "Authorization": bearer } }),
        json!({ "authToken": ada }),
        json!({ "authToken": bearer }),
    ] {
        let socket = Socket::connect_with(shop.address(), &[PROTOCOL]).await;
        assert_eq!(subject(&mut socket.expect("a WebSocket"), init).await, "ada");
    }
    for init in
        [json!({ "token": ada }), json!({ "authorization": 7 }), json!({ "headers": {} }), json!({ "authToken": "x" })]
    {
        let mut socket = Socket::connect_with(shop.address(), &[PROTOCOL]).await.expect("a WebSocket");
        socket.send(json!({ "type": "connection_init", "payload": init })).await;
        assert_eq!(socket.closed().await, 4403, "{init}");
        let mut proved = Socket::connect_with(shop.address(), &[PROTOCOL, ("authorization", &*bearer)]).await.unwrap();
        if init.get("token").is_some() {
            assert_eq!(subject(&mut proved, init).await, "ada");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_none_are_told_as_graphql_errors() {
    let (shop, _sqlite) = shop().await;
    let host = host(shop.address());
    let without = |name: &str| -> Vec<(&str, &str)> {
        HANDSHAKE.into_iter().filter(|(header, _)| *header != name).chain([PROTOCOL]).collect()
    };
    let with = |name: &'static str, value: &'static str| [without(name), vec![(name, value)]].concat();
    for headers in [
        without("connection"),
        without("sec-websocket-version"),
        without("sec-websocket-key"),
        with("connection", "close"),
        with("upgrade", "h2c"),
        with("sec-websocket-version", "12"),
    ] {
        let stream = TcpStream::connect(host).await.unwrap();
        let refused = Socket::handshake(stream, host, &headers).await.err().expect("no WebSocket");
        let code = &refused.body["errors"][0]["extensions"]["code"];
        assert_eq!((refused.status, code), (400, &json!("BAD_USER_INPUT")), "{headers:?}");
        assert_eq!(refused.body.get("data"), None);
    }
}

/// Clients of HTTP/2 offer an upgrade with their first request. The server responds as if they had not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_upgrades_are_not_taken() {
    let (shop, _sqlite) = shop().await;
    let url = format!("{}/graphql", shop.address());
    let offer = |request: reqwest::RequestBuilder, upgrade: &str| {
        let request = request.header("connection", "Upgrade, HTTP2-Settings").header("upgrade", upgrade);
        request.header("http2-settings", "AAMAAABkAAQAAP__")
    };
    for upgrade in ["h2c", "TLS/1.0, h2c"] {
        let asks = json!({ "query": "{ __typename }" });
        let answer = offer(shop.client.post(&url).json(&asks), upgrade).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{upgrade}");
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "data": { "__typename": "Query" } }));
        let answer = offer(shop.client.get(format!("{url}?query={{__typename}}")), upgrade).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "data": { "__typename": "Query" } }));
    }
}
