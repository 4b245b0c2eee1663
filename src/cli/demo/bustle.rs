//! Customers who keep buying: sends purchases, and a refund or a redemption now and then, to the same endpoint that any client uses.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::shop;
use crate::app::clock::Clock;
use crate::app::purchase::RecordPurchase;

/// The pause before the next customer, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 300..1_600;
/// How many of the latest purchases can still be refunded.
const MAX_RETURNABLE: usize = 50;
/// The probability that a purchase is refunded instead of a new one being made.
const RETURNS: f64 = 0.05;
/// The probability that a customer redeems a reward instead of buying something.
const REDEMPTIONS: f64 = 0.15;

const PURCHASE: &str =
    "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { message } } }";
const REFUND: &str = "mutation($input: RecordRefundInput!) { recordRefund(input: $input) { userErrors { message } } }";
const REDEMPTION: &str =
    "mutation($input: RedeemRewardInput!) { redeemReward(input: $input) { userErrors { message } } }";
const REWARD: &str = "{ rewards(first: 1) { nodes { id } } }";

/// Sends purchases, refunds and redemptions until `stop` is cancelled.
pub(super) async fn run(url: String, token: String, clock: Clock, stop: CancellationToken) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut chance: StdRng = StdRng::from_rng(&mut rand::rng());
    let mut returnable: VecDeque<String> = VecDeque::new();
    loop {
        let pause = Duration::from_millis(chance.random_range(PAUSE_MS));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        let now = clock.now();
        let id = format!("visit-{}", now.0);
        let body = match returnable.pop_front_if(|_| chance.random_bool(RETURNS)) {
            Some(purchase) => {
                let input = json!({
                    "externalId": id, "purchaseExternalId": purchase, "refundedAt": now.to_string(),
                });
                json!({ "query": REFUND, "variables": { "input": input } })
            }
            None if chance.random_bool(REDEMPTIONS) => {
                let Ok(reward) = find_reward(&client, &url, &token).await else { continue };
                let visitor = shop::visitor(&mut chance);
                let input = json!({ "rewardId": reward, "customerExternalId": visitor, "idempotencyKey": id });
                json!({ "query": REDEMPTION, "variables": { "input": input } })
            }
            None => {
                let visitor = shop::visitor(&mut chance);
                let purchase = shop::purchase(&mut chance, id.clone(), visitor, now);
                returnable.push_back(id);
                if returnable.len() > MAX_RETURNABLE {
                    returnable.pop_front();
                }
                json!({ "query": PURCHASE, "variables": { "input": input(&purchase) } })
            }
        };
        // A request that fails, for example because the server is stopping, is ignored: the next customer comes anyway.
        let _ = client.post(&url).bearer_auth(&token).json(&body).send().await;
    }
}

/// Returns the id of the shop's reward.
async fn find_reward(client: &reqwest::Client, url: &str, token: &str) -> anyhow::Result<Value> {
    let found = client.post(url).bearer_auth(token).json(&json!({ "query": REWARD })).send().await?;
    let mut found: Value = serde_json::from_slice(&found.bytes().await?)?;
    Ok(found["data"]["rewards"]["nodes"][0]["id"].take())
}

/// Converts a purchase to the API's `RecordPurchaseInput`.
fn input(purchase: &RecordPurchase) -> Value {
    let line = |line: &crate::app::purchase::PurchaseLine| json!({ "sku": line.sku, "category": line.category, "quantity": line.quantity, "amount": line.amount });
    json!({
        "externalId": purchase.external_id,
        "customerExternalId": purchase.customer_external_id,
        "purchasedAt": purchase.purchased_at,
        "total": purchase.total,
        "currency": purchase.currency,
        "channel": purchase.channel,
        "lines": purchase.lines.iter().flatten().map(line).collect::<Vec<_>>(),
    })
}
