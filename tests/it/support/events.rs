//! A client of subscriptions over server-sent events.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

use super::websocket::PATIENCE;

pub(crate) struct Events {
    response: reqwest::Response,
    unread: Vec<u8>,
}

/// What the server sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Next(Value),
    Complete,
    /// The stream ended without an event `complete`.
    Ended,
}

impl Events {
    pub(crate) async fn open(
        client: &reqwest::Client,
        address: &str,
        token: &str,
        query: &str,
        variables: &Value,
    ) -> Self {
        let request = client.post(format!("{address}/graphql")).bearer_auth(token).header(ACCEPT, "text/event-stream");
        let response = request.json(&json!({ "query": query, "variables": variables })).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream; charset=utf-8");
        Self { response, unread: Vec::new() }
    }

    pub(crate) async fn next(&mut self) -> Event {
        self.next_within(PATIENCE).await.expect("an event in time")
    }

    /// The next event. `None` if nothing but keep-alive comments came within the time.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Option<Event> {
        let next = async {
            loop {
                if let Some(end) = self.unread.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = self.unread.drain(..end + 2).collect();
                    match std::str::from_utf8(&event).unwrap().trim_end() {
                        ":" => continue,
                        "event: complete\ndata:" => return Event::Complete,
                        event => {
                            let data = event.strip_prefix("event: next\ndata: ").expect("an event `next`");
                            return Event::Next(serde_json::from_str(data).unwrap());
                        }
                    }
                }
                match self.response.chunk().await {
                    Ok(Some(chunk)) => self.unread.extend(chunk),
                    Ok(None) | Err(_) => return Event::Ended,
                }
            }
        };
        tokio::time::timeout(time, next).await.ok()
    }
}
