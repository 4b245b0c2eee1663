//! Nodes that share a database and perhaps a Redis, and their metrics.

use std::time::Duration;

use serde_json::Value;

use super::server::{Server, command};
use super::shop::Shop;
use super::websocket::PATIENCE;

/// Starts a node on a database, with a Redis if one is given. `more` are further environment variables.
pub(crate) async fn node(database_url: &str, redis_url: Option<&str>, more: &[(&str, &str)]) -> Shop {
    let mut command = command(database_url);
    command.envs(redis_url.map(|url| ("WINDFALL__REDIS__URL", url))).envs(more.iter().copied());
    // Tests break Redis on purpose, so the warnings about it are not shown.
    command.env("WINDFALL__LOG__FILTER", "error");
    Shop::of(Server::start_with(&mut command).await.0)
}

/// Waits until a metric has at least this value.
pub(crate) async fn reaches(shop: &Shop, name: &str, value: f64) {
    let reached = async {
        while metric(shop, name).await < value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name} does not reach {value}"));
}

/// The text of `/metrics`.
pub(crate) async fn metrics(shop: &Shop) -> String {
    shop.client.get(format!("{}/metrics", shop.address())).send().await.unwrap().text().await.unwrap()
}

/// The value of a metric with its labels. 0 if `/metrics` does not contain it yet.
pub(crate) async fn metric(shop: &Shop, name: &str) -> f64 {
    let text = metrics(shop).await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

pub(crate) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("a number, not {value}"))
}
