//! An abusive request: how it is sent, and what the server responds.

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::shop::Shop;
use crate::support::websocket::{Heard, Message, PATIENCE, Socket, host};

pub(super) struct Attack {
    pub(super) name: &'static str,
    /// Makes a different text for each number, so that the server cannot reuse the refusal of an earlier one.
    make: Box<dyn Fn(usize) -> Shot + Send + Sync>,
    pub(super) expected: Answer,
}

pub(super) enum Shot {
    Http {
        method: Method,
        path: String,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    },
    /// Bytes on a new connection.
    Raw(Vec<u8>),
    /// The payload of a `subscribe` message over an initialised WebSocket.
    Operation(Value),
    /// A message that is sent unchanged over an initialised WebSocket.
    Message(Message),
}

/// What the server responds to an attack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A response without data, with this HTTP status and this code of its first GraphQL error.
    Error(u16, String),
    /// A status without a body: the HTTP library refused the request before the server's own code saw it.
    Status(u16),
    /// An `error` message of a WebSocket, with this code.
    OperationError(String),
    Closed(u16),
    /// Anything else. No attack expects this.
    Other(String),
}

impl Attack {
    pub(super) fn new(
        name: &'static str,
        expected: Answer,
        make: impl Fn(usize) -> Shot + Send + Sync + 'static,
    ) -> Self {
        Self { name, make: Box::new(make), expected }
    }

    /// Returns the approximate number of bytes that the attack sends.
    pub(super) fn bytes(&self) -> usize {
        match (self.make)(0) {
            Shot::Http { path, headers, body, .. } => {
                path.len() + headers.iter().map(|(_, value)| value.len()).sum::<usize>() + body.len()
            }
            Shot::Raw(bytes) => bytes.len(),
            Shot::Operation(payload) => payload.to_string().len(),
            Shot::Message(message) => message.len(),
        }
    }

    /// Sends the attack and returns what the server responds.
    pub(super) async fn send(&self, shop: &Shop, number: usize) -> Answer {
        match (self.make)(number) {
            Shot::Http { method, path, headers, body } => {
                // Storefronts may send the largest bodies.
                let request = shop.client.request(method, format!("{}{path}", shop.address()));
                let mut request = request.bearer_auth(&shop.storefront).body(body);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                match request.send().await {
                    Ok(response) => {
                        let status = response.status().as_u16();
                        answer(status, &response.bytes().await.unwrap_or_default())
                    }
                    Err(error) => Answer::Other(format!("{error:?}")),
                }
            }
            Shot::Raw(bytes) => raw(shop, &bytes).await,
            Shot::Operation(payload) => {
                let message = serde_json::json!({ "type": "subscribe", "id": "1", "payload": payload });
                over_socket(shop, Message::text(message.to_string())).await
            }
            Shot::Message(message) => over_socket(shop, message).await,
        }
    }
}

fn answer(status: u16, body: &[u8]) -> Answer {
    if body.is_empty() {
        return Answer::Status(status);
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body["errors"][0]["extensions"]["code"].as_str() {
        Some(code) if body.get("data").is_none() => Answer::Error(status, code.to_owned()),
        _ => Answer::Other(format!("{status}: {body}")),
    }
}

async fn raw(shop: &Shop, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(host(shop.address())).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answered = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answered)).await;
    assert!(read.is_ok(), "the server does not close the connection after: {}", String::from_utf8_lossy(bytes));
    let text = String::from_utf8_lossy(&answered).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Answer::Other(text) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    // The rest belongs to another response.
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    answer(status, &body.as_bytes()[..length])
}

async fn over_socket(shop: &Shop, message: Message) -> Answer {
    let mut socket = Socket::open(shop.address(), &shop.storefront).await;
    socket.send_raw(message).await;
    let answer = match socket.next().await {
        Heard::Message(message) if message["type"] == "error" => {
            Answer::OperationError(message["payload"][0]["extensions"]["code"].as_str().expect("a code").to_owned())
        }
        Heard::Closed { code, .. } => Answer::Closed(code),
        other => Answer::Other(format!("{other:?}")),
    };
    socket.close().await;
    answer
}
