//! Followers also receive what another process commits to the same database.

use serde_json::json;

use super::{Follower, TRANSPORTS, Told, entries};
use crate::support::app::{ENGINES, scratch};
use crate::support::graphql::text;
use crate::support::server::{command, run};
use crate::support::shop::Shop;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_beside_the_server_is_heard() {
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("purchases.ndjson");
    let lines: Vec<String> = (0..40)
        .map(|number| {
            json!({
                "externalId": format!("i{number}"), "customerExternalId": "ada", "total": "3.00", "currency": "EUR",
                "purchasedAt": "2026-01-01T12:00:00Z",
            })
            .to_string()
        })
        .collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = Shop::open(&url).await;
        shop.campaign(json!({})).await;
        let start = text(&shop.balance("ada").await["cursor"]);
        let mut followers = Vec::new();
        for transport in TRANSPORTS {
            let follower = Follower::of(transport, &shop, "ada", Some(&start)).await;
            followers.push((follower, Told::after(start.clone())));
        }
        let imported = run(command(&url).arg("import").arg(&file));
        assert_eq!((imported.code, imported.stderr.as_str()), (Some(0), ""), "{imported:?}");
        let ledger = entries(&shop, "ada").await;
        assert_eq!(ledger.len(), lines.len());
        for (follower, told) in &mut followers {
            told.hear_all(follower, &ledger).await;
            told.is_all_of(&shop, "ada").await;
        }
        // The server's own commits continue from there.
        shop.buy("ada", 0).await;
        for (follower, told) in &mut followers {
            told.hear(follower.update().await);
            told.is_all_of(&shop, "ada").await;
        }
    }
}
