//! Progress can change without points. Followers receive such changes too, once each.

use serde_json::{Value, json};

use super::{Follower, TRANSPORTS, Told, Transport};
use crate::support::graphql::text;
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

/// Returns the progress of the only campaign. The update must have no entries.
fn progress_alone(update: &Value) -> &Value {
    assert_eq!((&update["entries"], &update["change"]), (&json!([]), &json!(0)), "{update}");
    &update["progress"][0]["current"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_told_as_it_moves_and_once_after_a_cut() {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    shop.campaign(json!({ "goal": { "purchases": { "atLeast": 5, "repeat": true } } })).await;
    for (transport, customer) in [(Transport::WebSocket, "ada"), (Transport::Events, "bob")] {
        let mut cursor = text(&shop.balance(customer).await["cursor"]);
        let mut follower = Follower::of(transport, &shop, customer, Some(&cursor)).await;
        for number in 0..2 {
            shop.buy(customer, number).await;
            let update = follower.update().await;
            assert_eq!(progress_alone(&update), &json!((number + 1).to_string()), "{update}");
            assert_eq!(update["balance"], shop.balance(customer).await);
            cursor = text(&update["cursor"]);
        }
        drop(follower);
        // Two commits while the follower is away become one update when it is back.
        shop.buy(customer, 2).await;
        shop.buy(customer, 3).await;
        let mut follower = Follower::of(transport, &shop, customer, Some(&cursor)).await;
        let update = follower.update().await;
        assert_eq!(progress_alone(&update), "4", "{update}");
        cursor = text(&update["cursor"]);
        drop(follower);
        // Nothing has changed since the cursor, so the first update is about the next purchase.
        let mut follower = Follower::of(transport, &shop, customer, Some(&cursor)).await;
        shop.buy(customer, 4).await;
        let mut told = Told::after(cursor);
        told.hear(follower.update().await);
        assert_eq!(told.entries.len(), 1);
        told.is_all_of(&shop, customer).await;
    }
}

/// The cursor of a ledger entry stands for the entry's commit. Changes of progress since that commit are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_entry_s_cursor_all_that_moved_since_is_told() {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    shop.campaign(json!({ "goal": { "purchases": { "atLeast": 2, "repeat": true } } })).await;
    shop.buy_many("ada", 0..2).await;
    shop.buy("ada", 2).await;
    for (transport, number) in TRANSPORTS.into_iter().zip([3, 5]) {
        let last = shop.ledger("ada").await.pop().unwrap().0;
        let mut follower = Follower::of(transport, &shop, "ada", Some(&last)).await;
        assert_eq!(progress_alone(&follower.update().await), "1");
        shop.buy("ada", number).await;
        let update = follower.update().await;
        assert_eq!(update["entries"].as_array().unwrap().len(), 1, "{update}");
        shop.buy("ada", number + 1).await;
        assert_eq!(progress_alone(&follower.update().await), "1");
    }
}
