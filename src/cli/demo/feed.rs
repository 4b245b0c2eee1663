//! Prints points as they are awarded. Subscribes to the demo's own endpoint, with one event stream for each customer.

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
    cursor entries { kind points balanceAfter createdAt award { campaign { name } } } } }";

/// Prints a line for each ledger entry until `stop` is cancelled.
pub(super) async fn print(url: String, token: String, stop: CancellationToken) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut streams = JoinSet::new();
    for customer in shop::CUSTOMERS {
        let stream = Stream { client: client.clone(), url: url.clone(), token: token.clone(), customer, after: None };
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
        let (title, dim, plain) = banner::styles();
        let mut out = stdout().lock();
        for entry in update["entries"].as_array().into_iter().flatten() {
            let time = entry["createdAt"].as_str().and_then(|at| at.get(11..19)).unwrap_or_default();
            let points = entry["points"].as_i64().unwrap_or_default();
            let campaign = entry["award"]["campaign"]["name"].as_str().unwrap_or_default();
            let what = if entry["kind"] == "REVERSAL" { format!("{campaign} (refund)") } else { campaign.to_owned() };
            let balance = entry["balanceAfter"].as_i64().unwrap_or_default();
            let customer = self.customer;
            writeln!(
                out,
                "  {dim}{time}{plain}  {customer:<10}{title}{points:>+6}{plain}  {what:<26}{dim}has {balance:>7}{plain}"
            )?;
        }
        Ok(out.flush()?)
    }
}
