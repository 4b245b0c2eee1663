//! A response that is sent again is as current as one that is computed.

use std::time::Duration;

use serde_json::{Value, json};
use windfall::engine::time::{Instant, parse_instant};
use windfall::http::auth::Role;

use crate::support::app::{ENGINES, scratch};
use crate::support::node::{metric, node, number};
use crate::support::server::{ask, token};
use crate::support::shop::Shop;

const PROGRESS: &str = "query Now($seen: Count) { me(atLeastVersion: $seen) {
    balance { version available now: asOf asOf }
    progress { campaign { id status } state current window { opensAt closesAt } }
    awards(first: 3) { nodes { points earnedAt } } } }";

async fn read(shop: &Shop, ada: &str) -> Value {
    shop.data(ada, PROGRESS, json!({})).await["me"].take()
}

fn instant(value: &Value) -> Instant {
    parse_instant(value.as_str().unwrap()).unwrap()
}

/// The reads that found a customer in memory, including those that a kept response served.
async fn hits(shop: &Shop) -> f64 {
    metric(shop, "windfall_cache_reads_total{tier=\"l1\"}").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_response_is_current() {
    for engine in ENGINES {
        let (url, _directory) = scratch(engine).await;
        let shop = node(&url, None, &[]).await;
        shop.campaign(json!({})).await;
        let ada = token(Role::Customer, "ada");
        for n in 0..40_usize {
            shop.buy("ada", n).await;
            let first = read(&shop, &ada).await;
            assert_eq!(number(&first["balance"]["version"]), i64::try_from(n).unwrap() + 1, "{engine:?}");
            let mut again = read(&shop, &ada).await;
            assert!(instant(&again["balance"]["asOf"]) > instant(&first["balance"]["asOf"]), "{engine:?}");
            assert_eq!(again["balance"]["asOf"], again["balance"]["now"]);
            again["balance"]["asOf"] = first["balance"]["asOf"].clone();
            again["balance"]["now"] = first["balance"]["now"].clone();
            assert_eq!(again, first, "{engine:?}");
        }
        assert!(hits(&shop).await >= 40.0);
        // Another caller, and another version.
        assert_eq!(read(&shop, &token(Role::Customer, "bob")).await["balance"]["version"], 0);
        let answer = ask(&shop.client, shop.address(), &ada, PROGRESS, json!({"seen": 41})).await.unwrap();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT", "{answer}");
    }
}

/// The clock alone changes what is shown: a campaign starts, and windows close.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_response_ends_with_what_it_shows() {
    for engine in ENGINES {
        let (url, _directory) = scratch(engine).await;
        let shop = node(&url, None, &[]).await;
        let every = shop.campaign(json!({})).await;
        shop.buy("ada", 0).await;
        let ada = token(Role::Customer, "ada");
        let now = instant(&read(&shop, &ada).await["balance"]["asOf"]);
        let (starts, ends) = (now.plus(1_500_000), now.plus(3_500_000));
        let input = json!({
            "name": "soon", "startsAt": starts.to_string(), "endsAt": ends.to_string(), "currency": "EUR",
            "window": {"campaign": "WHOLE"}, "goal": {"purchases": {"atLeast": 2}}, "award": {"points": 1},
        });
        let create = "mutation($input: CampaignInput!) { createCampaign(input: $input) { campaign { id } } }";
        let soon =
            shop.data(&shop.admin, create, json!({"input": input})).await["createCampaign"]["campaign"]["id"].take();
        let activate = "mutation($id: ID!) { activateCampaign(id: $id) { userErrors { message } } }";
        shop.data(&shop.admin, activate, json!({"id": soon})).await;
        let before = hits(&shop).await;
        let mut seen = [0, 0, 0];
        loop {
            let read = read(&shop, &ada).await;
            let at = instant(&read["balance"]["asOf"]);
            let campaigns: Vec<&Value> =
                read["progress"].as_array().unwrap().iter().map(|progress| &progress["campaign"]["id"]).collect();
            let runs = (starts..ends).contains(&at);
            assert_eq!(campaigns.contains(&&soon), runs, "{engine:?}: {read} {starts} {ends}");
            assert!(campaigns.contains(&&json!(every)));
            seen[if runs {
                1
            } else if at < starts {
                0
            } else {
                2
            }] += 1;
            if seen[2] > 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(seen.iter().all(|count| *count > 20), "{engine:?}: {seen:?}");
        // The status and the list change twice. All other reads are served from memory.
        assert!(hits(&shop).await - before >= f64::from(seen.iter().sum::<u32>() - 1), "{engine:?}");
        assert_eq!(metric(&shop, "windfall_cache_drift_total").await, 0.0);
    }
}

/// The balance comes from memory and the ledger from the database, while purchases are recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balance_and_ledger_of_a_response_belong_together() {
    let query = "{ me { balance { available } ledger(first: 1) { nodes { balanceAfter } } } }";
    for engine in ENGINES {
        let (url, _directory) = scratch(engine).await;
        let shop = node(&url, None, &[]).await;
        shop.campaign(json!({})).await;
        shop.buy("ada", 0).await;
        let ada = token(Role::Customer, "ada");
        let buying = async {
            for n in 1..150 {
                shop.buy("ada", n).await;
            }
        };
        let mut buying = std::pin::pin!(buying);
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let read = shop.data(&ada, query, json!({}));
            let read = tokio::select! {
                () = &mut buying => break,
                read = read => read,
            };
            let available = &read["me"]["balance"]["available"];
            assert_eq!(*available, read["me"]["ledger"]["nodes"][0]["balanceAfter"], "{engine:?}");
            seen.insert(number(available));
        }
        assert!(seen.len() > 20, "{engine:?}: {seen:?}");
    }
}
