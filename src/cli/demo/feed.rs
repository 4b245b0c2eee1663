//! Prints points as they are awarded, mature, expire and are spent. Subscribes to the demo's own endpoint, with one event stream for each customer.

use std::io::{Write as _, stdout};
use std::time::Duration;

use reqwest::header::ACCEPT;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{banner, shop};

/// The pause before a stream that ended is opened again.
const PAUSE: Duration = Duration::from_secs(1);

const SUBSCRIPTION: &str = "subscription($customer: String, $after: String) { \
    pointsUpdated(customerExternalId: $customer, after: $after) { \
    cursor balance { available pending asOf } entries { kind points createdAt availableAt award { campaign { name } } \
    redemption { reward { name } } } } }";

/// Prints a line for each ledger entry, and for points that mature, until `stop` is cancelled.
pub(super) async fn print(url: String, token: String, stop: CancellationToken) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut streams = JoinSet::new();
    for customer in shop::CUSTOMERS {
        let stream = Stream {
            client: client.clone(),
            url: url.clone(),
            token: token.clone(),
            customer,
            after: None,
            pending: 0,
        };
        streams.spawn(stream.follow(stop.clone()));
    }
    while let Some(ended) = streams.join_next().await {
        ended?;
    }
    Ok(())
}

struct Stream {
    client: reqwest::Client,
    url: String,
    token: String,
    customer: &'static str,
    /// The cursor of the last printed update. The next stream continues after it.
    after: Option<String>,
    /// The pending points of that update.
    pending: i64,
}

impl Stream {
    async fn follow(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            // However a stream ends, the next one continues after the last cursor.
            let _ = self.read().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Reads one stream until it ends.
    async fn read(&mut self) -> anyhow::Result<()> {
        let variables = json!({ "customer": self.customer, "after": self.after });
        let request = self.client.post(&self.url).bearer_auth(&self.token).header(ACCEPT, "text/event-stream");
        let mut response = request.json(&json!({ "query": SUBSCRIPTION, "variables": variables })).send().await?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            text.extend_from_slice(&chunk);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data: "));
                if let Some(data) = data {
                    self.tell(&serde_json::from_slice(data)?)?;
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, answer: &Value) -> anyhow::Result<()> {
        let update = &answer["data"]["pointsUpdated"];
        let Some(cursor) = update["cursor"].as_str() else { return Ok(()) };
        self.after = Some(cursor.to_owned());
        let has = update["balance"]["available"].as_i64().unwrap_or_default();
        let entries = || update["entries"].as_array().into_iter().flatten();
        let pending = update["balance"]["pending"].as_i64().unwrap_or_default();
        let awarded: i64 = entries().filter(|entry| waits(entry)).filter_map(|entry| entry["points"].as_i64()).sum();
        let matured = self.pending + awarded - pending;
        self.pending = pending;
        if matured > 0 && entries().all(waits) {
            self.line(&update["balance"]["asOf"], matured, "can be spent now", has)?;
        }
        for entry in entries() {
            let points = entry["points"].as_i64().unwrap_or_default();
            self.line(&entry["createdAt"], points, &what(entry), has)?;
        }
        Ok(())
    }

    fn line(&self, at: &Value, points: i64, what: &str, has: i64) -> anyhow::Result<()> {
        let (title, dim, plain) = banner::styles();
        let time = at.as_str().and_then(|at| at.get(11..19)).unwrap_or_default();
        let customer = self.customer;
        let mut out = stdout().lock();
        writeln!(
            out,
            "  {dim}{time}{plain}  {customer:<10}{title}{points:>+6}{plain}  {what:<26}{dim}can spend {has:>7}{plain}"
        )?;
        Ok(out.flush()?)
    }
}

/// Whether the points of the entry are pending when it is posted.
fn waits(entry: &Value) -> bool {
    entry["availableAt"].is_string()
}

/// Why the points moved.
fn what(entry: &Value) -> String {
    let campaign = entry["award"]["campaign"]["name"].as_str().unwrap_or_default();
    let reward = entry["redemption"]["reward"]["name"].as_str().unwrap_or_default();
    match entry["kind"].as_str().unwrap_or_default() {
        "AWARD" if waits(entry) => format!("{campaign} (pending)"),
        "AWARD" => campaign.to_owned(),
        "REVERSAL" => format!("{campaign} (refund)"),
        "REDEMPTION" => reward.to_owned(),
        "EXPIRY" => "expired".to_owned(),
        other => other.to_lowercase(),
    }
}
