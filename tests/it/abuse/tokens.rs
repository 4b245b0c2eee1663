//! Tokens that name unknown keys do not make the server fetch the key set again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use windfall::http::auth::Role;

use crate::support::app::cases;
use crate::support::server::{command, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::Socket;

/// A key set with the public key of RFC 7515, A.3.
fn key_set() -> String {
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "alg": "ES256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    json!({ "keys": [key] }).to_string()
}

/// Starts an issuer that counts how often its key set is fetched.
async fn issuer() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let fetched = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fetched);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head).await;
            let keys = key_set();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{keys}",
                keys.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, fetched)
}

/// A well-formed token with an invalid signature.
fn made_up(number: usize) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "ES256", "typ": "JWT", "kid": format!("key-{number}") }));
    let claims =
        part(json!({ "iss": "windfall", "aud": "windfall", "sub": "eve", "role": "admin", "exp": 4_000_000_000_u64 }));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([7; 64]))
}

async fn refused(shop: &Shop, token: &str) {
    let request = shop.client.post(format!("{}/graphql", shop.address())).bearer_auth(token);
    let answer = request.json(&json!({ "query": "{ me { id } }" })).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let body: Value = answer.json().await.unwrap();
    assert_eq!((body.get("data"), &body["errors"][0]["extensions"]["code"]), (None, &json!("UNAUTHENTICATED")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_unknown_keys_fetch_the_key_set_hardly_ever() {
    const CLIENTS: usize = 8;
    let count = cases(10_000, 100_000);
    let (url, fetched) = issuer().await;
    let sqlite = Sqlite::new();
    let shop = Arc::new(Shop::open_with(command(&sqlite.url()).env("WINDFALL__AUTH__JWKS", url)).await);
    assert_eq!(fetched.load(Ordering::SeqCst), 1, "the key set is fetched once at the start");
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let shop = Arc::clone(&shop);
        clients.spawn(async move {
            for number in 0..count / CLIENTS {
                refused(&shop, &made_up(client * count + number)).await;
            }
        });
    }
    let ada = token(Role::Customer, "ada");
    let mut answered = 0;
    while !clients.is_empty() {
        assert_eq!(shop.data(&ada, "{ me { externalId } }", json!({})).await["me"]["externalId"], "ada");
        answered += 1;
        while let Some(ended) = clients.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(answered > 0);
    for number in 0..20 {
        let mut socket = Socket::connect(shop.address()).await;
        let authorization = format!("Bearer {}", made_up(number));
        socket.send(json!({ "type": "connection_init", "payload": { "authorization": authorization } })).await;
        assert_eq!(socket.closed().await, 4403);
    }
    // An unknown key fetches the key set at most once in 30 seconds.
    let fetched = fetched.load(Ordering::SeqCst);
    assert!(fetched <= cases(10, 100), "{fetched}");
}
